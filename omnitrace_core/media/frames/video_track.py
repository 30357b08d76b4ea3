"""The video track of a container: when its frames are shown, and chosen ones of them.

Times come from the packets, without decoding. A frame is decoded from a keyframe at or before it,
and each frame that the decoder gives on the way must be the next one by the packets. Where it is
not (`Doubt`), the times are taken from the frames themselves, decoded in turn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from omnitrace_core.errors import MediaCorrupt, MediaEmpty
from omnitrace_core.media.containers.declared import Window
from omnitrace_core.media.containers.iso import delay, shown
from omnitrace_core.media.containers.sniff import AVI, ISO, MATROSKA, MPEG_TS, Kind
from omnitrace_core.media.ffmpeg.av_file import begin_s, open_av, packets_of
from omnitrace_core.media.frames.timeline import Timeline, make_timeline
from omnitrace_core.media.progress.heartbeat import report_progress

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Of these the index leads to keyframes; others are read in turn.
_INDEXED = (ISO, MATROSKA)
_NO_TIMES = "the file does not tell when its frames are shown; rewrite it as MP4"


class Doubt(Exception):
    """The decoder gives other frames than the packets tell."""


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool


class _Keyframe(NamedTuple):
    """A frame that decoding can begin with: its time, and where to seek for it."""

    pts: int
    place: int


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """The first video track of a file that is no cover picture.

    window: what the file shows of it. unit: seconds of a stored time. rate: frames per second by
    the container, if it tells. origin_s: where the file's clock begins, in stored time. all_pts:
    stored times of all frames, shown or not, increasing. keyframes: increasing; empty if the track
    is read in turn. size: of frames by the container. pixel_aspect: width and height of a pixel.
    """

    file: BinaryIO
    kind: Kind
    name: str
    window: Window
    unit: Fraction
    rate: Fraction | None
    origin_s: float
    all_pts: list[int]
    last_duration: int
    keyframes: list[_Keyframe]
    size: tuple[int, int]
    pixel_aspect: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def timeline(self) -> Timeline:
        """When the frames are shown."""
        return make_timeline(
            self.all_pts, self.last_duration, self.unit, self.rate, self.origin_s, self.window
        )

    def frames(self, wanted: Iterable[int]) -> Iterator[VideoFrame]:
        """The frames with these stored times, which increase or repeat.

        Raises:
            Doubt: the decoder gives other frames than the packets told.
            MediaCorrupt: what it decodes in turn is damaged.
        """
        with self._opened() as (container, stream):
            yield from _Frames(self, container, stream).at(wanted)

    def in_turn(self) -> VideoTrack:
        """The same track, decoded from its beginning."""
        return replace(self, keyframes=[])

    def by_decoding(self) -> VideoTrack:
        """The same track with the times that its frames have when all are decoded in turn.

        Raises: MediaCorrupt: they have none, or are damaged.
        """
        times: list[int | None] = []
        last_duration = 0
        with self._opened() as (container, stream):
            for frame in _decode(container, stream, self.kind, self.name):
                times.append(frame.pts)
                last_duration = frame.duration
        if self.kind is AVI:
            # The order tells the time, if there is a frame for each packet.
            last_duration = 0
            times = list(self.all_pts) if len(times) == len(self.all_pts) else [None]
        pts = [time for time in times if time is not None]
        if not times:
            raise MediaEmpty(f"{self.name}: no video frames that can be shown")
        if len(pts) < len(times) or any(b <= a for a, b in pairwise(pts)):
            raise MediaCorrupt(f"{self.name}: {_NO_TIMES}")
        return replace(self, all_pts=pts, last_duration=last_duration, keyframes=[])

    def lost_notes(self, told: VideoTrack) -> list[str]:
        """A note if fewer frames are shown than the packets told, which `told` is made of."""
        n_told = len(told.timeline.pts)
        n_lost = n_told - len(self.timeline.pts)
        if n_lost <= 0:
            return []
        return [
            f"{n_lost:,} of {n_told:,} frames cannot be shown: they are meant to be hidden, or "
            "need others that are not in the file; the first is shown at "
            f"{self.timeline.starts_s[0]:.2f} s"
        ]

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        with open_av(self.file, self.kind.av_format, self.name) as container:
            stream = _choose(container, self.name)[0]
            # One thread: the pipeline runs one decoder per core.
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"}
            yield container, stream


def read_video_track(file: BinaryIO, kind: Kind, name: str) -> VideoTrack:
    """Find the video track, and read the times of its frames from its packets.

    Raises:
        MediaEmpty: no video track, or no frames in it.
        MediaCorrupt: damaged, or it does not tell when its frames are shown.
    """
    with open_av(file, kind.av_format, name) as container:
        stream, notes = _choose(container, name)
        packets = _packets(container, stream, kind, name)
        unit, aspect = stream.time_base, stream.sample_aspect_ratio
        size = (stream.codec_context.width, stream.codec_context.height)
        assert unit is not None
        # MPEG-TS counts from any time on; in other files 0 is the beginning.
        origin_s = begin_s(container) if kind is MPEG_TS else 0.0
        rate, track_id = stream.average_rate, stream.id
    if kind is MPEG_TS:
        packets, more = _from_keyframe(packets)
        notes += more
    window, fault = shown(file, track_id) if kind is ISO else (Window(), "")
    late, mixed = delay(file, track_id) if kind is ISO else (0, "")
    if fault or mixed:
        raise MediaCorrupt(f"{name}: {fault or mixed}")
    origin_s += late * float(unit)
    pts = _times(packets, kind, name)
    keyframes = [
        _Keyframe(packet.pts, packet.pts if packet.dts is None else min(packet.pts, packet.dts))
        for packet in packets
        if kind in _INDEXED and packet.is_keyframe and packet.pts is not None
    ]
    return VideoTrack(
        file=file,
        kind=kind,
        name=name,
        window=window,
        unit=unit,
        rate=rate,
        origin_s=origin_s,
        all_pts=pts,
        last_duration=0 if kind is AVI else max(packets, key=lambda item: item.pts or 0).duration,
        keyframes=sorted(keyframes),
        size=size,
        pixel_aspect=(aspect.numerator, aspect.denominator) if aspect else (1, 1),
        notes=notes,
    )


def _choose(container: InputContainer, name: str) -> tuple[VideoStream, tuple[str, ...]]:
    """The first video track that is no cover picture, and a note if there are others."""
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise MediaEmpty(f"{name}: no video track; is it an audio file?")
    if streams[0].codec_context is None:
        raise MediaCorrupt(f"{name}: no decoder for its video track; encode it again as H.264")
    notes = () if len(streams) == 1 else (f"{len(streams)} video tracks; the first is read",)
    return streams[0], notes


def _packets(
    container: InputContainer, stream: VideoStream, kind: Kind, name: str
) -> list[_Packet]:
    """All packets of frames.

    Raises:
        MediaEmpty: there is none.
        MediaCorrupt: some are cut or missing.
    """
    found: list[_Packet] = []
    for packet in packets_of(container, stream):
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            raise MediaCorrupt(
                f"{name}: damaged or truncated behind {len(found):,} frames; copy it again from "
                "its source"
            )
        found.append(
            _Packet(packet.pts, packet.dts, packet.duration or 0, bool(packet.is_keyframe))
        )
        report_progress()
    # AVI counts the places of frames that were left out, too.
    if kind is not AVI and stream.frames > len(found):
        raise MediaCorrupt(
            f"{name}: truncated: {len(found):,} of {stream.frames:,} frames are there; copy it "
            "again from its source"
        )
    if not found:
        raise MediaEmpty(f"{name}: no video frames")
    return found


def _from_keyframe(packets: list[_Packet]) -> tuple[list[_Packet], tuple[str, ...]]:
    """Those from the first keyframe on, as a recording of a broadcast begins anywhere."""
    first = next((at for at, packet in enumerate(packets) if packet.is_keyframe), 0)
    if not first:
        return packets, ()
    return packets[first:], (
        f"it begins in the middle of a stream: {first:,} frames before the first keyframe are left "
        "out",
    )


def _times(packets: list[_Packet], kind: Kind, name: str) -> list[int]:
    """The stored times of frames, increasing.

    Raises: MediaCorrupt: some have none, or they go back, as in files that were joined.
    """
    order = [packet.dts for packet in packets if packet.dts is not None]
    if any(b < a for a, b in pairwise(order)):
        raise MediaCorrupt(f"{name}: its times go back: are these several files? encode it again")
    if kind is AVI:
        # It has no times but the order of its frames, at a constant rate.
        return order
    times = {packet.pts for packet in packets if packet.pts is not None}
    if not times:
        raise MediaCorrupt(f"{name}: {_NO_TIMES}")
    return sorted(times)


def _decode(
    container: InputContainer, stream: VideoStream, kind: Kind, name: str
) -> Iterator[VideoFrame]:
    """Decode all frames in turn.

    Raises: MediaCorrupt: one is damaged.
    """
    first: int | None = None  # of a recording of a broadcast
    for packet in packets_of(container, stream):
        if kind is MPEG_TS and first is None:
            if not packet.is_keyframe or packet.pts is None:
                continue
            first = packet.pts
        # Frames that are shown before the first keyframe need others from before it.
        is_leading = first is not None and packet.pts is not None and packet.pts < first
        for frame in _frames_of(stream, packet, is_leading=is_leading):
            report_progress()
            is_needless = first is not None and frame.pts is not None and frame.pts < first
            if frame.is_corrupt and not is_needless:
                raise MediaCorrupt(f"{name}: damaged: a frame cannot be decoded; copy it again")
            if not is_needless:
                yield frame


def _frames_of(stream: VideoStream, packet: Packet, *, is_leading: bool) -> list[VideoFrame]:
    """What a packet completes; nothing if it is a leading one that cannot be decoded.

    Raises: av.error.FFmpegError: it cannot be decoded.
    """
    from av.error import FFmpegError

    try:
        return stream.codec_context.decode(packet if packet.size else None)
    except FFmpegError:
        if is_leading:
            return []
        raise


class _Frames:
    """A decoder that goes forward, and jumps to keyframes."""

    def __init__(self, track: VideoTrack, container: InputContainer, stream: VideoStream) -> None:
        self._track, self._container, self._stream = track, container, stream
        self._times = track.all_pts
        self._decoded: Iterator[VideoFrame] | None = None
        self._next = 0  # index of the frame that must come next
        self._last: VideoFrame | None = None

    def at(self, wanted: Iterable[int]) -> Iterator[VideoFrame]:
        """The frames with these stored times."""
        for pts in wanted:
            if self._last is None or self._times[self._next - 1] != pts:
                self._go_to(pts)
            assert self._last is not None
            yield self._last

    def _go_to(self, pts: int) -> None:
        at = bisect_right(self._track.keyframes, pts, key=lambda keyframe: keyframe.pts)
        start = self._track.keyframes[at - 1] if at else None
        if start is not None and bisect_left(self._times, start.pts) > self._next:
            self._decoded = self._decode_from(start)
        elif self._decoded is None:
            track = self._track
            self._decoded = _decode(self._container, self._stream, track.kind, track.name)
        index = bisect_left(self._times, pts)
        while self._next <= index:
            frame = next(self._decoded, None)
            if frame is None or not self._is_next(frame):
                raise Doubt
            self._last, self._next = frame, self._next + 1

    def _is_next(self, frame: VideoFrame) -> bool:
        # In AVI, the order tells the time.
        return self._track.kind is AVI or frame.pts == self._times[self._next]

    def _decode_from(self, start: _Keyframe) -> Iterator[VideoFrame]:
        """Frames from a keyframe on, or from one before it."""
        from av.error import FFmpegError

        self._container.seek(start.place, stream=self._stream)
        self._stream.codec_context.flush_buffers()
        first: int | None = None
        for packet in packets_of(self._container, self._stream):
            if first is None:
                if not packet.is_keyframe or packet.pts is None or packet.pts > start.pts:
                    raise Doubt
                first = packet.pts
                self._next = bisect_left(self._times, first)
            # Frames shown before the keyframe, and stored behind it, may need earlier ones.
            is_leading = packet.pts is not None and packet.pts < first
            try:
                frames = _frames_of(self._stream, packet, is_leading=is_leading)
            except FFmpegError as error:
                raise Doubt from error
            for frame in frames:
                report_progress()
                if frame.pts is None or (frame.is_corrupt and frame.pts >= first):
                    raise Doubt
                if frame.pts >= first:
                    yield frame
