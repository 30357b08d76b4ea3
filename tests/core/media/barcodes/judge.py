"""Compare what a reader returns for a file with what is shown in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media.barcodes.bars import read
from tests.core.media.barcodes.truth import Truth

# Frames stay about as large as they are stored.
_RULES = MediaRules(factor=4, video_min_pixels=64 * 64)
_RATE_SLACK = 0.02
# The coarsest clock of a container, that of Matroska and FLV.
_CLOCK_S = 1.1e-3


def decode(path: Path, options: MediaOptions, wanted: PartOptions) -> DecodedVideo:
    """Decode a video file by its address."""
    decoded = decode_part(Part("video", uri=str(path), options=wanted), options, _RULES)
    assert isinstance(decoded, DecodedVideo)
    return decoded


def faults(path: Path, truth: Truth, options: MediaOptions, *, may_refuse: bool) -> list[str]:
    """Each thing that is wrong with what is returned for a file; empty if all is right.

    Samplings: the default; every frame; a few over all; several per second between two times.
    """
    try:
        first = decode(path, options, PartOptions())
    except MediaError as error:
        return [] if may_refuse else [f"refused: {error}"]
    begin_s = first.start_s - float(truth.starts_s[0])
    # Files whose first frame comes on another clock are told apart by their other frames.
    origin_s = min(truth.origins_s, key=lambda origin: abs(origin - begin_s))
    found = [f"default: {fault}" for fault in _compare(first, truth, origin_s, None)]
    for wanted in _samplings(truth, origin_s):
        try:
            video = decode(path, options, wanted)
        except MediaError as error:
            if not may_refuse:
                found.append(f"{_named(wanted)}: refused: {error}")
            continue
        cut = None
        if wanted.video_start is not None and wanted.video_end is not None:
            cut = (wanted.video_start - origin_s, wanted.video_end - origin_s)
        found += [f"{_named(wanted)}: {fault}" for fault in _compare(video, truth, origin_s, cut)]
    return found


def _samplings(truth: Truth, origin_s: float) -> Iterator[PartOptions]:
    yield PartOptions(fps=1000.0)
    yield PartOptions(nframes=10)
    n = len(truth.starts_s)
    for share, fps in ((0.3, 7.0), (0.55, 1000.0)):
        first, last = int(n * share), int(n * (share + 0.3))
        # Between two frames, so that no rounding decides which ones lie inside.
        start, end = (float(truth.starts_s[k : k + 2].mean()) + origin_s for k in (first, last))
        yield PartOptions(video_start=start, video_end=end, fps=fps)


def _compare(
    video: DecodedVideo, truth: Truth, origin_s: float, cut: tuple[float, float] | None
) -> Iterator[str]:
    n = len(video.frames)
    if len(video.frame_times_s) != n:
        yield f"{n} frames with {len(video.frame_times_s)} times"
        return
    times_s = np.asarray(video.frame_times_s) - origin_s
    seen = [read(frame) for frame in video.frames]
    shown = [
        _shown_at(time, truth, given.number) for time, given in zip(times_s, seen, strict=True)
    ]
    wrong = [
        f"{times_s[k]:.4f} s: {truth.numbers[shown[k]]} due, {seen[k].number} given"
        for k in range(n)
        if seen[k].number != truth.numbers[shown[k]]
    ]
    if wrong:
        yield f"{len(wrong)} of {n} frames are not those of their time: {'; '.join(wrong[:3])}"
    off_s = np.abs(truth.starts_s[shown] - times_s)
    if truth.is_even and off_s.max() > truth.slack_s:
        k = int(off_s.argmax())
        yield f"{(off_s > truth.slack_s).sum()} of {n} times are of no frame, such as {times_s[k]}"
    turned = {frame.matrix for frame in seen}
    if turned != {truth.matrix}:
        yield f"turned {turned}, not {truth.matrix}"
    first, last = 0, len(truth.starts_s) - 1
    begin_s = float(truth.starts_s[0])
    if cut is not None:
        first = int(np.searchsorted(truth.starts_s, cut[0]))
        last = int(np.searchsorted(truth.starts_s, cut[1])) - 1
        begin_s = float(truth.starts_s[first])
        if not truth.is_even:
            # A picture may stand still where the stretch begins.
            first, begin_s = max(first - 1, 0), cut[0]
    if truth.n_sure is not None:
        # The file decides how far it goes, and whether frames are missing at its end.
        if shown[-1] < min(truth.n_sure - 1, last):
            yield f"the last frame is at {video.frame_times_s[-1]}"
        return
    yield from _compare_choice(times_s, shown, truth, (first, last), begin_s)
    yield from _compare_interval(video, truth, origin_s, last, begin_s)


def _shown_at(time_s: float, truth: Truth, number: int | None, within_s: float = _CLOCK_S) -> int:
    """Index of the frame that is shown at a time; where several may be, of that with `number`.

    They may at a change of frames, as times are rounded, and where frames may be missing.
    """
    early, late = (
        max(0, int(np.searchsorted(truth.starts_s, time_s + slack_s, side="right")) - 1)
        for slack_s in (-within_s, within_s)
    )
    if truth.n_sure is not None and late >= truth.n_sure:
        early = truth.n_sure - 1
    given = np.flatnonzero(truth.numbers[early : late + 1] == number)
    return early + int(given[0]) if len(given) else late


def _compare_choice(
    times_s: NDArray[np.float64],
    shown: list[int],
    truth: Truth,
    stretch: tuple[int, int],
    begin_s: float,
) -> Iterator[str]:
    """Which of the frames of a stretch (first, last) were sampled; it begins at `begin_s`."""
    n, (first, last) = len(shown), stretch
    if truth.is_even:
        spread = [int(k) for k in np.linspace(first, last, n).round()]
        if spread != shown:
            yield f"frames {shown[:4]}...{shown[-3:]} sampled, not {spread[:4]}...{spread[-3:]}"
        return
    # The model is told a constant rate: a picture that stands still is sampled several times.
    due_s = np.linspace(begin_s, truth.starts_s[last], n)
    numbers = [int(truth.numbers[k]) for k in shown]
    # The even times are rounded, as well as those of the frames.
    due = [_shown_at(due_s[k], truth, numbers[k], 2 * _CLOCK_S) for k in range(n)]
    if due != shown:
        yield f"frames {shown} sampled, {due} are shown at even times"
    starts_s = np.maximum(truth.starts_s[shown], begin_s)
    off_s = np.minimum(np.abs(times_s - starts_s), np.abs(times_s - due_s))
    if off_s.max() > 2 * truth.slack_s or (np.diff(times_s) <= 0).any():
        yield "sampled times are neither even nor those of frames"


def _compare_interval(
    video: DecodedVideo, truth: Truth, origin_s: float, last: int, begin_s: float
) -> Iterator[str]:
    """What is said of the frames as a whole: when they begin and end, and their rate."""
    n = len(video.frames)
    end_s = truth.starts_s[last + 1] if last + 1 < len(truth.starts_s) else truth.end_s
    end_slack_s = 2 * truth.slack_s if last + 1 < len(truth.starts_s) else truth.end_slack_s
    if abs(video.end_s - origin_s - end_s) > end_slack_s:
        yield f"ends at {video.end_s - origin_s:.4f}, {end_s:.4f} is due"
    if abs(video.start_s - origin_s - begin_s) > truth.slack_s:
        yield f"starts at {video.start_s - origin_s:.4f}, {begin_s:.4f} is due"
    length_s = video.end_s - video.start_s
    if abs(n / video.fps / length_s - 1) > _RATE_SLACK:
        yield f"{n} frames of {length_s:.3f} s are told as {video.fps:.3f} per second"


def _named(wanted: PartOptions) -> str:
    names = ("fps", "nframes", "video_start", "video_end")
    values = ((name, getattr(wanted, name)) for name in names)
    return ", ".join(f"{name}={value:.4g}" for name, value in values if value is not None)
