"""What bfloat16 weights change: rows of the replay, and of eager attention, against float32 rows.

Run from the repository's root: `python -m benchmarks.precision`. The tiny model of random weights,
six samples of all modalities, one known response each; float32 rows come from the same bfloat16
weights by eager attention and one backward per token. Prints, for each signal, the mean difference
of rows over the prompt, relative to their mean.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from omnitrace_core.batch_tracer import BatchTracer
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import TokenTrace
from tests.core.oracle import ROWS, Eager, EagerOracle
from tests.core.samples import one_of_each
from training.tiny.build import build_tiny


def differences(path: str) -> dict[str, tuple[float, float]]:
    """By signal, the relative difference of the replay and of eager attention, both in bfloat16."""
    trace = TraceOptions(signals=tuple(ROWS), store="positions")
    decode = DecodeOptions(max_new_tokens=9)
    half = BatchTracer(ModelOptions(path=path, device="cpu", dtype="bfloat16"), decode, trace)
    whole = BatchTracer(ModelOptions(path=path, device="cpu"), decode, trace)
    exact, rounded = EagerOracle(whole.backend, path), EagerOracle(half.backend, path)
    weights = half.backend.model.state_dict()
    exact.model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    rounded.model.to(torch.bfloat16)
    sums = {name: [0.0, 0.0, 0.0] for name in ROWS}
    for sample in one_of_each().values():
        (answered,) = whole.trace([sample])
        assert isinstance(answered, TokenTrace)
        ids = answered.token_ids
        known = replace(sample, sample=replace(sample.sample, response_token_ids=ids))
        (ours,) = half.trace([known])
        assert isinstance(ours, TokenTrace)
        assert ours.positions is not None
        wanted = exact.forward(sample, ids)[0]
        eager = _in_float32(rounded.forward(sample, ids)[0])
        n_prompt = ours.n_prompt_tokens
        for name, rows in ROWS.items():
            right = rows(wanted)[:, :n_prompt]
            found = torch.from_numpy(ours.positions.rows[name])
            sums[name][0] += float(right.sum())
            sums[name][1] += float((found - right).abs().sum())
            sums[name][2] += float((rows(eager)[:, :n_prompt].float() - right).abs().sum())
    return {name: (ours / total, eager / total) for name, (total, ours, eager) in sums.items()}


def _in_float32(eager: Eager) -> Eager:
    """What the model gave in bfloat16; from here on nothing is rounded any more."""
    layers = copy.deepcopy(eager.layers).float()  # the model itself stays as it is
    values = [value.float() for value in eager.values]
    attention, gradient = eager.attention.float(), eager.gradient.float()
    return replace(eager, attention=attention, gradient=gradient, values=values, layers=layers)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        found = differences(str(build_tiny(Path(folder) / "model")))
    print(f"{'signal':10}{'replay':>9}{'eager':>9}   of bfloat16 weights, against float32")
    for name, (ours, eager) in found.items():
        print(f"{name:10}{ours:9.2%}{eager:9.2%}")


if __name__ == "__main__":
    main()
