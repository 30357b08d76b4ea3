"""The engine `vad`: speech intervals by silero-vad, whose weights come in its wheel; no words."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from omnitrace_core.addresses import media_name
from omnitrace_core.asr.engines.sound import RATE, at_rate, end_of
from omnitrace_core.errors import SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Part, SpeechSegment
from omnitrace_core.runtime.process_state import preserve_process_state

if TYPE_CHECKING:
    from torch.jit import ScriptModule

# A pause this long ends a chunk: longer than stops inside words, shorter than between sentences.
_PAUSE_MS = 300
# silero's own splitting needs room for a pause to be found in.
_SHORTEST_SPLIT_S = 5.0


class VoiceActivity:
    """Cuts a sound into stretches of speech, none longer than `asr.max_chunk_s`."""

    def __init__(self, options: AsrOptions) -> None:
        self._max_chunk_s = options.max_chunk_s
        self._threads = options.threads

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Stretches of speech; pauses below 0.3 s do not end one.

        Raises:
            SpeechError: the detector failed.
        """
        import torch

        silero = _import_silero()
        waveform = at_rate(audio)
        try:
            with preserve_process_state(self._threads, "silero_vad"):
                found = silero.get_speech_timestamps(
                    torch.tensor(waveform),
                    self._detector,
                    sampling_rate=RATE,
                    min_silence_duration_ms=_PAUSE_MS,
                    max_speech_duration_s=max(self._max_chunk_s, _SHORTEST_SPLIT_S),
                )
        except (RuntimeError, ValueError) as error:
            raise SpeechError(f"{media_name(part)}: silero-vad failed: {error}") from error
        limit_s = end_of(audio)
        spans = [
            (audio.start_s + s["start"] / RATE, min(audio.start_s + s["end"] / RATE, limit_s))
            for s in found
        ]
        return tuple(piece for low, high in spans for piece in _split(low, high, self._max_chunk_s))

    @cached_property
    def _detector(self) -> ScriptModule:
        """The detector, on the CPU; it is reset before each sound."""
        silero = _import_silero()
        with warnings.catch_warnings():
            # silero ships TorchScript, whose loader torch calls deprecated.
            warnings.filterwarnings("ignore", r".*torch\.jit\.load", DeprecationWarning)
            detector: ScriptModule = silero.load_silero_vad()
        return detector


def _import_silero() -> ModuleType:
    """silero_vad, without its side effect: its import sets one torch thread for the process."""
    import torch

    n_threads = torch.get_num_threads()
    module = import_module("silero_vad")
    torch.set_num_threads(n_threads)
    return module


def _split(low: float, high: float, longest_s: float) -> list[SpeechSegment]:
    """[low, high] in equal pieces of at most `longest_s` seconds."""
    n = max(1, math.ceil((high - low) / longest_s))
    edges = [low + (high - low) * k / n for k in range(n)] + [high]
    return [SpeechSegment(edges[k], edges[k + 1]) for k in range(n)]
