"""Read the sound track of a container with PyAV: each sample at its own time on the file's clock.

Packets carry times, and the samples that the encoder put before and after the sound are marked in
the packets, left out by the edit list, or lie before time 0. Where a track has no sound is silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from omnitrace_core.errors import InvalidSample, MediaCorrupt, SampleError
from omnitrace_core.media.containers.declared import Window
from omnitrace_core.media.containers.iso import has_fragments, shown
from omnitrace_core.media.containers.sniff import ISO, MATROSKA, MPEG_TS, Kind
from omnitrace_core.media.ffmpeg.av_file import begin_s as first_start_s
from omnitrace_core.media.ffmpeg.av_file import open_av, packets_of
from omnitrace_core.media.sound.choice import choose_track, programme_of
from omnitrace_core.media.sound.mixing import to_float
from omnitrace_core.media.sound.timeline import Timeline
from omnitrace_core.media.sound.waveform import Interval, Recorder
from omnitrace_core.records import Float32

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

# Sound is declared to its last block, which may be half silence.
_LAST_BLOCK_S = 0.5
# A file whose tracks all begin later is a piece of a longer recording.
_LATE_S = 1.0
# Declared lengths are rounded, by Matroska to milliseconds.
_ROUNDED_S = 0.003


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a track.

    track: its number among the sound tracks, None for the default one. limit_s: the longest sound;
    too_long: the error of a longer one. check_size: raises if so many bytes are too many.
    remedy: what can be done about a track that cannot be decoded, other than to encode it again.
    of_video: the sound must go with the pictures, where a file has several programmes.
    """

    name: str
    interval: Interval
    model_rate: int
    track: int | None
    limit_s: float
    too_long: Callable[[float], SampleError]
    check_size: Callable[[float], None]
    remedy: str
    of_video: bool = False


@dataclass(frozen=True, slots=True)
class Sound:
    """An interval of a sound at the model's rate.

    waveform: [n] float32. start_s: of its first sample in the file. duration_s: of the whole sound
    from time 0 on, of which the first `silent_s` have no sound. rate: samples per second there.
    n_padding: up to so many samples at the end may be the encoder's, which the file does not tell.
    """

    waveform: Float32
    start_s: float
    duration_s: float
    rate: int
    silent_s: float = 0.0
    n_padding: int = 0
    notes: tuple[str, ...] = ()


def read_sound(file: BinaryIO, kind: Kind, request: Request) -> Sound | None:
    """Decode the chosen sound track of a file; None without one, or without samples in it.

    The duration limit is checked by the headers first. A longer track is not decoded further.

    Raises:
        InvalidSample: `request.track` is not the number of a sound track.
        MediaCorrupt: the track cannot be decoded, or much less of it than there should be.
        SampleError: too long by `request.too_long`, too large by `request.check_size`.
    """
    with open_av(file, kind.av_format, request.name) as container:
        programme = None
        if kind is MPEG_TS:
            programme = programme_of(file, container, of_video=request.of_video)
        check_track_number(request.track, len(container.streams.audio), request.name)
        stream, notes = choose_track(container, programme, request.track)
        if stream is None:
            return None
        window = _window(file, kind, stream, request.name)
        begin_s = _begin_s(container, kind, window)
        declared_s = _declared_end_s(file, container, stream, kind)
        if window.end_s is not None:
            declared_s = min(declared_s, window.end_s)
        if declared_s - begin_s > request.limit_s + _LAST_BLOCK_S:
            raise request.too_long(declared_s - begin_s)
        origin_s = first_start_s(container) if kind is MPEG_TS else 0.0
        reader = _TrackReader(stream, origin_s, begin_s, window, request)
        for packet in packets_of(container, stream):
            reader.take(packet)
        return reader.finish(declared_s, notes)


def check_track_number(number: int | None, n_tracks: int, name: str) -> None:
    """Check the option audio_track of a part.

    Raises:
        InvalidSample: there is no track of that number.
    """
    if number is not None and number >= n_tracks:
        raise InvalidSample(
            f"{name}: audio_track={number}, but the file has {n_tracks} sound tracks (they count "
            "from 0); give the number of one, or leave the option out"
        )


def _window(file: BinaryIO, kind: Kind, stream: AudioStream, name: str) -> Window:
    """What the edit list shows of a track; FFmpeg does not tell where it ends.

    Raises:
        MediaCorrupt: the list changes the order or the speed.
    """
    if kind is not ISO:
        return Window()
    at = file.tell()
    window, fault = shown(file, stream.id)
    # FFmpeg goes on reading from here.
    file.seek(at)
    if fault:
        raise MediaCorrupt(f"{name}: {fault}")
    return window


def _begin_s(container: InputContainer, kind: Kind, window: Window) -> float:
    """When a file begins that is a later piece of a recording and keeps its clock; else 0.

    MPEG-TS counts from its beginning, and an edit list may ask for silence.
    """
    begin_s = first_start_s(container)
    is_late = kind is not MPEG_TS and begin_s - (window.begin_s or 0) > _LATE_S
    return begin_s if is_late else 0.0


def _declared_end_s(
    file: BinaryIO, container: InputContainer, stream: AudioStream, kind: Kind
) -> float:
    """When the sound ends by the headers; 0 if they do not say.

    In Matroska they tell the end of the longest track, which may be one of subtitles.
    """
    if kind is ISO and stream.duration and stream.time_base:
        at = file.tell()
        # FFmpeg counts from time 0 where the file has fragments, else from the first sample.
        first = 0 if has_fragments(file) else stream.start_time or 0
        file.seek(at)
        return float((first + stream.duration) * stream.time_base)
    if kind is MATROSKA and container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return 0.0


class _TrackReader:
    """Decodes a track's packets, and puts their samples where they belong in time."""

    def __init__(
        self,
        stream: AudioStream,
        origin_s: float,
        begin_s: float,
        window: Window,
        request: Request,
    ) -> None:
        self._stream = stream
        self._origin_s = origin_s
        self._begin_s = begin_s
        self._window = window
        self._request = request
        self._timeline: Timeline | None = None
        self._packets_end_s = 0.0
        self._n_frame = 0
        codec = stream.codec_context
        if codec is None:
            raise self._damaged("there is no decoder for its codec")
        codec.options = {"err_detect": "explode"}
        codec.thread_count = 1
        # The others store each sample, and add none.
        self._has_padding = not (codec.codec.lossless or codec.name.startswith("pcm_"))

    def take(self, packet: Packet) -> None:
        """Decode a packet; once the track is too long, only follow its times."""
        if packet.pts is not None and packet.time_base:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._packets_end_s = max(self._packets_end_s, end_s - self._origin_s)
        if self._timeline is not None and self._timeline.is_too_long:
            return
        if packet.is_corrupt:
            raise self._damaged("some of it is missing in the file")
        for frame in self._decode(packet):
            self._place(frame, packet)

    def _decode(self, packet: Packet) -> Iterator[AudioFrame]:
        import av

        try:
            yield from self._stream.decode(packet)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise self._damaged(str(error.strerror or type(error).__name__)) from error

    def _place(self, frame: AudioFrame, packet: Packet) -> None:
        """Give a frame to the timeline."""
        rate, name = frame.sample_rate, self._request.name
        if self._timeline is None:
            self._timeline = self._new_timeline(rate)
        if rate != self._timeline.rate:
            raise MediaCorrupt(
                f"{name}: its sound changes from {self._timeline.rate:,} to {rate:,} samples per "
                "second; encode it again"
            )
        if self._has_padding:
            self._n_frame = max(self._n_frame, frame.samples)
        start_s = end_s = None
        if frame.pts is not None and frame.time_base:
            start_s = float(frame.pts * frame.time_base) - self._origin_s
        if packet.pts is not None and packet.duration and packet.time_base:
            end_s = float((packet.pts + packet.duration) * packet.time_base) - self._origin_s
        channels = to_float(frame.to_ndarray(), frame.layout.nb_channels)
        self._timeline.add(channels, start_s, end_s)

    def _new_timeline(self, rate: int) -> Timeline:
        request, begin_s = self._request, self._begin_s
        interval = replace(request.interval, start_s=max(request.interval.start_s, begin_s))
        recorder = Recorder(rate, request.model_rate, interval, request.name, request.check_size)
        recorder.n_samples = round(begin_s * rate)
        tick_s, limit_s = float(self._stream.time_base or 0), begin_s + request.limit_s
        return Timeline(rate, tick_s, self._window, limit_s, recorder, request.name)

    def finish(self, declared_s: float, notes: list[str]) -> Sound | None:
        """The sound, after the last packet; None if it has no samples.

        declared_s: when it should end by the headers; 0 if they do not say.
        """
        request, timeline = self._request, self._timeline
        if timeline is None:
            return None
        timeline.close()
        if timeline.is_too_long:
            raise request.too_long(max(timeline.end_s, self._packets_end_s) - self._begin_s)
        if timeline.end_s < declared_s - self._n_frame / timeline.rate - _ROUNDED_S:
            raise self._damaged("there should be more")
        if not timeline.end_s:
            return None
        waveform, own_notes = timeline.recorder.waveform()
        return Sound(
            waveform,
            timeline.recorder.first / timeline.rate,
            timeline.end_s,
            timeline.rate,
            timeline.silent_s,
            0 if timeline.is_end_told else self._n_frame,
            (*notes, *timeline.notes(), *own_notes),
        )

    def _damaged(self, cause: str) -> MediaCorrupt:
        at_s = self._timeline.end_s if self._timeline else 0.0
        of = f"{at_s:.3f}" + (f" of {self._window.end_s:.3f}" if self._window.end_s else "")
        return MediaCorrupt(
            f"{self._request.name}: damaged: {of} s of its sound could be decoded ({cause}); copy "
            f"it again from its source, encode it again, or {self._request.remedy}"
        )
