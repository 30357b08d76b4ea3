"""The engine `whisper`: transformers' pipeline on stretches that silero-vad finds.

Whisper makes up words where nobody speaks and knows 30 s at a time: it is given speech alone, in
stretches that fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from omnitrace_core.asr.base import as_speech_error
from omnitrace_core.asr.model_folder import check_model, model_folder
from omnitrace_core.asr.pieces import cut_pieces, transcribe
from omnitrace_core.asr.process_state import kept_process
from omnitrace_core.asr.sound import RATE, end_of
from omnitrace_core.asr.vad import VoiceActivity
from omnitrace_core.asr.words import sentences, tidy_words
from omnitrace_core.errors import BackendError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Float32, Part, Segment, Word

# What Whisper hears at a time, less a margin for the detector's own padding.
_WINDOW_S = 30.0
_LONGEST_PIECE_S = 28.0


class Whisper:
    """Sentences with words and their times; loads its model with its first sound."""

    def __init__(self, options: AsrOptions) -> None:
        """Check that what is named is there.

        Raises:
            BackendError: the model is neither a directory nor pinned.
        """
        check_model("asr.model", options.model, "whisper")
        self._options = options
        self._silero = VoiceActivity(options.model_copy(update={"max_chunk_s": _LONGEST_PIECE_S}))

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[Segment, ...]:
        """Sentences, or stretches between pauses where nothing is punctuated.

        Raises:
            SpeechError: the model failed on this sound.
            BackendError: the model cannot be loaded.
        """
        options = self._options
        intervals = [(s.start_s, s.end_s) for s in self._silero.segments(audio, part)]
        pieces = cut_pieces(audio, intervals)
        if not pieces:
            return ()
        model = _load(str(options.model), options.device, options.threads)
        # Every stretch is padded to the whole window.
        batch_size = max(1, int(options.batch_s / _WINDOW_S))
        hear = partial(_recognise, model, options.language, batch_size)
        try:
            with kept_process(options.threads, "transformers"):
                words = transcribe(pieces, hear, batch_s=float("inf"))
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            raise as_speech_error("whisper", part, error) from error
        return sentences(tidy_words(words, audio.start_s, end_of(audio)))


def _recognise(
    model: Callable[..., Any], language: str | None, batch_size: int, waveforms: list[Float32]
) -> list[list[Word]]:
    """The words of each stretch, on its own clock."""
    inputs = [{"raw": wave, "sampling_rate": RATE} for wave in waveforms]
    told: dict[str, str] = {}
    if _multilingual(model):
        told = {"task": "transcribe", **({"language": language} if language else {})}
    found = model(inputs, return_timestamps="word", batch_size=batch_size, generate_kwargs=told)
    return [
        [_word(item, len(wave) / RATE) for item in result["chunks"]]
        for result, wave in zip(found, waveforms, strict=True)
    ]


def _word(item: dict[str, Any], length_s: float) -> Word:
    start_s, end_s = item["timestamp"]
    # The last word of a stretch may have no end.
    return Word(item["text"], start_s or 0.0, length_s if end_s is None else min(end_s, length_s))


def _multilingual(model: Any) -> bool:
    return bool(getattr(model.model.generation_config, "is_multilingual", False))


@lru_cache(maxsize=1)
def _load(value: str, device: str, threads: int) -> Any:
    """The pipeline of this process. Raises: BackendError."""
    from omnitrace_core.backends.loading import choose_device, choose_dtype, hide_progress
    from omnitrace_core.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import transformers

    hide_progress()
    folder = model_folder(value)
    device = choose_device(device)
    with kept_process(threads, "transformers"):
        try:
            loaded = transformers.pipeline(
                "automatic-speech-recognition",
                model=str(folder),
                device=device,
                dtype=choose_dtype("auto", device),
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BackendError(
                f"asr.model={value!r} cannot be loaded as Whisper ({error}); give a directory or "
                "hub-id@commit with safetensors weights and its processor"
            ) from error
    if not getattr(loaded.model.generation_config, "alignment_heads", None):
        raise BackendError(
            f"asr.model={value!r} cannot say when words are spoken: its generation_config.json "
            "names no alignment_heads; take the file of the model's publisher"
        )
    return loaded
