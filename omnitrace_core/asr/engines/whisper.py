"""The engine `whisper`: transformers' pipeline on windows of the speech that silero-vad finds.

Whisper pads each clip to 30 s, and understands a sentence better if it hears what comes before and
after it: so neighbouring stretches of speech share a window. It invents words where nobody speaks:
so a window ends with its speech, and words far from all detected speech are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from omnitrace_core.asr.engines.base import PartAudio, SpeechResult, only_result
from omnitrace_core.asr.engines.languages import check_whisper_language, read_generation_config
from omnitrace_core.asr.engines.model_folder import check_model, model_folder
from omnitrace_core.asr.engines.padding import keep_padding_out_of_whisper
from omnitrace_core.asr.engines.sound import MODEL_RATE, SoundClip
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.asr.engines.vad import VoiceActivity
from omnitrace_core.asr.engines.windows import cut_windows
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError
from omnitrace_core.options import DAY_S, AsrOptions
from omnitrace_core.records import Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state

# Whisper pads each clip to this length.
_WINDOW_S = 30.0
# Longer windows may lose their end: Whisper is trained to leave what may go on after its 30 s.
_LONGEST_WINDOW_S = 28.0


class Whisper:
    """Sentences with words and their times; loads its model at its first sound."""

    def __init__(self, options: AsrOptions) -> None:
        """Check the model and the language; nothing is loaded.

        Raises:
            BackendError: the model is neither a directory nor a pinned hub id.
            UnknownName: the model has no token for the language.
        """
        model = check_model("asr.model", options.model, "whisper")
        check_whisper_language(options.language, read_generation_config(model))
        self._options = options
        self._silero = VoiceActivity(options.model_copy(update={"max_chunk_s": DAY_S}))

    def load(self) -> None:
        """Load the model.

        Raises:
            BackendError: the model cannot be loaded.
            UnknownName: the model has no token for the language.
        """
        self._model()

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """One segment per sentence, or between pauses if no word has punctuation.

        Raises:
            SpeechError: the model failed on this sound.
            BackendError: the model cannot be loaded.
        """
        return only_result(self.segments_of([PartAudio(audio, part)]))

    def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
        """As `segments`; clips of different sounds share batches.

        Raises:
            BackendError: the model cannot be loaded.
        """
        options = self._options
        recogniser = Recogniser(
            name="whisper",
            cut=self._cut,
            recognise=self._recognise,
            punctuate=lambda words: words,
            input_errors=(RuntimeError, ValueError, TypeError, LookupError),
            batch_s=options.batch_s,
            window_s=_WINDOW_S,
        )
        with preserve_process_state(options.threads, "transformers"):
            return transcribe(sounds, recogniser)

    def _cut(self, sound: PartAudio) -> list[SoundClip]:
        speech = self._silero.segments(sound.audio, sound.part)
        intervals = [(segment.start_s, segment.end_s) for segment in speech]
        return cut_windows(sound.audio, intervals, _LONGEST_WINDOW_S)

    def _recognise(self, waveforms: list[Float32]) -> list[list[Word]]:
        return recognise(self._model(), self._options.language, waveforms)

    def _model(self) -> Any:
        options = self._options
        model = load_pipeline(str(options.model), options.device, options.threads)
        # Checked again, since the files of a hub model were not here when the engine was made.
        check_whisper_language(options.language, vars(model.model.generation_config))
        return model


def recognise(
    model: Callable[..., Any], language: str | None, waveforms: list[Float32]
) -> list[list[Word]]:
    """The words of each clip, with times from its start."""
    inputs = [{"raw": wave, "sampling_rate": MODEL_RATE} for wave in waveforms]
    options: dict[str, str] = {}
    # A model of English only refuses both options.
    if _multilingual(model):
        options = {"task": "transcribe", **({"language": language} if language else {})}
    outputs = model(
        inputs, return_timestamps="word", batch_size=len(inputs), generate_kwargs=options
    )
    return [
        [to_word(item, len(wave) / MODEL_RATE) for item in output["chunks"]]
        for output, wave in zip(outputs, waveforms, strict=True)
    ]


def to_word(item: dict[str, Any], length_s: float) -> Word:
    start_s, end_s = item["timestamp"]
    # The last word of a clip may have no end.
    return Word(item["text"], start_s or 0.0, length_s if end_s is None else end_s)


def _multilingual(model: Any) -> bool:
    return bool(getattr(model.model.generation_config, "is_multilingual", False))


@lru_cache(maxsize=1)
def load_pipeline(value: str, device: str, threads: int) -> Any:
    """The pipeline, loaded once per process. Raises: BackendError."""
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
            f"asr.model={value!r} has no word times: its generation_config.json names no "
            "alignment_heads; take the file of the model's publisher"
        )
    keep_padding_out_of_whisper(loaded.model)
    return loaded
