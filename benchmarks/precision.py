"""Measure the effect of bfloat16: rows of the replay and of eager attention against float32 rows.

Run from the repository's root: `python -m benchmarks.precision [--model omnitrace-tiny]`. The
default model is the tiny one with random weights. There are six samples of all modalities, with one
known response each. The float32 rows come from the same bfloat16 weights, through eager attention
and one backward pass per token. Prints, for each signal, the mean difference of rows over the
prompt, relative to their mean: for the replay with each `trace.precision`, and for eager attention.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from omnitrace_core.backends.shipped import model_location
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from tests.core.oracle import ROWS, Eager, EagerOracle
from tests.core.ready_samples import one_of_each
from training.tiny.build import build_tiny


def differences(path: str) -> dict[str, tuple[float, float, float]]:
    """By signal, the relative differences: both replays and eager attention, in bfloat16."""
    trace = TraceOptions(signals=tuple(ROWS), store="positions")
    decode = DecodeOptions(max_new_tokens=9)
    in_half = ModelOptions(path=path, device="cpu", dtype="bfloat16")
    half = BatchTracer(in_half, decode, trace)
    wide = BatchTracer(in_half, decode, trace.model_copy(update={"precision": "float32"}))
    whole = BatchTracer(ModelOptions(path=path, device="cpu"), decode, trace)
    exact, rounded = EagerOracle(whole.backend, path), EagerOracle(half.backend, path)
    weights = half.backend.model.state_dict()
    exact.model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    rounded.model.to(torch.bfloat16)
    sums = {name: [0.0, 0.0, 0.0, 0.0] for name in ROWS}
    for sample in one_of_each().values():
        (answered,) = whole.trace([sample])
        assert isinstance(answered, TokenTrace)
        ids = answered.token_ids
        known = replace(sample, sample=replace(sample.sample, response_token_ids=ids))
        found = [_rows(tracer, known) for tracer in (half, wide)]
        wanted = exact.forward(sample, ids)[0]
        eager = _in_float32(rounded.forward(sample, ids)[0])
        n_prompt = answered.n_prompt_tokens
        for name, rows in ROWS.items():
            right = rows(wanted)[:, :n_prompt]
            of_eager = rows(eager)[:, :n_prompt].float()
            sums[name][0] += float(right.sum())
            for k, those in enumerate((found[0][name], found[1][name], of_eager), start=1):
                sums[name][k] += float((those - right).abs().sum())
    return {name: (a / total, b / total, c / total) for name, (total, a, b, c) in sums.items()}


def _rows(tracer: BatchTracer, sample: ReadySample) -> dict[str, torch.Tensor]:
    """By signal, the replay's rows [n_gen, P]."""
    (traced,) = tracer.trace([sample])
    assert isinstance(traced, TokenTrace)
    assert traced.positions is not None
    return {name: torch.from_numpy(rows) for name, rows in traced.positions.rows.items()}


def _in_float32(eager: Eager) -> Eager:
    """Convert the model's bfloat16 results, so that nothing is rounded after this."""
    layers = copy.deepcopy(eager.layers).float()  # the model itself does not change
    values = [value.float() for value in eager.values]
    return replace(
        eager,
        attention=eager.attention.float(),
        gradient=eager.gradient.float(),
        directions=eager.directions.float(),
        values=values,
        layers=layers,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a folder or omnitrace-tiny; default: random weights")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = model_location(args.model) if args.model else str(build_tiny(Path(folder) / "model"))
        found = differences(path)
    print(
        f"{'signal':10}{'model':>9}{'float32':>9}{'eager':>9}   (trace.precision; eager attention)"
    )
    for name, (ours, wide, eager) in found.items():
        print(f"{name:10}{ours:9.2%}{wide:9.2%}{eager:9.2%}")


if __name__ == "__main__":
    main()
