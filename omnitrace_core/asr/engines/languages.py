"""Check `asr.language` by engine, before any work is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omnitrace_core.errors import UnknownName

# ISO 639-1 gets no new codes. ISO 639-3 has 7,900 codes of three letters: which of them are valid
# is left to the service, which knows about a hundred.
_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs
cu cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha
he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn
ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb
nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd
se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw
ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""


def check_language_unset(engine: str, language: str | None) -> None:
    """Check that no language is set, for an engine that takes none.

    Raises:
        UnknownName: a language is set.
    """
    if language is not None:
        raise UnknownName(
            f"asr.language={language!r}: {engine} takes no language, it transcribes those that its "
            "model was trained on; set asr.language=null and choose asr.model by language"
        )


def check_iso_language(language: str | None) -> None:
    """Check that a language is a code of ISO 639-1, or has the form of a code of ISO 639-3.

    Raises:
        UnknownName: it is neither.
    """
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
    """Check that a Whisper model has a token for a language, given by code or English name.

    settings: the model's generation_config.json; if it is empty, Whisper's own table is used.

    Raises:
        UnknownName: the model has no token for it, or transcribes English only.
    """
    if language is None:
        return
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    enable_transformers_vision()
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    name = language.lower()
    code = TO_LANGUAGE_CODE.get(name, name).strip("<|>")
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


def read_generation_config(model: str) -> Mapping[str, Any]:
    """A local model's generation_config.json; empty for a hub id, or if there is no such file."""
    try:
        settings = json.loads((Path(model) / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Loading the model reports what is wrong with it.
        return {}
    return settings if isinstance(settings, dict) else {}
