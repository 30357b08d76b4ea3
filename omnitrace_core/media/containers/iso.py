"""The boxes of MP4, MOV, M4A and their kin (ISO/IEC 14496-12): sizes and times, nothing decoded.

A movie's own time scale counts edits, a track's counts its samples.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

# A file with more boxes than this is not one that anybody wrote on purpose.
_MAX_BOXES = 1_000_000
_LOAD = (b"moov", b"mdat", b"moof")
# A file's part as [start, end).
Place = tuple[int, int]
# Optional fields of tfhd, and of trun, that come before the ones that are read here (8.8.7, 8.8.8).
_TFHD_BASE, _TFHD_DESCRIPTION, _TFHD_DURATION = 0x01, 0x02, 0x08
_TRUN_OFFSET, _TRUN_FLAGS, _TRUN_DURATION = 0x01, 0x04, 0x100
_TRUN_LATER = 0x800
_TRUN_PER_SAMPLE = (_TRUN_DURATION, 0x200, 0x400, _TRUN_LATER)


@dataclass(frozen=True, slots=True)
class Box:
    """A box by its type; `body` and `end` are file offsets, `end` as declared."""

    type: bytes
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class _Edits:
    """A track's edit list: the emptiness that opens it, and what is shown then, in movie time.

    media_time: of the samples' time, where what is shown begins.
    """

    empty: int = 0
    shown: int = 0
    media_time: int = 0


def declared(file: BinaryIO, size: int) -> Declared:
    """Where the last box that holds media or times ends; all media must be in the file itself."""
    end = max((box.end for box in _boxes(file, 0, size) if box.type in _LOAD), default=0)
    movie = _movie(file)
    if end > size:
        return Declared(end)
    if movie is None:
        return Declared(end, "it has no index (moov box); copy it again from its source")
    for handler in (b"vide", b"soun"):
        for track in _tracks(file, movie, handler):
            if _refers_elsewhere(file, track):
                return Declared(end, "its media lie in other files; save it as one file")
    return Declared(end)


def _refers_elsewhere(file: BinaryIO, track: Place) -> bool:
    """Whether a data reference (8.7.2) names another file: one without the flag for this file."""
    found = _find(file, b"mdia/minf/dinf/dref", *track)
    if found is None:
        return False
    return any(_uint(file, box.body) & 1 == 0 for box in _boxes(file, found[0] + 8, found[1]))


def n_videos(file: BinaryIO) -> int:
    """The number of video tracks."""
    movie = _movie(file)
    return 0 if movie is None else sum(1 for _ in _tracks(file, movie, b"vide"))


def video_start_s(file: BinaryIO) -> float | None:
    """When the first coded frame is shown, negative if it is hidden; None without a video track.

    The track's edit list (8.6.6) tells it: the empty edits that open it, and where in the samples'
    time it begins, against the time of the first sample (8.6.1.3, in fragments 8.8.12 and 8.8.8).
    """
    movie = _movie(file)
    video = None if movie is None else next(_tracks(file, movie, b"vide"), None)
    if movie is None or video is None:
        return None
    movie_scale, scale = _timescale(file, movie, b"mvhd"), _timescale(file, video, b"mdia/mdhd")
    edits = _edits(file, video)
    begin_s = edits.empty / movie_scale if movie_scale else 0.0
    if _sample_time(file, video):
        first = _first_offset(file, video)
    else:
        first = _first_in_fragments(file, video)
    return begin_s + ((first - edits.media_time) / scale if scale else 0.0)


def pixel_aspect(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a pixel of the first video track (12.1.4); (1, 1) if untold."""
    movie = _movie(file)
    video = None if movie is None else next(_tracks(file, movie, b"vide"), None)
    found = None if video is None else _find(file, b"mdia/minf/stbl/stsd", *video)
    if found is None:
        return 1, 1
    # The boxes of the first entry, behind its fields.
    aspect = _find(file, b"pasp", found[0] + 8 + 8 + 78, found[1])
    return (_uint(file, aspect[0]), _uint(file, aspect[0] + 4)) if aspect else (1, 1)


def sound_end_s(file: BinaryIO) -> float:
    """When the longest sound track ends, by its edit list or else its samples; 0 without one."""
    movie = _movie(file)
    if movie is None:
        return 0.0
    return max(
        (_track_end_s(file, movie, track) for track in _tracks(file, movie, b"soun")), default=0.0
    )


def _track_end_s(file: BinaryIO, movie: Place, track: Place) -> float:
    movie_scale, scale = _timescale(file, movie, b"mvhd"), _timescale(file, track, b"mdia/mdhd")
    edits = _edits(file, track)
    begin_s = edits.empty / movie_scale if movie_scale else 0.0
    units = _sample_time(file, track) or _fragment_time(file, movie, track)
    length_s = (units - max(edits.media_time, 0)) / scale if scale else 0.0
    if edits.shown and movie_scale:
        # Edits may go on when there is nothing more to show.
        length_s = min(length_s, edits.shown / movie_scale)
    return begin_s + max(length_s, 0.0)


def _movie(file: BinaryIO) -> Place | None:
    return _find(file, b"moov", 0, file.seek(0, 2))


def _tracks(file: BinaryIO, movie: Place, handler: bytes) -> Iterator[Place]:
    """The bodies of the tracks that carry b"vide", b"soun", ..."""
    for box in _boxes(file, *movie):
        track = (box.body, min(box.end, movie[1]))
        if box.type == b"trak":
            found = _find(file, b"mdia/hdlr", *track)
            if found and read_at(file, found[0] + 8, 4) == handler:
                yield track


def _timescale(file: BinaryIO, place: Place, path: bytes) -> int:
    """Units per second, from the header at `path`; 0 if it does not say."""
    found = _find(file, path, *place)
    if found is None:
        return 0
    # Version and flags, two dates of 4 or (version 1) 8 bytes each, then the scale.
    at = found[0] + (20 if read_at(file, found[0], 1) == b"\1" else 12)
    return _uint(file, at)


def _edits(file: BinaryIO, track: Place) -> _Edits:
    found = _find(file, b"edts/elst", *track)
    if found is None:
        return _Edits()
    form = ">Qq4x" if read_at(file, found[0], 1) == b"\1" else ">Ii4x"
    empty, shown, begin, at = 0, 0, None, found[0] + 8
    while at + struct.calcsize(form) <= found[1]:
        entry = read_at(file, at, struct.calcsize(form))
        if len(entry) < struct.calcsize(form):
            break
        duration, media_time = struct.unpack(form, entry)
        if media_time == -1 and begin is None:
            empty += duration
        else:
            shown += duration
            begin = media_time if begin is None else begin
        at += len(entry)
    return _Edits(empty, shown, begin or 0)


def _first_offset(file: BinaryIO, track: Place) -> int:
    """By how much the first sample is shown after it is decoded."""
    found = _find(file, b"mdia/minf/stbl/ctts", *track)
    return 0 if found is None else _int(file, found[0] + 12)


def _sample_time(file: BinaryIO, track: Place) -> int:
    """Time of all samples in the track's own table."""
    found = _find(file, b"mdia/minf/stbl/stts", *track)
    if found is None:
        return 0
    n_entries = min(_uint(file, found[0] + 4), (found[1] - found[0] - 8) // 8)
    table = read_at(file, found[0] + 8, 8 * n_entries)
    return sum(count * delta for count, delta in struct.iter_unpack(">II", table[: 8 * n_entries]))


def _fragment_time(file: BinaryIO, movie: Place, track: Place) -> int:
    """Time of a track's samples in the fragments that follow the movie box."""
    number, default = _number(file, track), 0
    for box in _boxes(file, *(_find(file, b"mvex", *movie) or (0, 0))):
        if box.type == b"trex" and _uint(file, box.body + 4) == number:
            default = _uint(file, box.body + 12)
    return sum(_traf_time(file, *place, default) for place in _fragments(file, number))


def _first_in_fragments(file: BinaryIO, track: Place) -> int:
    """The time of a track's first sample, kept in fragments."""
    for _, traf in _fragments(file, _number(file, track)):
        time, later = _find(file, b"tfdt", *traf), 0
        run = _find(file, b"trun", *traf)
        if run and _uint(file, run[0]) & _TRUN_LATER:
            flags = _uint(file, run[0])
            at = run[0] + 8 + 4 * bool(flags & _TRUN_OFFSET) + 4 * bool(flags & _TRUN_FLAGS)
            later = _int(file, at + 4 * sum(bool(flags & field) for field in _TRUN_PER_SAMPLE[:3]))
        if time is None:
            return later
        n_bytes = 8 if read_at(file, time[0], 1) == b"\1" else 4
        return later + int.from_bytes(read_at(file, time[0] + 4, n_bytes), "big")
    return 0


def _number(file: BinaryIO, track: Place) -> int:
    header = _find(file, b"tkhd", *track)
    if header is None:
        return 0
    return _uint(file, header[0] + (20 if read_at(file, header[0], 1) == b"\1" else 12))


def _fragments(file: BinaryIO, number: int) -> Iterator[tuple[Place, Place]]:
    """The headers and bodies of the fragments of track `number`."""
    for fragment in _boxes(file, 0, file.seek(0, 2)):
        if fragment.type != b"moof":
            continue
        for box in _boxes(file, fragment.body, fragment.end):
            header = _find(file, b"tfhd", box.body, box.end) if box.type == b"traf" else None
            if header and _uint(file, header[0] + 4) == number:
                yield header, (box.body, box.end)


def _traf_time(file: BinaryIO, header: Place, traf: Place, default: int) -> int:
    """Time of the samples of one fragment."""
    flags = _uint(file, header[0]) & 0xFFFFFF
    if flags & _TFHD_DURATION:
        at = header[0] + 8 + 8 * bool(flags & _TFHD_BASE) + 4 * bool(flags & _TFHD_DESCRIPTION)
        default = _uint(file, at)
    runs = (box for box in _boxes(file, *traf) if box.type == b"trun")
    return sum(_run_time(file, box, default) for box in runs)


def _run_time(file: BinaryIO, run: Box, default: int) -> int:
    flags, count = _uint(file, run.body) & 0xFFFFFF, _uint(file, run.body + 4)
    if not flags & _TRUN_DURATION:
        return count * default
    at = run.body + 8 + 4 * bool(flags & _TRUN_OFFSET) + 4 * bool(flags & _TRUN_FLAGS)
    # The duration is the first of a sample's fields.
    step = sum(bool(flags & field) for field in _TRUN_PER_SAMPLE)
    table = read_at(file, at, min(4 * step * count, max(0, run.end - at)))
    fields = struct.unpack(f">{len(table) // 4}I", table[: len(table) // 4 * 4])
    return sum(fields[::step])


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Boxes that begin in [start, end)."""
    for _ in range(_MAX_BOXES):
        head = read_at(file, start, 16) if start + 8 <= end else b""
        if len(head) < 8:
            return
        size, body = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        box = Box(head[4:8], body, end if size == 0 else start + size)
        if box.end < body:
            return
        yield box
        start = box.end


def _find(file: BinaryIO, path: bytes, start: int, end: int) -> Place | None:
    """Body of the first box at `path` (types joined by /)."""
    first, _, rest = path.partition(b"/")
    for box in _boxes(file, start, end):
        if box.type == first:
            inside = (box.body, min(box.end, end))
            return _find(file, rest, *inside) if rest else inside
    return None


def _uint(file: BinaryIO, at: int) -> int:
    return int.from_bytes(read_at(file, at, 4), "big")


def _int(file: BinaryIO, at: int) -> int:
    return int.from_bytes(read_at(file, at, 4), "big", signed=True)
