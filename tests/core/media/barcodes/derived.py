"""Files that are made from encodes without encoding again: cut, shifted, turned and joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.core.media.barcodes.bars import MATRICES
from tests.core.media.barcodes.boxes import Edit, edits_of, scales, with_edits, with_matrix
from tests.core.media.barcodes.encode import CONTAINERS, Encode, encode, n_waits, truth_of
from tests.core.media.barcodes.truth import Truth
from tests.core.media_files import run_ffmpeg

Make = Callable[[Path], tuple[Path, Truth]]

_NTSC = Fraction(30_000, 1001)
PLAIN = Encode("h264", "mp4", group=30, n_frames=150)
WITH_B = replace(PLAIN, n_b=2, group=60)
OPEN = replace(PLAIN, n_b=2, is_open=True)
LONG = replace(PLAIN, n_b=2, group=250)
HEVC = replace(PLAIN, codec="hevc", n_b=3, is_open=True)
MPEG4 = replace(PLAIN, codec="mpeg4", n_b=2, group=12, is_open=True)


def source(e: Encode, folder: Path) -> Path:
    """The encode that other files are made from; written once."""
    path = folder / f"source-{e.name}-{e.first}-{e.n_frames}{CONTAINERS[e.container].suffix}"
    encode(e, path)
    return path


def cut(e: Encode, at: int, n: int | None = None, container: str = "mp4") -> Make:
    """From frame `at` on, `n` frames or all: the packets from the keyframe before it are copied.

    MP4 gets an edit list that hides what is before `at`; the other containers show it, and their
    clock begins with the keyframe. At the end, packets stay out by the time they are decoded at:
    with B-frames the last ones shown may be missing, and some of later be there.
    """

    def make(folder: Path) -> tuple[Path, Truth]:
        path = folder / f"cut-{e.name}-{at}-{n}{CONTAINERS[container].suffix}"
        rate = float(e.rate)
        # Half a frame before the next one, which is the first that stays out.
        until = [] if n is None else ["-t", f"{(n - 0.5) / rate:.6f}"]
        options = CONTAINERS[container].options
        start = ["-ss", f"{at / rate:.6f}", "-i"]
        run_ffmpeg(*start, source(e, folder), *until, "-c", "copy", *options, path)
        whole = truth_of(replace(e, container=container))
        first = at if container in ("mp4", "mov") else at // e.group * e.group
        last = e.n_frames if n is None else at + n
        n_sure = None
        if n is not None and e.n_b:
            n_sure, last = last - first - e.n_b - 1, last + e.n_b + 2
        slack_s = max(whole.slack_s, 1e-4)
        return path, replace(
            whole,
            numbers=whole.numbers[first:last],
            starts_s=whole.starts_s[first:last] - first / rate,
            end_s=(last - first) / rate,
            slack_s=slack_s,
            end_slack_s=4 * slack_s,
            n_sure=n_sure,
            is_even=n_sure is None,
        )

    return make


def edited(e: Encode, first: int, last: int, *, late_s: float = 0.0, early: float = 0.0) -> Make:
    """An edit list that shows frames first to last - 1 after late_s of nothing.

    early: by this part of a frame the last one is cut short.
    """

    def make(folder: Path) -> tuple[Path, Truth]:
        data = source(e, folder).read_bytes()
        movie, track = scales(data)
        _, begin, _ = edits_of(data)[0]
        rate = float(e.rate)
        length_s = (last - first - early) / rate
        edits: list[Edit] = [(round(length_s * movie), begin + round(first / rate * track), 1)]
        if late_s:
            edits.insert(0, (round(late_s * movie), -1, 1))
        path = folder / f"edited-{e.name}-{first}-{last}-{late_s}-{early}.mp4"
        path.write_bytes(with_edits(data, edits))
        whole = truth_of(e)
        return path, replace(
            whole,
            numbers=whole.numbers[first:last],
            starts_s=whole.starts_s[first:last] - first / rate + late_s,
            end_s=late_s + length_s,
            # The movie counts in milliseconds.
            end_slack_s=1.5 / movie,
        )

    return make


def two_edits(e: Encode, parts: list[tuple[int, int, float]]) -> Make:
    """An edit list of several parts, each (first frame, end, rate)."""

    def make(folder: Path) -> tuple[Path, Truth]:
        data = source(e, folder).read_bytes()
        movie, track = scales(data)
        _, begin, _ = edits_of(data)[0]
        rate, at_s = float(e.rate), 0.0
        edits: list[Edit] = []
        numbers, starts_s = [], []
        for first, last, speed in parts:
            edits.append(
                (
                    round((last - first) / rate / (speed or 1) * movie),
                    begin + round(first / rate * track),
                    speed,
                )
            )
            for k in range(first, last if speed else first + 1):
                numbers.append(k)
                starts_s.append(at_s + (k - first) / rate / (speed or 1))
            at_s += (last - first) / rate / (speed or 1)
        text = "_".join(f"{first}-{last}-{speed}" for first, last, speed in parts)
        path = folder / f"parts-{e.name}-{text}.mp4"
        path.write_bytes(with_edits(data, edits))
        return path, replace(
            truth_of(e),
            numbers=np.array(numbers),
            starts_s=np.array(starts_s),
            end_s=at_s,
            slack_s=2e-3,
            end_slack_s=5e-3,
            is_even=False,
            odd="an edit list of several parts, or of another speed",
        )

    return make


def turned(e: Encode, turn: str) -> Make:
    """Shown turned or mirrored by the display matrix."""

    def make(folder: Path) -> tuple[Path, Truth]:
        path = folder / f"turned-{e.name}-{turn}{CONTAINERS[e.container].suffix}"
        path.write_bytes(with_matrix(source(e, folder).read_bytes(), MATRICES[turn]))
        return path, replace(truth_of(e), matrix=MATRICES[turn])

    return make


def late(e: Encode, video_s: float, sound_s: float | None, container: str) -> Make:
    """Frames that begin at video_s, with sound from sound_s on if that is given.

    One of both begins at 0, or the container keeps what comes before them. The coding of AAC begins
    1,024 samples early, and where times may not be negative all waits for that.
    """

    def make(folder: Path) -> tuple[Path, Truth]:
        path = folder / f"late-{e.name}-{video_s}-{sound_s}-{container}{_suffix(container)}"
        inputs: list[str | Path] = ["-itsoffset", str(video_s), "-i", source(e, folder)]
        streams = ["-map", "0:v"]
        # Millisecond clocks hold the length of sound blocks badly.
        if sound_s is not None:
            tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=5"]
            inputs += ["-itsoffset", str(sound_s), *tone]
            codec = ["-c:a", "pcm_s16le"] if container in ("mov", "mkv") else ["-c:a", "aac"]
            streams += ["-map", "1:a", *codec]
        options = CONTAINERS[container].options
        run_ffmpeg(*inputs, *streams, "-c:v", "copy", *options, path)
        truth = truth_of(replace(e, container=container))
        return path, replace(
            truth,
            starts_s=truth.starts_s + video_s,
            end_s=truth.end_s + video_s,
            slack_s=max(1.5 * truth.slack_s, 1e-4),
            origins_s=_late_origins(e, video_s, sound_s, container, truth.origins_s),
        )

    return make


def _suffix(container: str) -> str:
    return CONTAINERS[container].suffix


def _late_origins(
    e: Encode, video_s: float, sound_s: float | None, container: str, origins_s: tuple[float, ...]
) -> tuple[float, ...]:
    """Where the clock begins: what comes first is moved so that it is not decoded before 0."""
    if not CONTAINERS[container].has_waits:
        return origins_s
    start_s = CONTAINERS[container].start_s
    earliest_s = video_s - n_waits(e) / float(e.rate)
    if sound_s is not None:
        earliest_s = min(earliest_s, sound_s - 1024 / 48_000)
    wait_s = max(0.0, -earliest_s)
    found = (start_s + wait_s,)
    # A reader that counts from the first thing in the file.
    first_s = video_s if sound_s is None else min(video_s, sound_s - 1024 / 48_000)
    return found if not start_s else (*found, -first_s)


def catted(first: Encode, container: str) -> Make:
    """Two files, one behind the other: all must be read, or nothing."""
    one, two = (replace(first, container=container, first=k * first.n_frames) for k in (0, 1))

    def make(folder: Path) -> tuple[Path, Truth]:
        path = folder / f"cat-{one.name}{CONTAINERS[container].suffix}"
        path.write_bytes(source(one, folder).read_bytes() + source(two, folder).read_bytes())
        truth = truth_of(replace(one, n_frames=2 * one.n_frames))
        return path, replace(truth, odd="two files in one")

    return make


def joined(first: Encode, container: str) -> Make:
    """Two files joined properly, by FFmpeg's concat, without encoding."""
    one, two = (replace(first, container=container, first=k * first.n_frames) for k in (0, 1))

    def make(folder: Path) -> tuple[Path, Truth]:
        path = folder / f"joined-{one.name}{CONTAINERS[container].suffix}"
        playlist = folder / f"joined-{one.name}.txt"
        names = (source(e, folder).name for e in (one, two))
        playlist.write_text("".join(f"file {name}\n" for name in names))
        options = CONTAINERS[container].options
        run_ffmpeg("-f", "concat", "-i", playlist, "-c", "copy", *options, path)
        truth = truth_of(replace(one, n_frames=2 * one.n_frames))
        return path, replace(truth, slack_s=max(truth.slack_s, 1e-4), end_slack_s=2e-3)

    return make


DERIVED: dict[str, Make] = {
    # Cut without encoding, at keyframes and between, in groups short and long.
    "cut-mp4-at-a-keyframe": cut(PLAIN, 60),
    "cut-mp4-between": cut(PLAIN, 73),
    "cut-mp4-just-before-a-keyframe": cut(WITH_B, 59),
    "cut-mp4-just-after-a-keyframe": cut(WITH_B, 61),
    "cut-mp4-b-between": cut(WITH_B, 100),
    "cut-mp4-one-group": cut(LONG, 91),
    "cut-mp4-short": cut(PLAIN, 47, 40),
    "cut-mp4-b-short": cut(WITH_B, 47, 61),
    "cut-mp4-one-group-short": cut(LONG, 50, 60),
    "cut-mp4-ntsc": cut(replace(WITH_B, rate=_NTSC), 77),
    "cut-mp4-mpeg4": cut(MPEG4, 41),
    "cut-mp4-hevc-closed": cut(replace(HEVC, is_open=False), 71),
    "cut-mov-between": cut(WITH_B, 85, container="mov"),
    "cut-mkv-between": cut(PLAIN, 73, container="mkv"),
    "cut-mkv-short": cut(PLAIN, 73, 50, "mkv"),
    "cut-flv-between": cut(PLAIN, 73, container="flv"),
    "cut-ts-between": cut(PLAIN, 73, container="ts"),
    "cut-webm-between": cut(replace(PLAIN, codec="vp9", container="webm", n_b=1), 73, None, "webm"),
    # Edit lists.
    "edits-end-early": edited(WITH_B, 0, 90),
    "edits-end-early-one-group": edited(LONG, 0, 100),
    "edits-end-early-open": edited(OPEN, 0, 77),
    "edits-end-within-a-frame": edited(WITH_B, 0, 64, early=0.4),
    "edits-start-between": edited(WITH_B, 40, 150),
    "edits-start-at-a-keyframe": edited(WITH_B, 60, 150),
    "edits-start-between-open": edited(OPEN, 32, 150),
    "edits-window": edited(LONG, 50, 110),
    "edits-window-hevc-open": edited(HEVC, 35, 111),
    "edits-window-mpeg4": edited(MPEG4, 31, 95),
    "edits-empty-first": edited(WITH_B, 0, 150, late_s=1.5),
    "edits-empty-first-and-window": edited(WITH_B, 45, 130, late_s=0.75),
    "edits-two-parts": two_edits(WITH_B, [(20, 60, 1), (100, 140, 1)]),
    "edits-repeat": two_edits(WITH_B, [(30, 90, 1), (30, 90, 1)]),
    "edits-backwards": two_edits(PLAIN, [(90, 140, 1), (10, 60, 1)]),
    "edits-stand-still": two_edits(PLAIN, [(0, 40, 1), (40, 70, 0), (41, 100, 1)]),
    "edits-twice-as-fast": two_edits(PLAIN, [(0, 150, 2)]),
    # Turned.
    **{
        f"turned-{turn}-{e.codec}-{e.container}-b{e.n_b}": turned(e, turn)
        for (turn, e) in zip(
            [turn for turn in MATRICES if turn != "upright"],
            [PLAIN, WITH_B, replace(PLAIN, container="mov"), PLAIN, OPEN, HEVC, PLAIN],
            strict=True,
        )
    },
    # Late.
    "late-mp4": late(WITH_B, 1.5, None, "mp4"),
    "late-mp4-behind-sound": late(WITH_B, 1.0, 0.0, "mp4"),
    "late-mp4-before-sound": late(OPEN, 0.0, 0.5, "mp4"),
    "late-mp4-both": late(PLAIN, 2.0, 1.25, "mp4"),
    "late-mov-behind-sound": late(WITH_B, 0.7, 0.0, "mov"),
    "late-mkv-behind-sound": late(WITH_B, 0.7, 0.0, "mkv"),
    "late-mkv": late(PLAIN, 3.0, None, "mkv"),
    "late-flv-behind-sound": late(PLAIN, 0.9, 0.0, "flv"),
    "late-flv-b-before-sound": late(WITH_B, 0.0, 0.5, "flv"),
    "late-ts-behind-sound": late(WITH_B, 0.9, 0.0, "ts"),
    "late-ts": late(PLAIN, 50.0, None, "ts"),
    "late-negative-behind-sound": late(WITH_B, 0.9, 0.0, "negative"),
    "late-delayed-behind-sound": late(WITH_B, 0.9, 0.0, "delayed"),
    # Joined.
    "joined-mp4": joined(replace(WITH_B, n_frames=90), "mp4"),
    "joined-mp4-open": joined(replace(OPEN, n_frames=90), "mp4"),
    "joined-mkv": joined(replace(PLAIN, n_frames=90), "mkv"),
    "joined-ts": joined(replace(PLAIN, n_frames=90), "ts"),
    "joined-avi": joined(replace(PLAIN, codec="mjpeg", n_frames=60), "avi"),
    **{
        f"cat-{container}": catted(replace(PLAIN, n_frames=90), container)
        for container in ("mp4", "mov", "mkv", "fmp4", "flv", "ts", "avi")
    },
    "cat-webm": catted(replace(PLAIN, codec="vp8", n_frames=90), "webm"),
}
