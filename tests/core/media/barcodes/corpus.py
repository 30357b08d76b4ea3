"""The corpus: plain encodes, each a line of a table, and files that are made from encodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from tests.core.media.barcodes.derived import DERIVED
from tests.core.media.barcodes.encode import CONTAINERS, Encode, encode, truth_of
from tests.core.media.barcodes.irregular import IRREGULAR
from tests.core.media.barcodes.truth import Truth

# Which tenth of the corpus `make test` checks: the corpus is shuffled by SEED and dealt into ten.
SEED, TENTH = 20, 0

# Codec, container, frames per second, frames per group, B-frames, groups, number of frames.
_TABLE = """
h264   mp4      30     30  1 open   120
h264   mp4      30     30  2 open   120
h264   mp4      30     60  3 open   150
h264   mp4      29.97  30  2 closed 120
h264   mp4      60    250  3 closed 300
h264   mp4      24     12  0 closed 100
h264   mov      30     30  2 open   120
h264   mov      24     48  3 closed 120
h264   mov      29.97   1  0 closed  60
h264   mkv      30     30  1 open   120
h264   mkv      30     60  2 open   150
h264   mkv      29.97  48  3 closed 150
h264   mkv      24    250  2 closed 150
h264   flv      30     30  2 closed 120
h264   flv      60     60  2 open   150
h264   flv      24     24  0 closed 100
h264   ts       30     30  2 open   120
h264   ts       29.97  30  2 closed 120
h264   ts       60     60  0 closed 150
h264   fmp4     30     30  2 closed 120
h264   fmp4     24     24  0 closed 100
h264   fmp4     30     30  2 open   120
h264   cmaf     30     30  2 closed 120
h264   cmafgroups 24  24  3 open   100
h264   mixed    30     30  2 closed 120
h264   mixednegative 30 30 2 closed 120
h264   hybrid   30     30  2 closed 120
h264   delayed  30     30  3 closed 120
h264   negative 30     30  2 closed 120
h264   negative 29.97  60  3 open   150
h264   front    60     30  1 closed 120
h264   avi      30     30  0 closed 120
hevc   mp4      30     30  3 open   120
hevc   mp4      30     60  4 open   150
hevc   mp4      29.97  48  3 open   150
hevc   mp4      60    250  4 open   300
hevc   mp4      24     24  0 closed 100
hevc   mov      30     30  2 closed 120
hevc   mkv      30     30  3 open   120
hevc   mkv      24     48  4 open   150
hevc   mkv      60     60  2 closed 150
hevc   fmp4     30     30  3 open   120
hevc   ts       30     30  3 open   120
hevc   ts       29.97  60  2 closed 120
mpeg4  mp4      30     12  0 closed 100
mpeg4  mp4      30     12  2 open   100
mpeg4  mp4      29.97  30  1 open   120
mpeg4  mov      24     24  2 closed 100
mpeg4  mkv      30     12  2 open   100
mpeg4  mkv      30     48  0 closed 120
mpeg4  avi      30     30  0 closed 120
mpeg4  avi      29.97  12  2 open   100
mpeg4  ts       30     12  2 open   100
mpeg2  ts       29.97  15  2 open   120
mpeg2  ts       24     12  2 closed 100
mpeg2  mp4      30     15  2 open   100
mpeg2  mkv      30     15  2 closed 100
mpeg2  mkv      60      1  0 closed  60
mpeg2  avi      30     15  0 closed 100
vp8    webm     30     60  1 closed 150
vp8    webm     24     30  0 closed 100
vp8    mkv      60     30  1 closed 120
vp9    webm     30     60  1 closed 150
vp9    webm     29.97  30  0 closed 100
vp9    mkv      24     48  1 closed 120
vp9    mp4      30     30  1 closed 120
svtav1 mp4      30     30  0 closed 100
svtav1 webm     30     48  0 open   120
svtav1 fmp4     30     30  0 open   100
aomav1 mkv      24     30  0 closed  80
aomav1 webm     60     30  0 closed  80
mjpeg  avi      30      1  0 closed  90
mjpeg  mov      29.97   1  0 closed  90
mjpeg  mkv      60      1  0 closed  90
"""
_RATES = {"29.97": Fraction(30_000, 1001)}
# What encoders do besides.
_SPECIAL = {
    "h264-mp4-refreshed-without-keyframes": Encode(
        "h264", "mp4", n_frames=150, extra=("-x264-params", "keyint=60:intra-refresh=1:bframes=0")
    ),
    "h264-mkv-many-references": Encode("h264", "mkv", n_b=3, group=60, extra=("-refs", "5")),
    "h264-ts-interlaced": Encode("h264", "ts", extra=("-flags", "+ilme+ildct")),
    "mpeg2-ts-interlaced": Encode("mpeg2", "ts", group=15, n_b=2, extra=("-flags", "+ilme+ildct")),
    "hevc-mp4-hvc1": Encode("hevc", "mp4", n_b=3, is_open=True, extra=("-tag:v", "hvc1")),
    "h264-mp4-coarse-clock": Encode("h264", "mp4", n_b=2, extra=("-video_track_timescale", "60")),
    "h264-mp4-long-clock": Encode("h264", "mp4", n_b=2, extra=("-video_track_timescale", "90000")),
    "h264-mp4-hint-track": Encode("h264", "mp4", n_b=2, extra=("-movflags", "+rtphint")),
    "h264-mkv-live": Encode("h264", "mkv", n_b=2, extra=("-live", "1")),
    "h264-mkv-small-clusters": Encode("h264", "mkv", n_b=2, extra=("-cluster_time_limit", "100")),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the corpus: `make` writes it into a folder and returns it with what is true."""

    name: str
    make: Callable[[Path], tuple[Path, Truth]]


def plain_encodes() -> dict[str, Encode]:
    """The encodes of the table, and the special ones, by name."""
    found: dict[str, Encode] = {}
    for line in _TABLE.strip().splitlines():
        codec, container, rate, group, n_b, groups, n = line.split()
        encode_ = Encode(
            codec,
            container,
            _RATES.get(rate) or Fraction(rate),
            int(group),
            int(n_b),
            groups == "open",
            int(n),
        )
        assert encode_.name not in found, encode_.name
        found[encode_.name] = encode_
    return found | _SPECIAL


def corpus() -> dict[str, Entry]:
    """Every entry by its name."""
    entries = {name: _entry(name, e) for name, e in (plain_encodes() | IRREGULAR).items()}
    return entries | {name: Entry(name, make) for name, make in DERIVED.items()}


def tenth() -> list[str]:
    """The names of the entries that `make test` checks."""
    names = sorted(corpus())
    random.Random(SEED).shuffle(names)
    return sorted(names[TENTH % 10 :: 10])


def _entry(name: str, e: Encode) -> Entry:
    def make(folder: Path) -> tuple[Path, Truth]:
        path = made(e, folder, name)
        truth = truth_of(e)
        return path, replace(truth, odd=_odd(e))

    return Entry(name, make)


def _odd(e: Encode) -> str:
    mixed = e.container == "mixednegative"
    return "FFmpeg gives frames in fragments and others two clocks" if mixed else ""


def made(e: Encode, folder: Path, name: str) -> Path:
    """The file of an encode in a folder; written once."""
    path = folder / f"{name}{CONTAINERS[e.container].suffix}"
    encode(e, path)
    return path
