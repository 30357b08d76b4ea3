"""The engine `scribe`: ElevenLabs' speech to text over the network; the sound leaves this machine.

The API key is read from the environment variable ELEVENLABS_API_KEY when the engine is made, and is
kept out of settings, logs and messages. Redirects are not followed: they would carry it elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from omnitrace_core.addresses import media_name
from omnitrace_core.asr.engines.languages import check_iso_language
from omnitrace_core.asr.engines.model_folder import check_package
from omnitrace_core.asr.engines.sound import at_rate, end_of
from omnitrace_core.asr.engines.words import sentences, tidy_words
from omnitrace_core.errors import BackendError, SpeechError, SpeechUnavailable
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Float32, Part, SpeechSegment, Word

KEY_VARIABLE = "ELEVENLABS_API_KEY"
_DEFAULT_MODEL = "scribe_v2"
# No key, not this key, or nobody who pays: no other sound would fare better.
_DENIED = (401, 402, 403)
_BUSY = (408, 425, 429)
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_LONGEST_DETAIL = 200


class Scribe:
    """Sentences with words and their times, from ElevenLabs or a server that speaks its API."""

    def __init__(self, options: AsrOptions) -> None:
        """Read the key; nothing is sent.

        Raises:
            BackendError: no usable key in the environment, or elevenlabs is not installed.
            UnknownName: the language is no code of ISO 639.
        """
        check_iso_language(options.language)
        check_package("elevenlabs", "scribe", "scribe")
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key:
            raise BackendError(
                f"asr.engine=scribe needs an API key in the environment variable {KEY_VARIABLE} "
                "of every process that chunks audio"
            )
        if not key.isascii() or not key.isprintable():
            raise BackendError(
                f"the API key in {KEY_VARIABLE} has characters that no key has; copy it once more"
            )
        self._options = options
        self._key = key
        self._client: Any = None

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Sentences; laughter and the like are no words.

        Raises:
            SpeechError: the service refused this sound, or its answer makes no sense.
            SpeechUnavailable: it was busy, out of order or out of reach, each time.
            BackendError: it refuses the key, or what the key has left to spend.
        """
        name = media_name(part)
        pcm = _as_pcm(at_rate(audio))
        answer = self._asked(lambda: self._convert(pcm), name)
        words = _words_of(answer, audio.start_s, name)
        return sentences(tidy_words(words, audio.start_s, end_of(audio)))

    def _convert(self, pcm: bytes) -> Any:
        if self._client is None:
            self._client = _connect(self._key, self._options)
        return self._client.speech_to_text.convert(
            model_id=self._options.model or _DEFAULT_MODEL,
            file=("sound.pcm", pcm, "application/octet-stream"),
            file_format="pcm_s16le_16",
            timestamps_granularity="word",
            tag_audio_events=False,
            # As nearly the same answer each time as the service can give.
            temperature=0.0,
            seed=0,
            # The SDK (2.78) forgets the form's fields when it tries again by itself.
            request_options={"max_retries": 0},
            **({"language_code": self._options.language} if self._options.language else {}),
        )

    def _asked(self, ask: Callable[[], Any], name: str) -> Any:
        """What the service answers, asked again while it is busy. Raises: as `segments` does."""
        import httpx
        from elevenlabs.core.api_error import ApiError

        tries = self._options.retries + 1
        problem = ""
        for number in range(tries):
            wait_s = _FIRST_WAIT_S * 2.0**number
            try:
                return ask()
            except httpx.TransportError as error:
                problem = type(error).__name__
            except ApiError as error:
                status = error.status_code or 0
                problem = f"status {status}{self._detail(error.body)}"
                if status in _DENIED:
                    # `from None`: what was sent and received stays out of tracebacks.
                    raise BackendError(
                        f"the speech service refuses the key in {KEY_VARIABLE} ({problem})"
                    ) from None
                if status not in _BUSY and status < 500:
                    raise SpeechError(f"{name}: the speech service answered {problem}") from None
                wait_s = _asked_wait(error.headers, wait_s)
            except (ValueError, TypeError, AttributeError) as error:
                problem = type(error).__name__
                raise SpeechError(
                    f"{name}: the speech service's answer cannot be read ({problem})"
                ) from None
            if number + 1 < tries:
                time.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise SpeechUnavailable(
            f"{name}: the speech service failed {tries} times, at last with {problem}; run again "
            "later, or raise asr.retries"
        )

    def _detail(self, body: object) -> str:
        """What an error says of itself, short and without the key."""
        detail = body.get("detail") if isinstance(body, dict) else None
        message = detail.get("message") if isinstance(detail, dict) else detail
        if not isinstance(message, str):
            return ""
        return f": {message.replace(self._key, '[key]')[:_LONGEST_DETAIL]}"


def _as_pcm(waveform: Float32) -> bytes:
    """16 bits a sample, clipped; one copy at a time, for there may be hours."""
    scaled = waveform * np.float32(32_768.0)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32_768, 32_767, out=scaled)
    return scaled.astype("<i2").tobytes()


def _connect(key: str, options: AsrOptions) -> Any:
    """The SDK's client. Its import costs a second."""
    from elevenlabs.client import ElevenLabs

    return ElevenLabs(
        api_key=key,
        base_url=options.base_url,
        timeout=options.timeout_s,
        follow_redirects=False,
    )


def _asked_wait(headers: dict[str, str] | None, otherwise_s: float) -> float:
    """The seconds that the service asks us to wait."""
    for name, value in (headers or {}).items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return otherwise_s


def _words_of(answer: Any, start_s: float, name: str) -> list[Word]:
    """Words on the clock of the file. Raises: SpeechError."""
    items = getattr(answer, "words", None)
    if not isinstance(items, list):
        raise SpeechError(f"{name}: the speech service's answer lists no words")
    words: list[Word] = []
    kind: Any
    text: Any
    low: Any
    high: Any
    for item in items:
        kind, text, low, high = (
            getattr(item, field, None) for field in ("type", "text", "start", "end")
        )
        # Spaces between words, laughter and the like.
        if isinstance(kind, str) and kind != "word":
            continue
        known = isinstance(text, str) and all(isinstance(at, int | float) for at in (low, high))
        if not known or not 0 <= low <= high < float("inf"):
            raise SpeechError(
                f"{name}: the speech service's answer has a word without text or times: "
                f"{text!r}, {low!r} to {high!r} s"
            )
        words.append(Word(text, start_s + low, start_s + high))
    return words
