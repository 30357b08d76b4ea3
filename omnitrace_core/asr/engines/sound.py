"""A decoded sound as speech models take it: at 16 kHz, whole or cut into clips of speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.records import Float32

# Start and end in seconds of the original file.
Interval = tuple[float, float]

# Hz that all speech models here take.
MODEL_RATE = 16_000
# No word is shorter, and the frontends of models fail on less than one of their windows.
_SHORTEST_CLIP_S = 0.1


@dataclass(frozen=True, slots=True)
class SoundClip:
    """A stretch of a sound, at 16 kHz.

    start_s: where it begins in the original file. waveform: [n_samples] float32, a view of the
    waveform that it was cut from. speech: where in it somebody speaks; if empty, everywhere.
    """

    start_s: float
    waveform: Float32
    speech: tuple[Interval, ...] = ()

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / MODEL_RATE

    def part(self, start_s: float, end_s: float) -> SoundClip:
        """What it holds between two times, in seconds of the original file."""
        first, last = (round((at_s - self.start_s) * MODEL_RATE) for at_s in (start_s, end_s))
        return SoundClip(start_s, self.waveform[max(first, 0) : last])


def model_waveform(audio: DecodedAudio) -> Float32:
    """The waveform at 16 kHz: [n_samples] float32."""
    if audio.sample_rate == MODEL_RATE:
        return audio.waveform
    import librosa

    resampled: Float32 = librosa.resample(
        audio.waveform, orig_sr=audio.sample_rate, target_sr=MODEL_RATE, res_type="soxr_hq"
    )
    return resampled


def resample(audio: DecodedAudio) -> DecodedAudio:
    """The same sound at 16 kHz, so that later steps need not resample it again."""
    if audio.sample_rate == MODEL_RATE:
        return audio
    return replace(audio, waveform=model_waveform(audio), sample_rate=MODEL_RATE)


def decoded_end_s(audio: DecodedAudio) -> float:
    """Where the decoded stretch ends, in seconds of the original file."""
    return min(audio.start_s + len(audio.waveform) / audio.sample_rate, audio.duration_s)


def cut_clips(audio: DecodedAudio, intervals: Sequence[Interval]) -> list[SoundClip]:
    """The clips of some intervals (start, end) in seconds of the original file.

    Intervals are limited to the decoded stretch; clips shorter than 0.1 s are left out.
    """
    waveform = model_waveform(audio)
    limit_s = decoded_end_s(audio)
    clips: list[SoundClip] = []
    for start_s, end_s in intervals:
        start_s, end_s = max(start_s, audio.start_s), min(end_s, limit_s)
        first, last = (round((at_s - audio.start_s) * MODEL_RATE) for at_s in (start_s, end_s))
        if last - first >= _SHORTEST_CLIP_S * MODEL_RATE:
            clips.append(SoundClip(start_s, waveform[first:last]))
    return clips
