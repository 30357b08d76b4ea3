"""Waveforms: the interval that is asked for, and the model's sample rate."""

from __future__ import annotations

import numpy as np

from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty
from omnitrace_core.records import Float32

SAMPLE_BYTES = 4


def cut_range(
    start: float | None, end: float | None, duration_s: float, name: str
) -> tuple[float, float]:
    """The interval of [0, duration_s] that a part's start and end options ask for.

    Raises:
        InvalidSample: negative, or the end is not after the start.
        MediaEmpty: it begins after the media ends.
    """
    start_s = 0.0 if start is None else start
    end_s = duration_s if end is None else min(end, duration_s)
    if start_s < 0 or (end is not None and not start_s < end):
        raise InvalidSample(f"{name}: [{start}, {end}] s is no interval; start must be before end")
    if start_s >= end_s:
        raise MediaEmpty(f"{name}: lasts {duration_s:.3f} s, nothing is left from {start_s} s on")
    return start_s, end_s


def to_model_rate(
    mono: Float32, rate: int, model_rate: int, name: str, notes: list[str]
) -> Float32:
    """A waveform at the model's sample rate, in [-1, 1]; what was clipped is added to `notes`.

    Raises:
        MediaCorrupt: samples that are not finite numbers.
        MediaEmpty: no samples.
    """
    if not mono.size:
        raise MediaEmpty(f"{name}: no audio samples")
    if not np.isfinite(mono).all():
        raise MediaCorrupt(f"{name}: the audio has samples that are not finite numbers")
    if float(np.abs(mono).max()) > 1:
        notes.append("audio above full scale clipped")
    if rate != model_rate:
        import librosa

        # Rounded down: times worked out from the waveform must not lie beyond the file's end.
        n_samples = max(1, mono.size * model_rate // rate)
        mono = librosa.resample(mono, orig_sr=rate, target_sr=model_rate, res_type="soxr_hq")
        mono = mono[:n_samples]
    return np.clip(mono, -1.0, 1.0).astype(np.float32)
