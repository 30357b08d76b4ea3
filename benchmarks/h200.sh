#!/usr/bin/env bash
# All checks that need a GPU, in at most ten minutes: parity tests, then the full-size thinker.
# Prints results at once and writes them to OUT (benchmarks/out/h200), so that a stopped run keeps them.
#
#   benchmarks/h200.sh            PYTHON=... for another interpreter, OUT=... for another folder
#
# It needs no .venv: any python3 with torch for CUDA and the packages that benchmarks/h200_needs.py names will
# do. It lists what is missing and ends with 2; docs/where-to-go-on.md says how to bring that along.
#
# Arguments go to benchmarks.full_size: `--size tiny --device cpu --dtype float32` runs it on any machine.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
out=${OUT:-benchmarks/out/h200}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
began=$SECONDS
"$python" benchmarks/h200_needs.py || exit 2
if [ $# -eq 0 ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "benchmarks/h200.sh: $python sees no CUDA device; run it on a machine with a GPU" >&2
    exit 2
fi
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    "$python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'
} 2>&1 | tee "$out/machine.txt"

echo "== parity with the CPU (tests/core/test_gpu.py)"
timeout 150 "$python" -m pytest -q -p no:cacheprovider tests/core/test_gpu.py 2>&1 | tee "$out/parity.txt"
parity=${PIPESTATUS[0]}

echo "== 7B thinker, random weights, bfloat16"
# No measurement begins in the last 60 seconds: one with long prompts may take that long.
left=$((570 - (SECONDS - began)))
timeout "$left" "$python" -m benchmarks.full_size --seconds $((left - 60)) \
    --output "$out/full-size.json" "$@" 2>&1 | tee "$out/full-size.txt"
measured=${PIPESTATUS[0]}

echo "== $((SECONDS - began)) s; parity tests ended with $parity, measurements with $measured; results in $out"
[ "$parity" -eq 0 ] && [ "$measured" -eq 0 ]
