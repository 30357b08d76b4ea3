"""Encode numbered frames: codecs, containers, and what each does to the times.

Frame k of an encode is shown at k / rate. Two containers move that: where a file has no edit list
and times of decoding may not be negative, the first frame waits for those that are decoded before
they are shown (`n_waits` frames); MPEG-TS of this FFmpeg starts at 1.4 s, twice its `muxdelay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from tests.core.media.barcodes.bars import HEIGHT, UPRIGHT, WIDTH, draw
from tests.core.media.barcodes.truth import Truth
from tests.core.media_files import run_ffmpeg

_TS_START_S = 1.4
_MS = 1.1e-3  # a millisecond: times and the beginning of the clock are rounded, each by a half
_EXACT = 1e-5


@dataclass(frozen=True, slots=True)
class Encode:
    """One encode of the frames first, first + 1, ...: n_frames of them at `rate` per second.

    group: frames between keyframes; n_b: frames between two that other frames refer to; is_open:
    groups refer to each other. keep: of the frames before encoding, those with these indices alone
    are encoded, each at its time. extra: more options of the encoder and the container.
    """

    codec: str
    container: str
    rate: Fraction = Fraction(30)
    group: int = 30
    n_b: int = 0
    is_open: bool = False
    n_frames: int = 120
    first: int = 0
    keep: tuple[int, ...] | None = None
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Unique among encodes without `extra`."""
        kind = "open" if self.is_open else "closed"
        rate = f"{float(self.rate):.4g}fps" if self.keep is None else "irregular"
        return f"{self.codec}-{self.container}-{rate}-g{self.group}-b{self.n_b}-{kind}"


@dataclass(frozen=True, slots=True)
class Container:
    """suffix of the file, options of the muxer, how far its times may be off by their unit.

    has_waits: the first frame waits as the module says. start_s: where its clock begins.
    """

    suffix: str
    options: tuple[str, ...] = ()
    slack_s: float = _EXACT
    has_waits: bool = False
    start_s: float = 0.0


CONTAINERS = {
    "mp4": Container(".mp4"),
    "mov": Container(".mov"),
    "fmp4": Container(".mp4", ("-movflags", "frag_keyframe+empty_moov"), has_waits=True),
    # CMAF has negative offsets, and so no waiting.
    "cmaf": Container(".mp4", ("-movflags", "cmaf+frag_every_frame")),
    "cmafgroups": Container(".mp4", ("-movflags", "cmaf+frag_keyframe")),
    # The first group in the movie box, the others in fragments.
    "mixed": Container(".mp4", ("-movflags", "frag_keyframe"), has_waits=True),
    "mixednegative": Container(".mp4", ("-movflags", "frag_keyframe+negative_cts_offsets")),
    "hybrid": Container(".mp4", ("-movflags", "hybrid_fragmented"), has_waits=True),
    "delayed": Container(".mp4", ("-movflags", "frag_keyframe+empty_moov+delay_moov")),
    "negative": Container(".mp4", ("-movflags", "negative_cts_offsets")),
    "front": Container(".mp4", ("-movflags", "faststart")),
    "mkv": Container(".mkv", slack_s=_MS),
    "webm": Container(".webm", slack_s=_MS),
    "flv": Container(".flv", slack_s=_MS, has_waits=True),
    "ts": Container(".ts", has_waits=True, start_s=_TS_START_S),
    "avi": Container(".avi", has_waits=True),
}


def _x264(e: Encode) -> list[str]:
    groups = f"keyint={e.group}:min-keyint={e.group}:scenecut=0:open-gop={int(e.is_open)}"
    params = f"{groups}:bframes={e.n_b}:b-adapt=0"
    return ["-c:v", "libx264", "-preset", "veryfast", "-qp", "22", "-x264-params", params]


def _x265(e: Encode) -> list[str]:
    groups = f"keyint={e.group}:min-keyint={e.group}:scenecut=0:open-gop={int(e.is_open)}"
    params = f"log-level=error:{groups}:bframes={e.n_b}:b-adapt=0:qp=22:pools=none:frame-threads=1"
    return ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params]


def _mpeg(codec: str) -> Callable[[Encode], list[str]]:
    def options(e: Encode) -> list[str]:
        closed = [] if e.is_open else ["-flags", "+cgop"]
        groups = ["-g", str(e.group), "-bf", str(e.n_b), "-sc_threshold", "1000000000"]
        return ["-c:v", codec, "-q:v", "3", *groups, *closed]

    return options


def _vpx(codec: str) -> Callable[[Encode], list[str]]:
    def options(e: Encode) -> list[str]:
        # Frames that are not shown stand for B-frames, which these codecs lack.
        hidden = ["-auto-alt-ref", str(int(e.n_b > 0)), "-lag-in-frames", str(16 * (e.n_b > 0))]
        speed = ["-deadline", "good", "-cpu-used", "5", "-b:v", "1M", "-g", str(e.group)]
        return ["-c:v", codec, *speed, *hidden]

    return options


def _svt(e: Encode) -> list[str]:
    kind = 1 if e.is_open else 2
    params = f"irefresh-type={kind}:lp=1:scd=0"
    speed = ["-preset", "12", "-crf", "25", "-g", str(e.group)]
    return ["-c:v", "libsvtav1", *speed, "-svtav1-params", params]


def _aom(e: Encode) -> list[str]:
    speed = ["-cpu-used", "8", "-crf", "25", "-b:v", "0", "-lag-in-frames", "8"]
    return ["-c:v", "libaom-av1", *speed, "-g", str(e.group)]


CODECS: dict[str, Callable[[Encode], list[str]]] = {
    "h264": _x264,
    "hevc": _x265,
    "mpeg4": _mpeg("mpeg4"),
    "mpeg2": _mpeg("mpeg2video"),
    "mjpeg": lambda e: ["-c:v", "mjpeg", "-q:v", "3"],
    "vp8": _vpx("libvpx"),
    "vp9": _vpx("libvpx-vp9"),
    "svtav1": _svt,
    "aomav1": _aom,
}


def n_waits(e: Encode) -> int:
    """How many frames are decoded before the first one is shown.

    One where some frames wait for a later one; two where other B-frames may refer to the middle one
    of several, which x265 allows for with a single one, too.
    """
    if e.codec == "hevc":
        return 2 * (e.n_b > 0)
    return min(e.n_b, {"h264": 2, "mpeg4": 1, "mpeg2": 1}.get(e.codec, 0))


def encode(e: Encode, path: Path) -> None:
    """Write the file of an encode, unless it is there already."""
    if path.exists():
        return
    raw = b"".join(_pixels(e.first + k) for k in range(e.n_frames))
    form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(e.rate)]
    chosen: list[str] = []
    if e.keep is not None:
        chosen = ["-vf", f"select='{_any_of(e.keep)}'", "-fps_mode", "vfr"]
    colours = ["-pix_fmt", "yuvj420p" if e.codec == "mjpeg" else "yuv420p"]
    options = CONTAINERS[e.container].options
    run_ffmpeg(
        *form,
        "-i",
        "-",
        *chosen,
        *CODECS[e.codec](e),
        *colours,
        *options,
        *e.extra,
        path,
        stdin=raw,
    )


def truth_of(e: Encode) -> Truth:
    """When each frame of an encode is shown, by how it was made."""
    kept = np.arange(e.n_frames) if e.keep is None else np.array(e.keep)
    starts_s = kept / float(e.rate)
    container = CONTAINERS[e.container]
    wait_s = n_waits(e) / float(e.rate) if container.has_waits else 0.0
    origins: tuple[float, ...] = (container.start_s + wait_s,)
    if container.start_s or e.container == "avi":
        # Readers may count from the first frame: what comes before it is the multiplexer's alone.
        origins = (0.0, wait_s, *origins)
    # Of the last frame some containers say how long it is shown, others leave it to the reader.
    longest_s = float(np.diff(starts_s).max())
    end_s = float(starts_s[-1]) + 1 / float(e.rate)
    return Truth(
        numbers=e.first + kept,
        starts_s=starts_s,
        end_s=end_s,
        # An edit list counts in the unit of the movie, 1 ms.
        end_slack_s=2 * _MS + (longest_s if e.keep is not None else 0.0),
        slack_s=container.slack_s,
        origins_s=origins,
        matrix=UPRIGHT,
        is_even=e.keep is None,
    )


def _any_of(indices: tuple[int, ...]) -> str:
    """FFmpeg's expression for a frame of these indices; nested evenly, as depth is limited."""
    if len(indices) == 1:
        return f"eq(n,{indices[0]})"
    half = len(indices) // 2
    return f"({_any_of(indices[:half])}+{_any_of(indices[half:])})"


@cache
def _pixels(number: int) -> bytes:
    return draw(number).tobytes()
