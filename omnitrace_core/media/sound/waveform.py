"""Waveforms at the model's sample rate, made of a sound's samples block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omnitrace_core.errors import InvalidSample, MediaEmpty
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sound.mixing import Mixer
from omnitrace_core.records import Float32

SAMPLE_BYTES = 4
_SILENCE = 1 << 18


@dataclass(frozen=True, slots=True)
class Interval:
    """What is to be heard of a sound: [start_s, end_s), and no more than `max_s` of it."""

    start_s: float = 0.0
    end_s: float | None = None
    max_s: float | None = None

    @classmethod
    def chosen(
        cls, start: float | None, end: float | None, max_s: float | None, name: str
    ) -> Interval:
        """The interval by a part's options.

        Raises:
            InvalidSample: the start is negative, or the end is not after the start.
        """
        start_s = 0.0 if start is None else start
        if start_s < 0 or (end is not None and not start_s < end):
            raise InvalidSample(
                f"{name}: [{start}, {end}] s is not a valid interval; start must be before end"
            )
        return cls(start_s, end, max_s)

    def heard_end_s(self, duration_s: float) -> float:
        """Where to stop in a sound of `duration_s`."""
        ends = [duration_s] if self.end_s is None else [duration_s, self.end_s]
        if self.max_s is not None:
            ends.append(self.start_s + self.max_s)
        return min(ends)

    def notes(self, duration_s: float) -> list[str]:
        """A note if `max_s` leaves something out of a sound of `duration_s`."""
        end_s = duration_s if self.end_s is None else min(self.end_s, duration_s)
        if self.max_s is None or end_s - self.start_s <= self.max_s:
            return []
        return [
            f"heard {self.max_s:.1f} of {end_s - self.start_s:.1f} s of sound, as "
            "media.max_heard_s says"
        ]

    def check_not_empty(self, duration_s: float, name: str) -> None:
        """Check that a sound of `duration_s` has something in the interval.

        Raises:
            MediaEmpty: no samples, or the interval begins at or after the end.
        """
        if not duration_s:
            raise MediaEmpty(f"{name}: no audio samples")
        if self.start_s >= duration_s:
            raise MediaEmpty(
                f"{name}: it lasts {duration_s:.3f} s, so nothing is left after {self.start_s} s"
            )


class Recorder:
    """Takes the samples of a sound in turn, and keeps an interval of them at the model's rate.

    An hour takes 230 MB at 16 kHz, at any rate and number of channels of the sound.
    """

    def __init__(
        self,
        rate: int,
        model_rate: int,
        interval: Interval,
        name: str,
        check_size: Callable[[float], None],
    ) -> None:
        """check_size: raises if so many bytes are too many."""
        self.n_samples = 0
        self.first = round(interval.start_s * rate)
        end_s = interval.heard_end_s(math.inf)
        self._end = math.inf if end_s == math.inf else round(end_s * rate)
        self._rates = (rate, model_rate)
        self._mixer = Mixer(rate, name)
        self._resampler = _resampler(rate, model_rate)
        self._check_size = check_size
        self._kept = bytearray()
        self._n_kept = 0
        self._is_clipped = False

    def add(self, channels: Float32) -> None:
        """Add samples [n_channels, n].

        Raises:
            MediaCorrupt: some samples are not finite numbers.
            MediaTooLarge: by `check_size`.
        """
        begin, self.n_samples = self.n_samples, self.n_samples + channels.shape[1]
        first = max(self.first - begin, 0)
        end = int(min(self._end - begin, channels.shape[1]))
        if first >= end:
            return
        mono = self._mixer.mix(channels[:, first:end])
        self._is_clipped |= bool(np.abs(mono).max() > 1)
        self._n_kept += end - first
        self._keep(mono if self._resampler is None else self._resampler(mono, False))
        self._check_size(len(self._kept))
        report_progress()

    def add_silence(self, n_samples: int) -> None:
        """Add `n_samples` zeros."""
        while n_samples > 0:
            n = min(n_samples, _SILENCE)
            self.add(np.zeros((1, n), np.float32))
            n_samples -= n

    def waveform(self) -> tuple[Float32, list[str]]:
        """What was kept: [n] float32 in [-1, 1] at the model's rate, and notes."""
        if self._resampler is not None:
            self._keep(self._resampler(np.empty(0, np.float32), True))
        rate, model_rate = self._rates
        # Round down: times computed from the waveform must not lie after the end of the file.
        n = max(1, self._n_kept * model_rate // rate) if self._n_kept else 0
        notes = ["audio above full scale clipped"] if self._is_clipped else []
        return np.frombuffer(self._kept, np.float32)[:n], notes + self._mixer.notes(self._n_kept)

    def _keep(self, mono: Float32) -> None:
        self._kept += np.clip(mono, -1.0, 1.0).astype(np.float32, copy=False).tobytes()


def _resampler(rate: int, model_rate: int) -> Callable[[Float32, bool], Float32] | None:
    """Takes the next samples, and whether they are the last; returns samples at the model's rate.

    The result equals that of one call for all samples, which librosa makes.
    """
    if rate == model_rate:
        return None
    with importing():
        import soxr

    stream = soxr.ResampleStream(rate, model_rate, 1, dtype="float32", quality="HQ")
    return lambda samples, is_last: stream.resample_chunk(samples, last=is_last)
