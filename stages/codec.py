"""Core records <-> the values that go into and come out of Arrow arrays, one sample at a time.

Encoders return plain dicts in the shape of `stages.schema`'s structs, with arrays left as numpy
(Arrow reads their buffers directly). Decoders take Arrow scalars. Media: `stages.media_codec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import pyarrow as pa

from omnitrace_core.records import (
    Box,
    Float32,
    Fold,
    Segment,
    SourceUnit,
    TokenTrace,
    Word,
)

Row = dict[str, object]


# --- speech and units --------------------------------------------------------------------------


def encode_speech(speech: Mapping[int, tuple[Segment, ...]]) -> list[Row]:
    """Speech segments by part index as SPEECH structs."""
    return [
        {"part_index": index, "segments": [_encode_segment(segment) for segment in segments]}
        for index, segments in speech.items()
    ]


def _encode_segment(segment: Segment) -> Row:
    words = [{"text": w.text, "start_s": w.start_s, "end_s": w.end_s} for w in segment.words]
    return {
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "text": segment.text,
        "words": words,
    }


def decode_speech(values: pa.ListScalar) -> dict[int, tuple[Segment, ...]]:
    """SPEECH structs of one sample back to segments by part index."""
    return {
        item["part_index"].as_py(): tuple(
            Segment(s["start_s"], s["end_s"], s["text"], tuple(Word(**w) for w in s["words"]))
            for s in item["segments"].as_py()
        )
        for item in items(values)
    }


def encode_units(units: Iterable[SourceUnit]) -> list[Row]:
    """Source units as UNIT structs."""
    return [encode_unit(unit) for unit in units]


def encode_unit(unit: SourceUnit) -> Row:
    """One source unit as a UNIT struct."""
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


def decode_units(values: pa.ListScalar) -> tuple[SourceUnit, ...]:
    """UNIT structs of one sample back to source units."""
    return tuple(_decode_unit(row) for row in values.as_py() or ())


def _decode_unit(row: Row) -> SourceUnit:
    box = cast("list[float] | None", row["box"])
    fields = {**row, "box": None if box is None else cast(Box, tuple(box))}
    return SourceUnit(**fields)  # type: ignore[arg-type]  # UNIT has exactly these fields


# --- traces ------------------------------------------------------------------------------------


def encode_trace(trace: TokenTrace) -> Row:
    """A token trace as a TRACE struct."""
    return {
        "response": trace.response,
        "token_ids": list(trace.token_ids),
        "tokens": list(trace.tokens),
        "char_starts": [start for start, _ in trace.char_spans],
        "char_ends": [end for _, end in trace.char_spans],
        "logprobs": _flat(trace.logprobs),
        "finish_reason": trace.finish_reason,
        "n_prompt_tokens": trace.n_prompt_tokens,
        "folds": [{"signal": name, **encode_fold(fold)} for name, fold in trace.folds.items()],
        "notes": list(trace.notes),
    }


def encode_fold(fold: Fold) -> Row:
    """A fold's arrays, mass and peak flattened by rows."""
    return {
        "mass": _flat(fold.mass),
        "peak": _flat(fold.peak),
        "markup": _flat(fold.markup),
        "generated": _flat(fold.generated),
    }


def _flat(array: Float32) -> Float32:
    return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def decode_trace(value: pa.StructScalar, n_units: int) -> TokenTrace:
    """A TRACE struct back to a token trace; folds are [n_gen, n_units]."""
    row = {
        name: value[name].as_py() for name in value if name not in ("folds", "logprobs", "notes")
    }
    n_gen = len(row["token_ids"])
    return TokenTrace(
        response=row["response"],
        token_ids=tuple(row["token_ids"]),
        tokens=tuple(row["tokens"]),
        char_spans=tuple(zip(row["char_starts"], row["char_ends"], strict=True)),
        logprobs=_floats(value["logprobs"]),
        finish_reason=row["finish_reason"],
        n_prompt_tokens=row["n_prompt_tokens"],
        folds={
            item["signal"].as_py(): decode_fold(item, n_gen, n_units)
            for item in items(value["folds"])
        },
        notes=tuple(value["notes"].as_py()),
    )


def decode_fold(item: pa.StructScalar, n_gen: int, n_units: int) -> Fold:
    """Arrays of one signal, as `encode_fold` flattened them."""
    return Fold(
        mass=_floats(item["mass"]).reshape(n_gen, n_units),
        peak=_floats(item["peak"]).reshape(n_gen, n_units),
        markup=_floats(item["markup"]),
        generated=_floats(item["generated"]),
    )


def _floats(value: pa.ListScalar) -> Float32:
    return np.array(value.values, dtype=np.float32)


def items(values: pa.ListScalar) -> list[pa.StructScalar]:
    """The structs of a list scalar; a null list has none."""
    return list(values.values) if values.is_valid else []
