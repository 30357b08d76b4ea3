"""Convert core records to and from the values of Arrow arrays, one sample at a time.

Encoders return plain dicts in the shape of the structs of `stages.arrow.state_schema`; arrays stay
numpy arrays, whose buffers Arrow reads directly. Decoders take Arrow scalars, or the columns of a
whole chunk. Media: `stages.arrow.media_codec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from omnitrace_core.attribution.curation import UnitKinds, unit_kinds
from omnitrace_core.errors import TraceError
from omnitrace_core.positions import Positions, PromptMap
from omnitrace_core.records import (
    Float32,
    Fold,
    SourceUnit,
    SpeechChunk,
    TokenTrace,
    Word,
)
from stages.arrow.state_schema import PROMPT, UNIT

StructValue = dict[str, object]  # a struct's values by field, to put into an Arrow array


def encode_speech(speech: Mapping[int, tuple[SpeechChunk, ...]]) -> list[StructValue]:
    """Speech chunks by part index as SPEECH structs."""
    return [
        {"part_index": index, "segments": [_encode_chunk(chunk) for chunk in chunks]}
        for index, chunks in speech.items()
    ]


def _encode_chunk(chunk: SpeechChunk) -> StructValue:
    words = [{"text": w.text, "start_s": w.start_s, "end_s": w.end_s} for w in chunk.words]
    return {"start_s": chunk.start_s, "end_s": chunk.end_s, "text": chunk.text, "words": words}


def decode_speech(values: pa.ListScalar) -> dict[int, tuple[SpeechChunk, ...]]:
    """SPEECH structs of one sample back to speech chunks by part index."""
    return {
        item["part_index"].as_py(): tuple(
            SpeechChunk(s["start_s"], s["end_s"], s["text"], tuple(Word(**w) for w in s["words"]))
            for s in item["segments"].as_py()
        )
        for item in _structs(values)
    }


def encode_units(units: Iterable[SourceUnit]) -> list[StructValue]:
    """Source units as UNIT structs."""
    return [_encode_unit(unit) for unit in units]


def _encode_unit(unit: SourceUnit) -> StructValue:
    return {
        "unit_id": unit.unit_id,
        "kind": unit.kind,
        "modality": unit.modality,
        "part_index": unit.part_index,
        "text": unit.text,
        "char_start": unit.char_start,
        "char_end": unit.char_end,
        "box": None if unit.box is None else list(unit.box),
        "start_s": unit.start_s,
        "end_s": unit.end_s,
        "transcript": unit.transcript,
    }


def decode_units(column: pa.ListArray) -> list[tuple[SourceUnit, ...]]:
    """UNIT structs of every sample of a chunk back to source units; none for a null list."""
    rows = column.flatten()
    fields = {name: rows.field(name).to_pylist() for name in UNIT.names}
    fields["box"] = [None if box is None else tuple(box) for box in fields["box"]]
    # UNIT has the same fields as SourceUnit, in the same order.
    units = [SourceUnit(*row) for row in zip(*fields.values(), strict=True)]
    return [tuple(units[inside]) for inside in _slices(column)]


def decode_unit_kinds(column: pa.ListArray) -> list[UnitKinds]:
    """The kinds and modalities of the units of every sample of a chunk."""
    rows = column.flatten()
    kinds = unit_kinds(rows.field("kind").to_pylist(), rows.field("modality").to_pylist())
    return [kinds[inside] for inside in _slices(column)]


def _slices(column: pa.ListArray) -> list[slice]:
    """The slice of each list among the values of all lists."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
    return [slice(end - n, end) for n, end in zip(lengths, accumulate(lengths), strict=True)]


def encode_trace(trace: TokenTrace) -> StructValue:
    """A token trace as a TRACE struct."""
    rows = {} if trace.positions is None else trace.positions.rows
    return {
        "response": trace.response,
        "token_ids": list(trace.token_ids),
        "tokens": list(trace.tokens),
        "char_starts": [start for start, _ in trace.char_spans],
        "char_ends": [end for _, end in trace.char_spans],
        "logprobs": _flat(trace.logprobs),
        "finish_reason": trace.finish_reason,
        "n_prompt_tokens": trace.n_prompt_tokens,
        "folds": [_encode_fold(name, fold, rows.get(name)) for name, fold in trace.folds.items()],
        "notes": list(trace.notes),
        "prompt": None if trace.positions is None else _encode_prompt(trace.positions.prompt),
    }


def _encode_fold(signal: str, fold: Fold, rows: Float32 | None) -> StructValue:
    """A FOLD struct; two-dimensional arrays are flattened by rows."""
    return {
        "signal": signal,
        "mass": _flat(fold.mass),
        "peak": _flat(fold.peak),
        "markup": _flat(fold.markup),
        "uncovered": _flat(fold.uncovered),
        "generated": _flat(fold.generated),
        "rows": None if rows is None else _flat(rows),
    }


def _encode_prompt(prompt: PromptMap) -> StructValue:
    return {
        "stream": prompt.stream,
        "part": prompt.part,
        "lo": prompt.lo,
        "hi": prompt.hi,
        "box": _flat(prompt.box),
    }


def _flat(array: Float32) -> Float32:
    return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def decode_trace(value: pa.StructScalar, n_units: int) -> TokenTrace:
    """A TRACE struct back to a token trace; folds are [n_gen, n_units].

    The arrays are read-only views of Arrow's memory.
    """
    row = {name: value[name].as_py() for name in _PLAIN_FIELDS}
    folds = _structs(value["folds"])
    return TokenTrace(
        response=row["response"],
        token_ids=tuple(row["token_ids"]),
        tokens=tuple(row["tokens"]),
        char_spans=tuple(zip(row["char_starts"], row["char_ends"], strict=True)),
        logprobs=_view(value["logprobs"]),
        finish_reason=row["finish_reason"],
        n_prompt_tokens=row["n_prompt_tokens"],
        folds={item["signal"].as_py(): _decode_fold(item, n_units) for item in folds},
        notes=tuple(row["notes"]),
        positions=decode_positions(value),
    )


_PLAIN_FIELDS = (
    *("response", "token_ids", "tokens", "char_starts", "char_ends"),
    *("finish_reason", "n_prompt_tokens", "notes"),
)


def decode_fold(value: pa.StructScalar, signal: str, n_units: int) -> Fold:
    """One fold of a TRACE struct; the arrays are read-only views of Arrow's memory.

    Raises:
        TraceError: the signal was not traced.
    """
    folds = _structs(value["folds"])
    names = [item["signal"].as_py() for item in folds]
    if signal not in names:
        raise TraceError(f"the signal {signal!r} was not traced, only {names} were")
    return _decode_fold(folds[names.index(signal)], n_units)


def _decode_fold(item: pa.StructScalar, n_units: int) -> Fold:
    """A FOLD struct back to a fold; peaks that were not loaded are NaN.

    So is `uncovered` in traces of older versions, whose markup contains it.
    """
    markup = _view(item["markup"])
    shape = (len(markup), n_units)
    peak, uncovered = item["peak"], item["uncovered"]
    return Fold(
        mass=_view(item["mass"]).reshape(shape),
        peak=_view(peak).reshape(shape) if peak.is_valid else np.broadcast_to(_NAN, shape),
        markup=markup,
        generated=_view(item["generated"]),
        uncovered=_view(uncovered) if uncovered.is_valid else np.broadcast_to(_NAN, markup.shape),
    )


_NAN = np.float32("nan")


def decode_positions(value: pa.StructScalar) -> Positions | None:
    """The prompt's positions in a TRACE struct, None if not kept; read-only views of its memory."""
    if not value["prompt"].is_valid:
        return None
    stream, part, lo, hi, box = (_view(value["prompt"][field.name]) for field in PROMPT)
    n_positions = len(stream)
    rows = {
        item["signal"].as_py(): _view(item["rows"]).reshape(-1, n_positions)
        for item in _structs(value["folds"])
        if item["rows"].is_valid
    }
    return Positions(PromptMap(stream, part, lo, hi, box.reshape(n_positions, 4)), rows)


def _view(value: pa.ListScalar) -> NDArray[Any]:
    array: NDArray[Any] = value.values.to_numpy()
    return array


def _structs(values: pa.ListScalar) -> list[pa.StructScalar]:
    """The structs of a list scalar; none for a null list."""
    return list(values.values) if values.is_valid else []
