"""The engine `paraformer`: FunASR finds speech, transcribes it with word times, punctuates it.

The three models are called one by one. FunASR's own chain of them (1.4) joins the texts of its
stretches before it punctuates, which shifts the times of Chinese by a character per stretch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from omnitrace_core.asr.engines.base import Heard, Sound, only
from omnitrace_core.asr.engines.languages import check_no_language
from omnitrace_core.asr.engines.model_folder import check_model, check_package, model_folder
from omnitrace_core.asr.engines.padding import keep_padding_out_of_paraformer
from omnitrace_core.asr.engines.sound import RATE, Piece, at_rate, cut_pieces
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.asr.engines.vad import VoiceActivity
from omnitrace_core.asr.engines.words import punctuate, spread
from omnitrace_core.errors import BackendError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state

log = logging.getLogger(__name__)

# Stretches that silero finds are cut at this length; FunASR's own detector has its own limit.
_LONGEST_PIECE_S = 30.0
# What FunASR raises on a sound or a file that it cannot make sense of.
_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, NameError, OSError)
# Frontends add random dither by default: the same sound would get other words each time.
_NO_DITHER = {"dither": 0.0}


class _Model(Protocol):
    """The part of funasr.AutoModel that is used."""

    kwargs: dict[str, Any]
    model: Any

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class _Models:
    recogniser: _Model
    detector: _Model | None
    punctuator: _Model | None


class Paraformer:
    """Sentences with words and their times; loads its models with its first sound."""

    def __init__(self, options: AsrOptions) -> None:
        """Check that what is named is there.

        Raises:
            BackendError: funasr is not installed, or a model is neither a directory nor pinned.
            UnknownName: a language is asked for.
        """
        check_no_language("paraformer", options.language)
        check_model("asr.model", options.model, "paraformer")
        for key in ("vad_model", "punc_model"):
            if getattr(options, key) is not None:
                check_model(f"asr.{key}", getattr(options, key), "paraformer")
        check_package("funasr", "paraformer", "paraformer")
        check_package("kaldi_native_fbank", "paraformer", "paraformer")
        self._options = options
        self._silero = VoiceActivity(options.model_copy(update={"max_chunk_s": _LONGEST_PIECE_S}))

    def load(self) -> None:
        """Load the models. Raises: BackendError: one cannot be loaded."""
        self._models()

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Sentences, or without a punctuation model stretches between pauses.

        Raises:
            SpeechError: FunASR failed on this sound.
            BackendError: a model cannot be loaded.
        """
        return only(self.segments_of([Sound(audio, part)]))

    def segments_of(self, sounds: Sequence[Sound]) -> list[Heard]:
        """As `segments`, with stretches of all sounds in common batches.

        Raises:
            BackendError: a model cannot be loaded.
        """
        options = self._options
        recogniser = Recogniser(
            name="paraformer",
            cut=self._cut,
            recognise=lambda waves: _recognise(self._models().recogniser, waves),
            punctuate=lambda words: _punctuated(self._models().punctuator, words),
            faults=_FAULTS,
            batch_s=options.batch_s,
        )
        with preserve_process_state(options.threads, "funasr"):
            return transcribe(sounds, recogniser)

    def _models(self) -> _Models:
        options = self._options
        return _load(
            str(options.model),
            options.vad_model,
            options.punc_model,
            options.device,
            options.threads,
        )

    def _cut(self, sound: Sound) -> list[Piece]:
        """Stretches of speech; FunASR's detector tells them in milliseconds."""
        audio = sound.audio
        if self._options.vad_model is None:
            spoken = self._silero.segments(audio, sound.part)
            return cut_pieces(audio, [(s.start_s, s.end_s) for s in spoken])
        detector = self._models().detector
        assert detector is not None
        (found,) = detector.generate(input=[at_rate(audio).copy()])
        return cut_pieces(
            audio,
            [
                (audio.start_s + low_ms / 1000, audio.start_s + high_ms / 1000)
                for low_ms, high_ms in found["value"]
            ],
        )


def _recognise(recogniser: _Model, waveforms: list[Float32]) -> list[list[Word]]:
    """The words of each stretch, on its own clock."""
    found = recogniser.generate(
        input=waveforms, batch_size=len(waveforms), pred_timestamp=True, fs=RATE
    )
    if len(waveforms) > 1 and len(found) == 1 and not found[0].get("text"):
        # FunASR's answer to a batch in which nothing at all was said.
        return [[] for _ in waveforms]
    return [_words_of(item, len(wave) / RATE) for item, wave in zip(found, waveforms, strict=True)]


def _words_of(result: dict[str, Any], length_s: float) -> list[Word]:
    texts = str(result.get("text", "")).split()
    times = result.get("timestamp") or []
    if len(times) != len(texts):
        # Digits and signs get no time of their own from FunASR.
        return spread(texts, 0.0, length_s)
    return [
        Word(text, low_ms / 1000, high_ms / 1000)
        for text, (low_ms, high_ms) in zip(texts, times, strict=True)
    ]


def _punctuated(punctuator: _Model | None, words: list[Word]) -> list[Word]:
    if punctuator is None or not words:
        return words
    texts = [word.text for word in words]
    # The space: FunASR opens a text that is the name of a file.
    (result,) = punctuator.generate(input=[" " + " ".join(texts)])
    marked = punctuate(texts, str(result["text"]).replace("<unk>", ""))
    if marked is None:
        log.warning("asr.punc_model changed the words of a transcript, which is left bare")
        return words
    return [Word(text, w.start_s, w.end_s) for text, w in zip(marked, words, strict=True)]


@lru_cache(maxsize=1)
def _load(
    model: str, vad_model: str | None, punc_model: str | None, device: str, threads: int
) -> _Models:
    """The models of this process. Raises: BackendError."""
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
    # FunASR goes on with random weights where there are none.
    if not (folder / "model.pt").is_file():
        raise BackendError(f"{key}={value!r} has no model.pt; copy the whole model")
    with preserve_process_state(threads, "funasr") as printed:
        try:
            loaded = _auto_model(folder, device, threads, settings)
        except _FAULTS as error:
            raise BackendError(
                f"{key}={value!r} cannot be loaded by FunASR ({error!r}); give a directory with "
                "config.yaml, model.pt and the files they name"
            ) from error
    if "miss key" in printed.getvalue():
        log.warning("%s=%r: model.pt lacks weights:\n%s", key, value, printed.getvalue())
    return loaded


def _auto_model(folder: Path, device: str, threads: int, settings: dict[str, Any]) -> _Model:
    from omnitrace_core.runtime.devices import choose_device
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    # funasr imports transformers' processors, and them torchvision.
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
