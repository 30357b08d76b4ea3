"""The engine `whisper`: transformers' pipeline on stretches that silero-vad finds.

Whisper makes up words where nobody speaks and knows 30 s at a time: it is given speech alone, in
stretches that fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from omnitrace_core.asr.engines.base import Heard, Sound, only
from omnitrace_core.asr.engines.languages import check_whisper_language, whisper_settings
from omnitrace_core.asr.engines.model_folder import check_model, model_folder
from omnitrace_core.asr.engines.padding import keep_padding_out_of_whisper
from omnitrace_core.asr.engines.sound import RATE, Piece, cut_pieces
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.asr.engines.vad import VoiceActivity
from omnitrace_core.errors import BackendError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state

# What Whisper hears at a time, less a margin for the detector's own padding.
_WINDOW_S = 30.0
_LONGEST_PIECE_S = 28.0


class Whisper:
    """Sentences with words and their times; loads its model with its first sound."""

    def __init__(self, options: AsrOptions) -> None:
        """Check that what is named is there.

        Raises:
            BackendError: the model is neither a directory nor pinned.
            UnknownName: the language is none that it has a token for.
        """
        model = check_model("asr.model", options.model, "whisper")
        check_whisper_language(options.language, whisper_settings(model))
        self._options = options
        self._silero = VoiceActivity(options.model_copy(update={"max_chunk_s": _LONGEST_PIECE_S}))

    def load(self) -> None:
        """Load the model.

        Raises:
            BackendError: it cannot be loaded.
            UnknownName: it does not know the language.
        """
        self._model()

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Sentences, or stretches between pauses where nothing is punctuated.

        Raises:
            SpeechError: the model failed on this sound.
            BackendError: the model cannot be loaded.
        """
        return only(self.segments_of([Sound(audio, part)]))

    def segments_of(self, sounds: Sequence[Sound]) -> list[Heard]:
        """As `segments`, with stretches of all sounds in common batches.

        Raises:
            BackendError: the model cannot be loaded.
        """
        options = self._options
        recogniser = Recogniser(
            name="whisper",
            cut=self._cut,
            recognise=self._recognise,
            punctuate=lambda words: words,
            faults=(RuntimeError, ValueError, TypeError, LookupError),
            batch_s=options.batch_s,
            window_s=_WINDOW_S,
        )
        with preserve_process_state(options.threads, "transformers"):
            return transcribe(sounds, recogniser)

    def _cut(self, sound: Sound) -> list[Piece]:
        spoken = self._silero.segments(sound.audio, sound.part)
        return cut_pieces(sound.audio, [(s.start_s, s.end_s) for s in spoken])

    def _recognise(self, waveforms: list[Float32]) -> list[list[Word]]:
        return _recognise(self._model(), self._options.language, waveforms)

    def _model(self) -> Any:
        options = self._options
        model = _load(str(options.model), options.device, options.threads)
        # Once more for a model from the hub, whose files were not here before.
        check_whisper_language(options.language, vars(model.model.generation_config))
        return model


def _recognise(
    model: Callable[..., Any], language: str | None, waveforms: list[Float32]
) -> list[list[Word]]:
    """The words of each stretch, on its own clock."""
    inputs = [{"raw": wave, "sampling_rate": RATE} for wave in waveforms]
    told: dict[str, str] = {}
    if _multilingual(model):
        told = {"task": "transcribe", **({"language": language} if language else {})}
    # Every stretch is padded to the whole window.
    found = model(inputs, return_timestamps="word", batch_size=len(inputs), generate_kwargs=told)
    return [
        [_word(item, len(wave) / RATE) for item in result["chunks"]]
        for result, wave in zip(found, waveforms, strict=True)
    ]


def _word(item: dict[str, Any], length_s: float) -> Word:
    start_s, end_s = item["timestamp"]
    # The last word of a stretch may have no end.
    return Word(item["text"], start_s or 0.0, length_s if end_s is None else end_s)


def _multilingual(model: Any) -> bool:
    return bool(getattr(model.model.generation_config, "is_multilingual", False))


@lru_cache(maxsize=1)
def _load(value: str, device: str, threads: int) -> Any:
    """The pipeline of this process. Raises: BackendError."""
    from omnitrace_core.runtime.devices import choose_device, choose_dtype, hide_progress
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    enable_transformers_vision()
    import transformers

    hide_progress()
    folder = model_folder(value)
    device = choose_device(device)
    with preserve_process_state(threads, "transformers"):
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
    keep_padding_out_of_whisper(loaded.model)
    return loaded
