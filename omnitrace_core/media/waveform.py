"""Cut waveforms to an interval, and convert them to the model's sample rate."""

from __future__ import annotations

import numpy as np

from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.records import Float32

SAMPLE_BYTES = 4


def cut_range(
    start: float | None, end: float | None, duration_s: float, name: str
) -> tuple[float, float]:
    """The interval of [0, duration_s] that a part's start and end options select, in seconds.

    Raises:
        InvalidSample: the start is negative, or the end is not after the start.
        MediaEmpty: it begins at or after the end of the media.
    """
    start_s = 0.0 if start is None else start
    end_s = duration_s if end is None else min(end, duration_s)
    if start_s < 0 or (end is not None and not start_s < end):
        raise InvalidSample(
            f"{name}: [{start}, {end}] s is not a valid interval; start must be before end"
        )
    if start_s >= end_s:
        raise MediaEmpty(
            f"{name}: it lasts {duration_s:.3f} s, so nothing is left after {start_s} s"
        )
    return start_s, end_s


def to_model_rate(
    mono: Float32, rate: int, model_rate: int, name: str, notes: list[str]
) -> Float32:
    """Resample a waveform to the model's rate and clip it to [-1, 1].

    mono: [n_samples] float32 at `rate` Hz; the result is [n] float32 at `model_rate` Hz. A note on
    clipping is added to `notes`.

    Raises:
        MediaCorrupt: some samples are not finite numbers.
        MediaEmpty: no samples.
    """
    if not mono.size:
        raise MediaEmpty(f"{name}: no audio samples")
    if not np.isfinite(mono).all():
        raise MediaCorrupt(f"{name}: the audio has samples that are not finite numbers")
    if float(np.abs(mono).max()) > 1:
        notes.append("audio above full scale clipped")
    if rate != model_rate:
        with importing():
            import librosa
            import soxr  # noqa: F401  (librosa imports it at the first call)

            resample = librosa.resample  # imported at the first access

        # Round down: times computed from the waveform must not lie after the end of the file.
        n_samples = max(1, mono.size * model_rate // rate)
        mono = resample(mono, orig_sr=rate, target_sr=model_rate, res_type="soxr_hq")
        mono = mono[:n_samples]
    return np.clip(mono, -1.0, 1.0).astype(np.float32)
