"""The decoded media of a chunk: a medium that several samples share is stored once.

The first sample that has it holds its pixels and sound; the others refer to that sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from omnitrace_core.decoded_media import DecodedMedia
from stages.arrow.codec import StructValue
from stages.arrow.media_codec import decode_one, encode_media
from stages.arrow.nested import relist, restruct
from stages.arrow.state_schema import DECODED


@dataclass(frozen=True, slots=True)
class Place:
    """Where a medium is stored: the index of a sample in its chunk, and of a part."""

    row: int
    part_index: int


class ChunkMediaWriter:
    """Collects the media of a chunk's samples, one sample after another, for one Arrow array.

    The memory of a chunk's media is most of what a decoding actor needs. So `column` allocates what
    they take at once, and frees each array as soon as it is copied.
    """

    def __init__(self, n_rows: int) -> None:
        self._rows: list[list[StructValue] | None] = [None] * n_rows
        # By identity. The media themselves are kept, too, so that no identity is used again.
        self._stored: dict[int, tuple[DecodedMedia, Place]] = {}

    def add(self, row: int, media: Mapping[int, DecodedMedia]) -> None:
        """Store the media of a sample that has no error; media of earlier ones are referred to.

        row: the sample's index. Media are the same if they are the same objects.
        """
        self._rows[row] = [self._struct(Place(row, index), item) for index, item in media.items()]

    def _struct(self, place: Place, item: DecodedMedia) -> StructValue:
        _, stored_at = self._stored.setdefault(id(item), (item, place))
        if stored_at == place:
            (struct,) = encode_media({place.part_index: item})
            return struct
        same_as = {"row": stored_at.row, "part_index": stored_at.part_index}
        return {"part_index": place.part_index, "same_as": same_as}

    def column(self) -> pa.ListArray:
        """A list of DECODED for each sample, null where none was added; forgets all media."""
        structs = [struct for row in self._rows for struct in row or ()]
        pixels = [_taken(struct, "pixels") for struct in structs]
        waveforms = [_taken(struct.get("sound"), "waveform") for struct in structs]
        lists = pa.array(self._rows, pa.list_(DECODED))
        self._rows.clear()
        self._stored.clear()
        decoded = lists.flatten()
        sound = decoded.field("sound")
        sound = restruct(sound, {**_fields(sound), "waveform": _binary_array(waveforms)})
        fields = {**_fields(decoded), "pixels": _binary_array(pixels), "sound": sound}
        return relist(lists, restruct(decoded, fields))


def _taken(struct: object, name: str) -> memoryview | None:
    """A field of a struct, which then has it no more."""
    value = struct.pop(name, None) if isinstance(struct, dict) else None
    return value if isinstance(value, memoryview) else None


def _fields(structs: pa.StructArray) -> dict[str, pa.Array]:
    return {field.name: structs.field(field.name) for field in structs.type}


def _binary_array(values: list[memoryview | None]) -> pa.LargeBinaryArray:
    """memoryview as one array; takes each value out of the list when it is copied."""
    sizes = [0 if value is None else value.nbytes for value in values]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    known = pa.array([value is not None for value in values], pa.bool_())
    data = pa.allocate_buffer(int(offsets[-1]))
    target = np.frombuffer(data, np.uint8)
    for index, start in enumerate(offsets[:-1]):
        value, values[index] = values[index], None
        if value is not None:
            target[start : start + value.nbytes] = value
    buffers = [known.buffers()[1], pa.py_buffer(offsets), data]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), buffers)


class ChunkMediaReader:
    """Decodes the media of a chunk's samples; a shared medium is one object for all of them.

    Nothing is kept here: a medium is decoded again once no sample in work has it any more.
    """

    def __init__(self, column: Sequence[Sequence[Mapping[str, Any]] | None]) -> None:
        """column: DECODED structs of each sample (`python_values`)."""
        self._column = column
        self._alive: WeakValueDictionary[Place, DecodedMedia] = WeakValueDictionary()

    def decode(self, row: int) -> dict[int, DecodedMedia]:
        """Decoded media of one sample by part index."""
        items = self._column[row] or ()
        return {item["part_index"]: self._decode_one(row, item) for item in items}

    def _decode_one(self, row: int, item: Mapping[str, Any]) -> DecodedMedia:
        same_as = item["same_as"]
        place = Place(row, item["part_index"]) if same_as is None else Place(**same_as)
        known = self._alive.get(place)
        if known is None:
            known = decode_one(self._stored_at(place))
            self._alive[place] = known
        return known

    def _stored_at(self, place: Place) -> Mapping[str, Any]:
        items = self._column[place.row] or ()
        return next(item for item in items if item["part_index"] == place.part_index)
