"""Which languages `asr.language` may name, by engine; an unknown one is found before any work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omnitrace_core.errors import UnknownName

# ISO 639-1 is closed. The three letters of ISO 639-3 name 7,900 languages and are left to the
# service, which knows about a hundred of them.
_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs
cu cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha
he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn
ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb
nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd
se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw
ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""


def check_no_language(engine: str, language: str | None) -> None:
    """For an engine whose model knows its languages by itself. Raises: UnknownName."""
    if language is not None:
        raise UnknownName(
            f"asr.language={language!r}: {engine} hears the languages that its model was trained "
            "on, and cannot be told one; leave asr.language=null and choose asr.model by language"
        )


def check_iso_language(language: str | None) -> None:
    """A code of ISO 639-1, or one in the form of ISO 639-3. Raises: UnknownName."""
    two_letters = _ISO_639_1.split()
    if language is None or language in two_letters:
        return
    if len(language) == 3 and language.isascii() and language.isalpha() and language.islower():
        return
    raise UnknownName(
        f"asr.language={language!r}: scribe takes null (it detects the language), three letters of "
        f"ISO 639-3, such as eng, or two of ISO 639-1: {' '.join(two_letters)}"
    )


def check_whisper_language(language: str | None, settings: Mapping[str, Any]) -> None:
    """A language that a Whisper model has a token for, by code or English name.

    settings: of the model's generation_config.json; an empty one stands for Whisper's own table.

    Raises:
        UnknownName: it has none, or is a model of English alone.
    """
    if language is None:
        return
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    enable_transformers_vision()
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    told = language.lower()
    code = TO_LANGUAGE_CODE.get(told, told).strip("<|>")
    if settings.get("is_multilingual", True) is False:
        known: Iterable[str] = ("en",)
    else:
        known = (token.strip("<|>") for token in settings.get("lang_to_id") or LANGUAGES)
    valid = sorted(known)
    if code not in valid:
        names = ", ".join(
            f"{item} ({LANGUAGES[item]})" if item in LANGUAGES else item for item in valid
        )
        raise UnknownName(
            f"asr.language={language!r}: this Whisper takes null (it detects the language), {names}"
        )


def whisper_settings(model: str) -> Mapping[str, Any]:
    """What a local model's generation_config.json says; empty for a hub id, or without the file."""
    try:
        told = json.loads((Path(model) / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Whether the model can be loaded is not asked here.
        return {}
    return told if isinstance(told, dict) else {}
