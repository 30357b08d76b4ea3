"""A tracer without a model: random numbers with valid shapes and sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from omnitrace_core.errors import SampleError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.positions import PositionKind, Positions, PromptMap
from omnitrace_core.records import Fold, ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import TracedBy
from omnitrace_core.tracing.refold import refold
from omnitrace_core.units.assign import assign_units, unit_notes
from omnitrace_core.units.extents import Extent, extent_of
from stages.guards.attempts import AttemptLog
from stages.trace_decode import TraceDecode, TraceDecodeOptions

TRACED_BY = TracedBy("made-up", revision="", dtype="float32", attention="sdpa", device="cpu")
NOWHERE = (0.0, 0.0, 0.0, 0.0)
Place = tuple[int, int, float, float, tuple[float, float, float, float]]


def make_trace(ready: ReadySample, trace: TraceOptions | None = None) -> TokenTrace:
    """One token per word of the response, its mass on random positions of the prompt."""
    trace = trace or TraceOptions()
    response = ready.sample.response or "The lamp is red. It stands in the hall."
    words = response.split(" ")
    tokens = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    ends = np.cumsum([len(token) for token in tokens])
    n_gen = len(tokens)
    positions, folds = make_folds(ready, n_gen, trace.signals)
    return TokenTrace(
        response=response,
        token_ids=tuple(range(n_gen)),
        tokens=tuple(tokens),
        char_spans=tuple(
            (int(end) - len(token), int(end)) for end, token in zip(ends, tokens, strict=True)
        ),
        logprobs=np.full(n_gen, -0.5, np.float32),
        finish_reason="given" if ready.sample.response else "stop",
        n_prompt_tokens=len(positions.prompt.part),
        folds=folds,
        notes=("made up", *_unit_notes(positions.prompt, ready)),
        positions=positions if trace.keeps_positions else None,
    )


def _unit_notes(prompt: PromptMap, ready: ReadySample) -> tuple[str, ...]:
    return unit_notes(prompt, assign_units(prompt, ready.units), ready.units)


def make_folds(
    ready: ReadySample, n_gen: int, signals: Sequence[str]
) -> tuple[Positions, dict[str, Fold]]:
    """Random masses over the positions of a synthetic prompt, and their folds by source unit.

    They depend only on the signal, the number of tokens and the prompt, not on the units.
    """
    prompt = make_prompt(ready)
    n_positions = len(prompt.part)
    rows, nothing = {}, np.zeros((n_gen, 0), np.float32)
    unfolded = {}
    for signal in signals:
        rng = np.random.default_rng([n_gen, n_positions, len(signal)])
        shares = rng.dirichlet(np.full(n_positions + 1, 0.1), size=n_gen).astype(np.float32)
        rows[signal] = np.ascontiguousarray(shares[:, :-1])
        unfolded[signal] = Fold(nothing, nothing, shares[:, -1], shares[:, -1])
    positions = Positions(prompt, rows)
    return positions, refold(positions, unfolded, ready.units)


def make_prompt(ready: ReadySample) -> PromptMap:
    """A synthetic prompt: chat markup, then positions for the parts.

    Each word, quarter of a second of sound, and cell of a 4 x 4 grid over a picture has a position.
    """
    places: list[Place] = [(PositionKind.NONE, -1, 0.0, 0.0, NOWHERE)]
    for index, part in enumerate(ready.sample.parts):
        if part.type == "text":
            places += _words(index, part.text)
        else:
            places += _places(index, extent_of(ready.media[index], MediaRules()))
    stream, parts, lo, hi, box = zip(*places, strict=True)
    return PromptMap(
        np.array(stream, np.int8),
        np.array(parts, np.int32),
        np.array(lo, np.float64),
        np.array(hi, np.float64),
        np.array(box, np.float32),
    )


def _words(index: int, text: str) -> Iterator[Place]:
    start = 0
    for word in text.split(" "):
        yield PositionKind.TEXT, index, float(start), float(start + len(word)), NOWHERE
        start += len(word) + 1


def _places(index: int, extent: Extent) -> Iterator[Place]:
    cells = [
        (
            extent.width * x / 4,
            extent.height * y / 4,
            extent.width * (x + 1) / 4,
            extent.height * (y + 1) / 4,
        )
        for y in range(4)
        for x in range(4)
    ]
    if extent.kind == "image":
        yield from ((PositionKind.IMAGE, index, 0.0, 0.0, cell) for cell in cells)
    for lo, hi in zip(extent.step_edges_s, extent.step_edges_s[1:], strict=False):
        yield from ((PositionKind.FRAMES, index, lo, hi, cell) for cell in cells)
    if extent.sound is not None:
        stream = PositionKind.AUDIO if extent.kind == "audio" else PositionKind.SOUND
        for lo in np.arange(extent.sound[0], extent.sound[1], 0.25).tolist():
            yield stream, index, lo, min(lo + 0.25, extent.sound[1]), NOWHERE


class MadeTracer:
    """Traces without a model, and records its inputs.

    faults: exceptions by sample id; a `SampleError` is returned, another exception is raised.
    """

    traced_by = TRACED_BY

    def __init__(self, trace: TraceOptions | None = None, **faults: BaseException) -> None:
        self.options = trace
        self.replay_s = 0.0
        self.faults = faults
        self.inputs: list[ReadySample] = []
        self.calls: list[int] = []

    def warm_up(self) -> None: ...

    def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
        return ready

    def trace_encoded(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        self.calls.append(len(ready))
        self.inputs += ready
        self.replay_s += 0.25 * len(ready)
        return [self._one(item) for item in ready]

    def _one(self, ready: ReadySample) -> TokenTrace | SampleError:
        fault = self.faults.get(ready.sample.sample_id)
        if isinstance(fault, SampleError):
            return fault
        if fault is not None:
            raise fault
        return make_trace(ready, self.options)


def trace_stage(
    tracer: MadeTracer, attempts: AttemptLog | None = None, timeout_s: float | None = None
) -> TraceDecode:
    """The trace stage with a synthetic tracer, without loading a model."""
    model, trace = ModelOptions(path=TRACED_BY.model), tracer.options or TraceOptions()
    options = TraceDecodeOptions(model, DecodeOptions(), trace)
    return TraceDecode(options, attempts, timeout_s, lambda _: tracer)


def samples_of(table: pa.Table) -> list[dict[str, Any]]:
    """The samples of a one-chunk table as plain dicts."""
    rows: list[dict[str, Any]] = table.to_pylist()[0]["samples"]
    return rows
