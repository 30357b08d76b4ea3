"""Core records <-> the values that go into and come out of Arrow arrays, one sample at a time.

Encoders return plain dicts in the shape of `stages.schema`'s structs, with arrays left as numpy
(Arrow reads their buffers directly). Decoders take Arrow scalars, so that pixels and waveforms are
copied once, from Arrow's memory into a writable array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from omnitrace_core.records import (
    Box,
    DecodedAudio,
    DecodedImage,
    DecodedMedia,
    DecodedVideo,
    Float32,
    Fold,
    Part,
    Segment,
    SourceUnit,
    TokenTrace,
    Word,
)

Row = dict[str, object]


# --- media -------------------------------------------------------------------------------------


def encode_media(media: Mapping[int, DecodedMedia]) -> list[Row]:
    """Decoded media by part index as DECODED structs."""
    return [{"part_index": index, **_encode_one(item)} for index, item in media.items()]


def _encode_one(item: DecodedMedia) -> Row:
    if isinstance(item, DecodedAudio):
        return {"type": "audio", "sound": _encode_sound(item), "sha256": item.sha256, "notes": []}
    row: Row = {
        "width": item.width,
        "height": item.height,
        "sha256": item.sha256,
        "notes": list(item.notes),
    }
    if isinstance(item, DecodedImage):
        return {"type": "image", **_encode_pixels(item.pixels), **row}
    return {
        "type": "video",
        **_encode_pixels(item.frames),
        **row,
        "frame_times_s": item.frame_times_s,
        "fps": item.fps,
        "start_s": item.start_s,
        "end_s": item.end_s,
        "duration_s": item.duration_s,
        "sound": None if item.sound is None else _encode_sound(item.sound),
    }


def _encode_pixels(pixels: NDArray[np.uint8]) -> Row:
    return {"pixels": _buffer(pixels), "shape": list(pixels.shape)}


def _encode_sound(sound: DecodedAudio) -> Row:
    return {
        "waveform": _buffer(sound.waveform),
        "sample_rate": sound.sample_rate,
        "start_s": sound.start_s,
        "duration_s": sound.duration_s,
        "sha256": sound.sha256,
        "notes": list(sound.notes),
    }


def _buffer(array: NDArray[np.uint8] | Float32) -> memoryview:
    # An empty array has no strides that memoryview could cast; its bytes are empty anyway.
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")


def decode_media(values: pa.ListScalar) -> dict[int, DecodedMedia]:
    """DECODED structs of one sample back to decoded media by part index."""
    return {item["part_index"].as_py(): _decode_one(item) for item in _items(values)}


def _decode_one(item: pa.StructScalar) -> DecodedMedia:
    kind = item["type"].as_py()
    if kind == "audio":
        return _decode_sound(item["sound"])
    pixels = _bytes(item["pixels"]).reshape(item["shape"].as_py())
    notes = tuple(item["notes"].as_py())
    width, height, sha256 = (item[name].as_py() for name in ("width", "height", "sha256"))
    if kind == "image":
        return DecodedImage(pixels, width, height, sha256, notes)
    start_s, end_s, duration_s = (item[name].as_py() for name in ("start_s", "end_s", "duration_s"))
    return DecodedVideo(
        frames=pixels,
        frame_times_s=np.array(item["frame_times_s"].values, dtype=np.float64),
        fps=item["fps"].as_py(),
        width=width,
        height=height,
        start_s=start_s,
        end_s=end_s,
        duration_s=duration_s,
        sound=_decode_sound(item["sound"]) if item["sound"].is_valid else None,
        sha256=sha256,
        notes=notes,
    )


def _decode_sound(item: pa.StructScalar) -> DecodedAudio:
    return DecodedAudio(
        waveform=_bytes(item["waveform"]).view(np.float32),
        sample_rate=item["sample_rate"].as_py(),
        start_s=item["start_s"].as_py(),
        duration_s=item["duration_s"].as_py(),
        sha256=item["sha256"].as_py(),
        notes=tuple(item["notes"].as_py()),
    )


def _bytes(value: pa.Scalar) -> NDArray[np.uint8]:
    # Copied because Arrow's memory is read-only and processors hand arrays to torch.
    return np.frombuffer(value.as_buffer(), dtype=np.uint8).copy()


def media_info(parts: tuple[Part, ...], media: Mapping[int, DecodedMedia]) -> list[Row]:
    """What is kept of each decoded media when its pixels are gone, as MEDIA_INFO structs."""
    return [
        {"part_index": index, "uri": _address(parts[index]), **_info(item)}
        for index, item in media.items()
    ]


def _address(part: Part) -> str:
    return part.uri if part.data is None else ""


def _info(item: DecodedMedia) -> Row:
    if isinstance(item, DecodedAudio):
        return {
            "type": "audio",
            "sha256": item.sha256,
            "duration_s": item.duration_s,
            "start_s": item.start_s,
            "end_s": item.start_s + len(item.waveform) / item.sample_rate,
            "sample_rate": item.sample_rate,
            "sound": True,
        }
    pixels = item.pixels if isinstance(item, DecodedImage) else item.frames
    row: Row = {
        "sha256": item.sha256,
        "width": item.width,
        "height": item.height,
        "model_height": pixels.shape[-3],
        "model_width": pixels.shape[-2],
    }
    if isinstance(item, DecodedImage):
        return {"type": "image", **row}
    return {
        "type": "video",
        **row,
        "duration_s": item.duration_s,
        "start_s": item.start_s,
        "end_s": item.end_s,
        "n_frames": len(item.frames),
        "fps": item.fps,
        "sample_rate": None if item.sound is None else item.sound.sample_rate,
        "sound": item.sound is not None,
    }


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
        for item in _items(values)
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
            for item in _items(value["folds"])
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


def _items(values: pa.ListScalar) -> list[pa.StructScalar]:
    """The structs of a list scalar; a null list has none."""
    return list(values.values) if values.is_valid else []
