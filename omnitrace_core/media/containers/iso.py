"""The boxes of MP4, MOV, M4A and their kin (ISO/IEC 14496-12): all there, and what do they show?

FFmpeg tells neither which part of a track its edit list shows, nor that a file was cut or joined.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from omnitrace_core.media.containers.declared import Declared, Window, read_at

# A file with more boxes than this is not one that anybody wrote on purpose.
_MAX_BOXES = 1_000_000
_LOAD = (b"moov", b"mdat", b"moof")
_SAME_RATE = 0x1_0000
# Flags of a run of samples (8.8.8): which fields it has itself, and which its samples have.
_RUN_FIELDS = (0x01, 0x04)
_SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
# A file's part as [start, end).
_Place = tuple[int, int]


def declared(file: BinaryIO, size: int) -> Declared:
    """Where the last box that holds media or times ends; all media must be in the file itself."""
    places = list(_boxes(file, (0, size)))
    boxes = [(kind, place) for kind, place in places if kind in _LOAD]
    end = max((place[1] for _, place in boxes), default=0)
    n_movies = sum(kind == b"moov" for kind, _ in boxes)
    if end > size:
        return Declared(end)
    if not n_movies:
        return Declared(end, "it has no index (moov box); copy it again from its source")
    if n_movies > 1:
        return Declared(end, f"{n_movies} files, one behind the other; join them as one file")
    # Behind the last box that fits, another file may begin.
    end = max(place[1] for _, place in places if place[1] <= size)
    for _, track in _tracks(file):
        for dref in _find(file, b"mdia/minf/dinf/dref", track):
            # A data reference (8.7.2) without the flag for this file names another one.
            entries = _boxes(file, (dref[0] + 8, dref[1]))
            if any(_uint(file, place[0]) & 1 == 0 for _, place in entries):
                return Declared(end, "its media lie in other files; save it as one file")
    return Declared(end)


def has_fragments(file: BinaryIO) -> bool:
    """Whether the tracks go on in fragments (8.8): then FFmpeg counts their lengths otherwise."""
    return any(kind == b"moof" for kind, _ in _boxes(file, _all(file)))


def shown(file: BinaryIO, track_id: int) -> tuple[Window, str]:
    """What the edit list (8.6.6) shows of a track on its clock, and what is wrong with the list."""
    scales = [_timescale(file, place) for place in _find(file, b"moov/mvhd", _all(file))]
    place = next((place for number, place in _tracks(file) if number == track_id), None)
    edits = list(_edits(file, place)) if place else []
    if not edits or not scales or not scales[0]:
        return Window(), ""
    # FFmpeg follows one empty edit at the beginning, and no other.
    empty = edits.pop(0)[0] if edits[0][1] == -1 else 0
    if not edits or any(begin < 0 for _, begin, _ in edits):
        return Window(), "its edit list shows nothing, or has several gaps; encode it again"
    track_scales = [_timescale(file, found) for found in _find(file, b"mdia/mdhd", place or (0, 0))]
    follows = all(
        abs(later[1] - first[1] - first[0] * scale / scales[0]) <= 1
        for scale in track_scales
        for first, later in pairwise(edits)
    )
    # Without its scale, a track's edits cannot be compared.
    follows = follows and (len(edits) == 1 or bool(track_scales))
    if not follows or any(rate != _SAME_RATE for _, _, rate in edits):
        return Window(), "its edit list changes the order or the speed; encode it again"
    begin_s = empty / scales[0]
    length = sum(duration for duration, _, _ in edits)
    return Window(begin_s, begin_s + length / scales[0] if length else None), ""


def delay(file: BinaryIO, track_id: int) -> tuple[int, str]:
    """By how much FFmpeg shows frames in fragments too late, in the track's time, and a fault.

    It takes the most negative composition offset (8.8.8) for a delay of decoding, but leaves the
    times of decoding as they are; only in fragments, so that a track with others has two clocks.
    """
    earliest = 0
    for traf in _find(file, b"moof/traf", _all(file)):
        if any(_uint(file, start + 4) != track_id for start, _ in _find(file, b"tfhd", traf)):
            continue
        for start, end in _find(file, b"trun", traf):
            flags = _uint(file, start)
            # The offset is the last of a sample's fields.
            n_fields = sum(bool(flags & field) for field in _SAMPLE_FIELDS)
            if flags & _SAMPLE_FIELDS[-1]:
                at = start + 8 + 4 * sum(bool(flags & field) for field in _RUN_FIELDS)
                table = read_at(file, at, min(end - at, 4 * n_fields * _uint(file, start + 4)))
                offsets = np.frombuffer(table[: len(table) // 4 * 4], ">i4")[
                    n_fields - 1 :: n_fields
                ]
                earliest = min(earliest, int(offsets.min(initial=0)))
    sizes = (
        place
        for number, track in _tracks(file)
        if number == track_id
        for place in _find(file, b"mdia/minf/stbl/stsz", track)
    )
    is_mixed = earliest < 0 and any(_uint(file, start + 8) for start, _ in sizes)
    return -earliest, "only a part of its times is in fragments; rewrite it" if is_mixed else ""


def _edits(file: BinaryIO, track: _Place) -> Iterator[tuple[int, int, int]]:
    """Duration in the movie's time, time in the track's, and speed of each edit."""
    for start, end in _find(file, b"edts/elst", track):
        form = ">QqI" if read_at(file, start, 1) == b"\1" else ">IiI"
        table = read_at(file, start + 8, min(end - start - 8, 1 << 20))
        n = min(_uint(file, start + 4), len(table) // struct.calcsize(form))
        yield from struct.iter_unpack(form, table[: n * struct.calcsize(form)])


def _tracks(file: BinaryIO) -> Iterator[tuple[int, _Place]]:
    """Number and place of every track."""
    for track in _find(file, b"moov/trak", _all(file)):
        for start, _ in _find(file, b"tkhd", track):
            yield _uint(file, start + (20 if read_at(file, start, 1) == b"\1" else 12)), track


def _timescale(file: BinaryIO, header: _Place) -> int:
    """Units per second; behind version and flags stand two dates of 4 or (version 1) 8 bytes."""
    return _uint(file, header[0] + (20 if read_at(file, header[0], 1) == b"\1" else 12))


def _find(file: BinaryIO, path: bytes, inside: _Place) -> Iterator[_Place]:
    """Bodies of the boxes at `path` (types joined by /)."""
    first, _, rest = path.partition(b"/")
    for kind, place in _boxes(file, inside):
        if kind == first:
            place = (place[0], min(place[1], inside[1]))
            yield from _find(file, rest, place) if rest else [place]


def _boxes(file: BinaryIO, inside: _Place) -> Iterator[tuple[bytes, _Place]]:
    """Type and body of the boxes that begin in a place, with the ends that they declare."""
    start, end = inside
    for _ in range(_MAX_BOXES):
        head = read_at(file, start, 16) if start + 8 <= end else b""
        if len(head) < 8:
            return
        size, body = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        box_end = end if size == 0 else start + size
        if box_end < body:
            return
        yield head[4:8], (body, box_end)
        start = box_end


def _all(file: BinaryIO) -> _Place:
    return 0, file.seek(0, 2)


def _uint(file: BinaryIO, at: int) -> int:
    return int.from_bytes(read_at(file, at, 4), "big")
