"""The engine `scribe`: ElevenLabs' speech-to-text service; sounds are sent over the network.

The API key is read from the environment variable ELEVENLABS_API_KEY when the engine is made, and is
kept out of settings, logs and messages. Redirects are not followed, since they would send the key
to another server.
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
from omnitrace_core.asr.engines.sound import decoded_end_s, model_waveform
from omnitrace_core.asr.engines.words import split_sentences, tidy_words
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError, SpeechError, SpeechUnavailable
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.node_faults import as_node_fault, is_node_fault

KEY_VARIABLE = "ELEVENLABS_API_KEY"
_DEFAULT_MODEL = "scribe_v2"
# The key is missing, wrong or out of credit: every other sound would fail, too.
_DENIED = (401, 402, 403)
_BUSY = (408, 425, 429)
FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
# Most characters of the service's own error message that are passed on.
_LONGEST_DETAIL = 200


class Scribe:
    """Sentences with words and their times, from ElevenLabs or a server with the same API."""

    def __init__(self, options: AsrOptions) -> None:
        """Check the language and read the key; nothing is sent.

        Raises:
            BackendError: there is no valid key in the environment, or elevenlabs is not installed.
            UnknownName: the language is not a code of ISO 639.
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
                f"the API key in {KEY_VARIABLE} has characters that no key has; copy it again"
            )
        self._options = options
        self._key = key
        self._client: Any = None

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """One segment per sentence; laughter and other sounds are left out.

        Raises:
            SpeechError: the service refused this sound, or its response cannot be read.
            SpeechUnavailable: the service was busy, failing or unreachable at every attempt.
            BackendError: the service refuses the key, or the key is out of credit.
        """
        name = media_name(part)
        pcm = to_pcm(model_waveform(audio))
        response = self._with_retries(lambda: self._convert(pcm), name)
        words = _words_of(response, audio.start_s, name)
        return split_sentences(tidy_words(words, audio.start_s, decoded_end_s(audio)))

    def _convert(self, pcm: bytes) -> Any:
        if self._client is None:
            self._client = _connect(self._key, self._options)
        return self._client.speech_to_text.convert(
            model_id=self._options.model or _DEFAULT_MODEL,
            file=("sound.pcm", pcm, "application/octet-stream"),
            file_format="pcm_s16le_16",
            timestamps_granularity="word",
            tag_audio_events=False,
            # The response varies as little from call to call as the service allows.
            temperature=0.0,
            seed=0,
            # The SDK (2.78) leaves out the fields of the form when it retries.
            request_options={"max_retries": 0},
            **({"language_code": self._options.language} if self._options.language else {}),
        )

    def _with_retries(self, request: Callable[[], Any], name: str) -> Any:
        """The response to a request, which is sent again while the service is busy or failing.

        Raises: as `segments` does.
        """
        import httpx
        from elevenlabs.core.api_error import ApiError

        attempts = self._options.retries + 1
        problem = ""
        for number in range(attempts):
            wait_s = FIRST_WAIT_S * 2.0**number
            try:
                return request()
            except httpx.TransportError as error:
                if is_node_fault(error):
                    # `from None`, as below.
                    raise as_node_fault(error) from None
                problem = type(error).__name__
            except ApiError as error:
                status = error.status_code or 0
                problem = f"status {status}{self._detail(error.body)}"
                if status in _DENIED:
                    # `from None` keeps what was sent and received out of tracebacks.
                    raise BackendError(
                        f"the speech service refuses the key in {KEY_VARIABLE} ({problem})"
                    ) from None
                if status not in _BUSY and status < 500:
                    raise SpeechError(f"{name}: the speech service answered {problem}") from None
                wait_s = _retry_after_s(error.headers, wait_s)
            except (ValueError, TypeError, AttributeError) as error:
                problem = type(error).__name__
                raise SpeechError(
                    f"{name}: the speech service's response cannot be read ({problem})"
                ) from None
            if number + 1 < attempts:
                time.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise SpeechUnavailable(
            f"{name}: the speech service failed {attempts} times, the last time with {problem}; "
            "run again later, or raise asr.retries"
        )

    def _detail(self, body: object) -> str:
        """The message of an error response, shortened and without the key."""
        detail = body.get("detail") if isinstance(body, dict) else None
        message = detail.get("message") if isinstance(detail, dict) else detail
        if not isinstance(message, str):
            return ""
        return f": {message.replace(self._key, '[key]')[:_LONGEST_DETAIL]}"


def to_pcm(waveform: Float32) -> bytes:
    """16-bit little-endian PCM, clipped to the range of int16.

    The steps work in place, since a sound may be hours long.
    """
    scaled = waveform * np.float32(32_768.0)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32_768, 32_767, out=scaled)
    return scaled.astype("<i2").tobytes()


def _connect(key: str, options: AsrOptions) -> Any:
    """The SDK's client; it is imported here because that takes a second."""
    from elevenlabs.client import ElevenLabs

    return ElevenLabs(
        api_key=key,
        base_url=options.base_url,
        timeout=options.timeout_s,
        follow_redirects=False,
    )


def _retry_after_s(headers: dict[str, str] | None, default_s: float) -> float:
    """The wait in seconds that the service asks for in a Retry-After header."""
    for name, value in (headers or {}).items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return default_s


def _words_of(response: Any, start_s: float, name: str) -> list[Word]:
    """The words of a response, in seconds of the file. Raises: SpeechError."""
    items = getattr(response, "words", None)
    if not isinstance(items, list):
        raise SpeechError(f"{name}: the speech service's response lists no words")
    words: list[Word] = []
    kind: Any
    text: Any
    word_start_s: Any
    word_end_s: Any
    for item in items:
        kind, text, word_start_s, word_end_s = (
            getattr(item, field, None) for field in ("type", "text", "start", "end")
        )
        # Other types: the spaces between words, and sounds such as laughter.
        if isinstance(kind, str) and kind != "word":
            continue
        complete = isinstance(text, str) and all(
            isinstance(time_s, int | float) for time_s in (word_start_s, word_end_s)
        )
        if not complete or not 0 <= word_start_s <= word_end_s < float("inf"):
            raise SpeechError(
                f"{name}: the speech service's response has a word without text or times: "
                f"{text!r}, {word_start_s!r} to {word_end_s!r} s"
            )
        words.append(Word(text, start_s + word_start_s, start_s + word_end_s))
    return words
