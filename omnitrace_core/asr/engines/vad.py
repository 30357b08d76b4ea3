"""The engine `vad`: segments without words, by silero-vad, whose wheel holds its weights."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from omnitrace_core.addresses import media_name
from omnitrace_core.asr.engines.sound import MODEL_RATE, decoded_end_s, model_waveform
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Part, SpeechSegment
from omnitrace_core.runtime.process_state import preserve_process_state

if TYPE_CHECKING:
    from torch.jit import ScriptModule

# A pause this long ends a segment: longer than stops inside words, shorter than between sentences.
_PAUSE_MS = 300
# silero splits long speech at pauses, and needs this much of it to find one.
_SHORTEST_SPLIT_S = 5.0


class VoiceActivity:
    """Finds the intervals of speech in a sound, none longer than `asr.max_chunk_s`."""

    def __init__(self, options: AsrOptions) -> None:
        self._max_length_s = options.max_chunk_s
        self._threads = options.threads

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Segments without text; pauses shorter than 0.3 s do not end one.

        Raises:
            SpeechError: the detector failed.
        """
        import torch

        silero = _import_silero()
        waveform = model_waveform(audio)
        try:
            with preserve_process_state(self._threads, "silero_vad"):
                found = silero.get_speech_timestamps(
                    torch.tensor(waveform),
                    self._detector,
                    sampling_rate=MODEL_RATE,
                    min_silence_duration_ms=_PAUSE_MS,
                    max_speech_duration_s=max(self._max_length_s, _SHORTEST_SPLIT_S),
                )
        except (RuntimeError, ValueError) as error:
            raise SpeechError(f"{media_name(part)}: silero-vad failed: {error}") from error
        limit_s = decoded_end_s(audio)
        # silero counts samples from the start of the waveform.
        intervals = [
            (
                audio.start_s + interval["start"] / MODEL_RATE,
                min(audio.start_s + interval["end"] / MODEL_RATE, limit_s),
            )
            for interval in found
        ]
        return tuple(
            segment
            for start_s, end_s in intervals
            for segment in _split(start_s, end_s, self._max_length_s)
        )

    @cached_property
    def _detector(self) -> ScriptModule:
        """The detector, on the CPU; silero resets it before each sound."""
        silero = _import_silero()
        with warnings.catch_warnings():
            # silero ships TorchScript, whose loader torch calls deprecated.
            warnings.filterwarnings("ignore", r".*torch\.jit\.load", DeprecationWarning)
            detector: ScriptModule = silero.load_silero_vad()
        return detector


def _import_silero() -> ModuleType:
    """Import silero_vad and undo its side effect: it sets one torch thread for the process."""
    import torch

    n_threads = torch.get_num_threads()
    module = import_module("silero_vad")
    torch.set_num_threads(n_threads)
    return module


def _split(start_s: float, end_s: float, max_length_s: float) -> list[SpeechSegment]:
    """[start_s, end_s] in equal segments of at most `max_length_s` seconds."""
    n = max(1, math.ceil((end_s - start_s) / max_length_s))
    edges_s = [start_s + (end_s - start_s) * k / n for k in range(n)] + [end_s]
    return [SpeechSegment(edges_s[k], edges_s[k + 1]) for k in range(n)]
