"""`asr.language` is checked by engine before any work is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnitrace_core.asr import load_engine
from omnitrace_core.asr.engines import whisper
from omnitrace_core.asr.engines.languages import check_iso_language, check_language_unset
from omnitrace_core.errors import UnknownName
from omnitrace_core.options import AsrOptions
from tests.core.asr import tiny_speech
from tests.core.asr.speech_sounds import decode_speech

HUB = "openai/whisper-tiny@" + "0" * 40


def whisper_for(model: str, language: str) -> AsrOptions:
    return AsrOptions(engine="whisper", model=model, language=language)


@pytest.mark.parametrize("language", ["en", "EN", "English", "mandarin", "<|zh|>"])
def test_whisper_takes_codes_and_names(tmp_path: Path, language: str) -> None:
    folder = tiny_speech.build_whisper(tmp_path / "model")
    load_engine(whisper_for(folder, language))
    load_engine(whisper_for(HUB, language))


def test_an_error_lists_the_languages_of_the_model(tmp_path: Path) -> None:
    folder = tiny_speech.build_whisper(tmp_path / "model")
    with pytest.raises(UnknownName, match=r"'de': this .*, en \(english\), zh \(chinese\)$"):
        load_engine(whisper_for(folder, "de"))
    load_engine(whisper_for(HUB, "de"))
    with pytest.raises(UnknownName, match=r"'xx': this Whisper takes null .* yue \(canton"):
        load_engine(whisper_for(HUB, "xx"))


def test_a_whisper_of_english_only(tmp_path: Path) -> None:
    settings = {"is_multilingual": False}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    load_engine(whisper_for(str(tmp_path), "en"))
    with pytest.raises(UnknownName, match=r"this Whisper takes null .*, en \(english\)$"):
        load_engine(whisper_for(str(tmp_path), "de"))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_whisper_without_a_generation_config(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    load_engine(whisper_for(str(tmp_path), "de"))


def test_a_whisper_from_the_hub_is_checked_again_when_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(tiny_speech.build_whisper(tmp_path / "model"))
    monkeypatch.setattr(whisper, "model_folder", lambda value: folder)
    engine = load_engine(whisper_for(HUB, "de"))
    with pytest.raises(UnknownName, match=r"asr\.language='de'"):
        engine.segments(*decode_speech())


@pytest.mark.parametrize("language", [None, "en", "zh", "eng", "yue"])
def test_iso_codes(language: str | None) -> None:
    check_iso_language(language)


@pytest.mark.parametrize(
    "language", ["xx", "EN", "english", "en-US", "", "e", "e1g", "\u00e4\u00e4\u00e4"]
)
def test_invalid_iso_codes(language: str) -> None:
    with pytest.raises(UnknownName, match=r"ISO 639-3, such as eng, or .*: aa ab .* zh zu"):
        check_iso_language(language)


def test_engines_check_the_language_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELEVENLABS_API_KEY", "x")
    with pytest.raises(UnknownName, match=r"asr\.language='klingon': scribe takes"):
        load_engine(AsrOptions(engine="scribe", language="klingon"))
    with pytest.raises(UnknownName, match=r"asr\.language='zh': paraformer takes no"):
        load_engine(AsrOptions(engine="paraformer", language="zh"))
    check_language_unset("paraformer", None)
