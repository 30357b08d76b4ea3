"""A decoded sound as speech models take it: at 16 kHz, or the stretch between two times."""

from __future__ import annotations

from omnitrace_core.records import DecodedAudio, Float32

RATE = 16_000


def at_rate(audio: DecodedAudio) -> Float32:
    """The waveform at 16 kHz: [n_samples] float32."""
    if audio.sample_rate == RATE:
        return audio.waveform
    import librosa

    resampled: Float32 = librosa.resample(
        audio.waveform, orig_sr=audio.sample_rate, target_sr=RATE, res_type="soxr_hq"
    )
    return resampled


def end_of(audio: DecodedAudio) -> float:
    """Where the decoded stretch ends, in seconds of the original file."""
    return min(audio.start_s + len(audio.waveform) / audio.sample_rate, audio.duration_s)
