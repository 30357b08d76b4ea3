"""Convert decoded media to and from the values of Arrow arrays, one sample at a time.

`stages.arrow.chunk_media` does so for a chunk whose samples share media.

Arrow reads pixels and waveforms from numpy's buffers. They are copied once on the way back, from
Arrow's memory into a writable array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.records import Float32, Part
from omnitrace_core.units.extents import Extent, extent_of
from stages.arrow.codec import StructValue


def encode_media(media: Mapping[int, DecodedMedia]) -> list[StructValue]:
    """Decoded media by part index as DECODED structs."""
    return [{"part_index": index, **_encode_one(item)} for index, item in media.items()]


def _encode_one(item: DecodedMedia) -> StructValue:
    if isinstance(item, DecodedAudio):
        return {"type": "audio", "sound": _encode_sound(item), "sha256": item.sha256, "notes": []}
    row: StructValue = {
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


def _encode_pixels(pixels: NDArray[np.uint8]) -> StructValue:
    return {"pixels": _buffer(pixels), "shape": list(pixels.shape)}


def _encode_sound(sound: DecodedAudio) -> StructValue:
    return {
        "waveform": _buffer(sound.waveform),
        "sample_rate": sound.sample_rate,
        "start_s": sound.start_s,
        "duration_s": sound.duration_s,
        "sha256": sound.sha256,
        "notes": list(sound.notes),
    }


def _buffer(array: NDArray[np.uint8] | Float32) -> memoryview:
    # memoryview cannot cast an empty array.
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")


def decode_media(items: Iterable[Mapping[str, Any]]) -> dict[int, DecodedMedia]:
    """DECODED structs of one sample (`python_values`) back to decoded media by part index."""
    return {item["part_index"]: decode_one(item) for item in items}


def decode_one(item: Mapping[str, Any]) -> DecodedMedia:
    """A DECODED struct that holds its medium, as decoded media."""
    if item["type"] == "audio":
        return _decode_sound(item["sound"])
    pixels = _array(item["pixels"]).reshape(item["shape"])
    notes = tuple(item["notes"])
    if item["type"] == "image":
        return DecodedImage(pixels, item["width"], item["height"], item["sha256"], notes)
    return DecodedVideo(
        frames=pixels,
        frame_times_s=np.array(item["frame_times_s"], dtype=np.float64),
        fps=item["fps"],
        width=item["width"],
        height=item["height"],
        start_s=item["start_s"],
        end_s=item["end_s"],
        duration_s=item["duration_s"],
        sound=None if item["sound"] is None else _decode_sound(item["sound"]),
        sha256=item["sha256"],
        notes=notes,
    )


def _decode_sound(item: Mapping[str, Any]) -> DecodedAudio:
    return DecodedAudio(
        waveform=_array(item["waveform"]).view(np.float32),
        sample_rate=item["sample_rate"],
        start_s=item["start_s"],
        duration_s=item["duration_s"],
        sha256=item["sha256"],
        notes=tuple(item["notes"]),
    )


def _array(data: memoryview) -> NDArray[np.uint8]:
    # Copied because Arrow's memory is read-only, and processors pass arrays on to torch.
    return np.frombuffer(data, dtype=np.uint8).copy()


def media_info(
    parts: tuple[Part, ...], media: Mapping[int, DecodedMedia], rules: MediaRules
) -> list[StructValue]:
    """What is kept of decoded media after its pixels are dropped, as MEDIA_INFO structs."""
    return [
        {
            "part_index": index,
            "uri": _address(parts[index]),
            **_info(item),
            **_edges(extent_of(item, rules)),
        }
        for index, item in media.items()
    ]


def _edges(extent: Extent) -> StructValue:
    start_s, end_s = extent.sound or (None, None)
    return {
        "step_edges_s": list(extent.step_edges_s),
        "sound_start_s": start_s,
        "sound_end_s": end_s,
    }


def decode_extents(infos: Iterable[Mapping[str, Any]]) -> dict[int, Extent]:
    """MEDIA_INFO structs of one sample back to the extents of its media, by part index."""
    return {item["part_index"]: _extent(item) for item in infos}


def _extent(item: Mapping[str, Any]) -> Extent:
    sound = (item["sound_start_s"], item["sound_end_s"])
    return Extent(
        kind=item["type"],
        width=item["width"] or 0,
        height=item["height"] or 0,
        start_s=item["start_s"] or 0.0,
        end_s=item["end_s"] or 0.0,
        step_edges_s=tuple(item["step_edges_s"] or ()),
        sound=None if sound[0] is None else sound,
    )


def _address(part: Part) -> str:
    return part.uri if part.data is None else ""


def _info(item: DecodedMedia) -> StructValue:
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
    row: StructValue = {
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
