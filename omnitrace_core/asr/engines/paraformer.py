"""The engine `paraformer`: FunASR finds speech, transcribes it with word times and punctuates it.

The three models are called one after the other. FunASR's own pipeline of them (1.4) joins the texts
of all clips before it punctuates, which shifts the times of Chinese by a character per clip.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from omnitrace_core.asr.engines.base import PartAudio, SpeechResult, only_result
from omnitrace_core.asr.engines.languages import check_language_unset
from omnitrace_core.asr.engines.model_folder import check_model, check_package, model_folder
from omnitrace_core.asr.engines.padding import keep_padding_out_of_paraformer
from omnitrace_core.asr.engines.sound import MODEL_RATE, SoundClip, cut_clips, model_waveform
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.asr.engines.vad import VoiceActivity
from omnitrace_core.asr.engines.words import copy_punctuation, estimate_times
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError
from omnitrace_core.options import AsrOptions
from omnitrace_core.printable import printable_message
from omnitrace_core.records import Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state

log = logging.getLogger(__name__)

# Longest clip that silero-vad finds; FunASR's detector has a limit in its own config.
_LONGEST_CLIP_S = 30.0
# Exceptions of FunASR for a sound or a file that it cannot process.
_INPUT_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    NameError,
    OSError,
)
# Frontends add random noise (dither) by default, which makes the words of a sound random.
_NO_DITHER = {"dither": 0.0}


class _Model(Protocol):
    """The attributes of funasr.AutoModel that are used here."""

    kwargs: dict[str, Any]
    model: Any

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class _Models:
    """A recogniser of words, a detector of speech, and a model that punctuates."""

    recogniser: _Model
    detector: _Model | None
    punctuator: _Model | None


class Paraformer:
    """Sentences with words and their times; loads its models at its first sound."""

    def __init__(self, options: AsrOptions) -> None:
        """Check packages, models and language; nothing is loaded.

        Raises:
            BackendError: funasr or kaldi_native_fbank is not installed, or a model is neither a
                directory nor a pinned hub id.
            UnknownName: a language is set.
        """
        check_language_unset("paraformer", options.language)
        check_model("asr.model", options.model, "paraformer")
        for key in ("vad_model", "punc_model"):
            if getattr(options, key) is not None:
                check_model(f"asr.{key}", getattr(options, key), "paraformer")
        check_package("funasr", "paraformer", "paraformer")
        check_package("kaldi_native_fbank", "paraformer", "paraformer")
        self._options = options
        self._silero = VoiceActivity(options.model_copy(update={"max_chunk_s": _LONGEST_CLIP_S}))

    def load(self) -> None:
        """Load the models.

        Raises:
            BackendError: a model cannot be loaded.
        """
        self._models()

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """One segment per sentence, or between pauses if there is no punctuation model.

        Raises:
            SpeechError: FunASR failed on this sound.
            BackendError: a model cannot be loaded.
        """
        return only_result(self.segments_of([PartAudio(audio, part)]))

    def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
        """As `segments`; clips of different sounds share batches.

        Raises:
            BackendError: a model cannot be loaded.
        """
        options = self._options
        recogniser = Recogniser(
            name="paraformer",
            cut=self._cut,
            recognise=lambda waves: recognise(self._models().recogniser, waves),
            punctuate=lambda words: punctuate(self._models().punctuator, words),
            input_errors=_INPUT_ERRORS,
            batch_s=options.batch_s,
        )
        with preserve_process_state(options.threads, "funasr"):
            return transcribe(sounds, recogniser)

    def _models(self) -> _Models:
        options = self._options
        return load_models(
            str(options.model),
            options.vad_model,
            options.punc_model,
            options.device,
            options.threads,
        )

    def _cut(self, sound: PartAudio) -> list[SoundClip]:
        audio = sound.audio
        if self._options.vad_model is None:
            speech = self._silero.segments(audio, sound.part)
            return cut_clips(audio, [(s.start_s, s.end_s) for s in speech])
        detector = self._models().detector
        assert detector is not None
        # A copy, because FunASR writes into its input. Times are in milliseconds from its start.
        (found,) = detector.generate(input=[model_waveform(audio).copy()])
        intervals = [
            (audio.start_s + start_ms / 1000, audio.start_s + end_ms / 1000)
            for start_ms, end_ms in found["value"]
        ]
        return cut_clips(audio, intervals)


def recognise(recogniser: _Model, waveforms: list[Float32]) -> list[list[Word]]:
    """The words of each clip, with times from its start.

    waveforms: [n_samples] float32 each, at 16 kHz.
    """
    results = recogniser.generate(
        input=waveforms, batch_size=len(waveforms), pred_timestamp=True, fs=MODEL_RATE
    )
    if len(waveforms) > 1 and len(results) == 1 and not results[0].get("text"):
        # FunASR returns a single empty result for a batch without any words.
        return [[] for _ in waveforms]
    return [
        to_words(result, len(wave) / MODEL_RATE)
        for result, wave in zip(results, waveforms, strict=True)
    ]


def to_words(result: dict[str, Any], length_s: float) -> list[Word]:
    """The words of FunASR's result for a clip of `length_s` seconds."""
    texts = str(result.get("text", "")).split()
    times = result.get("timestamp") or []
    if len(times) != len(texts):
        # FunASR returns no times for digits and signs.
        return estimate_times(texts, 0.0, length_s)
    return [
        Word(text, start_ms / 1000, end_ms / 1000)
        for text, (start_ms, end_ms) in zip(texts, times, strict=True)
    ]


def punctuate(punctuator: _Model | None, words: list[Word]) -> list[Word]:
    """The words of a sound with punctuation; unchanged without a punctuation model."""
    if punctuator is None or not words:
        return words
    texts = [word.text for word in words]
    # The space prevents that FunASR takes the text for the name of a file and opens that.
    (result,) = punctuator.generate(input=[" " + " ".join(texts)])
    punctuated = copy_punctuation(texts, str(result["text"]).replace("<unk>", ""))
    if punctuated is None:
        log.warning("asr.punc_model changed the words of a transcript; it stays unpunctuated")
        return words
    return [Word(text, w.start_s, w.end_s) for text, w in zip(punctuated, words, strict=True)]


@lru_cache(maxsize=1)
def load_models(
    model: str, vad_model: str | None, punc_model: str | None, device: str, threads: int
) -> _Models:
    """The models, loaded once per process. Raises: BackendError."""
    return _Models(
        recogniser=_load_one("asr.model", model, device, threads, frontend_conf=_NO_DITHER),
        detector=None
        if vad_model is None
        else _load_one("asr.vad_model", vad_model, device, threads, frontend_conf=_NO_DITHER),
        punctuator=None
        if punc_model is None
        else _load_one("asr.punc_model", punc_model, device, threads),
    )


def _load_one(key: str, value: str, device: str, threads: int, **settings: Any) -> _Model:
    folder = model_folder(value)
    # Without this file, FunASR goes on with random weights.
    if not (folder / "model.pt").is_file():
        raise BackendError(f"{key}={value!r} has no model.pt; copy the whole model")
    with preserve_process_state(threads, "funasr") as printed:
        try:
            loaded = _auto_model(folder, device, threads, settings)
        except _INPUT_ERRORS as error:
            raise BackendError(
                f"{key}={value!r} cannot be loaded by FunASR ({error!r}); give a directory with "
                "config.yaml, model.pt and the files they name"
            ) from error
    if "miss key" in printed.getvalue():
        missing = printable_message(printed.getvalue())
        log.warning("%s=%r: model.pt lacks weights:\n  %s", key, value, missing)
    return loaded


def _auto_model(folder: Path, device: str, threads: int, settings: dict[str, Any]) -> _Model:
    from omnitrace_core.runtime.devices import choose_device
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    # funasr imports transformers' processors, which import torchvision.
    enable_transformers_vision()
    from funasr import AutoModel

    loaded: _Model = AutoModel(
        model=str(folder),
        device=choose_device(device),
        ncpu=threads,
        disable_update=True,
        disable_pbar=True,
        ignore_init_mismatch=False,
        **settings,
    )
    keep_padding_out_of_paraformer(loaded.model)
    return loaded
