"""The engine scribe: ElevenLabs' SDK against a fake service on this machine."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from pydantic import ValidationError

from omnitrace_core.asr import load_engine
from omnitrace_core.asr.engines import scribe
from omnitrace_core.errors import BackendError, SpeechError, SpeechUnavailable
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import SpeechSegment, Word
from tests.core.asr.speech_sounds import decode_speech

pytest.importorskip("elevenlabs", reason="needs the extra scribe")

KEY = "sk_very_secret_0123456789"


def word(text: str, start: float, end: float, kind: str = "word") -> dict[str, object]:
    return {"text": text, "start": start, "end": end, "type": kind, "logprob": -0.1}


RESPONSE: dict[str, object] = {
    "language_code": "eng",
    "language_probability": 0.99,
    "text": "The angel. (laughter) A man",
    "words": [
        word("The", 1.0, 1.2),
        word(" ", 1.2, 1.3, "spacing"),
        word("angel.", 1.3, 2.0),
        word("(laughter)", 2.1, 3.0, "audio_event"),
        word("A", 6.1, 6.2),
        word("man", 6.3, 6.6),
    ],
}


@dataclass
class Service:
    """A fake speech service: its responses in order (the last one repeats), and its requests."""

    responses: list[tuple[int, object]] = field(default_factory=lambda: [(200, RESPONSE)])
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, bytes]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            form = BytesParser(policy=policy.HTTP).parsebytes(head + body)
            service.keys.append(self.headers["xi-api-key"])
            fields = {"path": self.path.encode()}
            for part in form.iter_parts():
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                fields[str(part.get_param("name", header="content-disposition"))] = content
            service.requests.append(fields)
            status, response = service.responses[
                min(len(service.requests), len(service.responses)) - 1
            ]
            content = response if isinstance(response, bytes) else json.dumps(response).encode()
            self.send_response(status)
            for name, value in service.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv(scribe.KEY_VARIABLE, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(scribe, "FIRST_WAIT_S", 0.01)
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


def segments_from(
    service: Service, *, audio_start: float | None = None, **settings: object
) -> tuple[SpeechSegment, ...]:
    options = {"engine": "scribe", "base_url": service.url, "retries": 2, **settings}
    engine = load_engine(AsrOptions.model_validate(options))
    return engine.segments(*decode_speech(audio_start=audio_start))


def test_sentences_and_words(service: Service) -> None:
    segments = segments_from(service, language="en")
    assert segments == (
        SpeechSegment(1.0, 2.0, "The angel.", (Word("The", 1.0, 1.2), Word("angel.", 1.3, 2.0))),
        SpeechSegment(6.1, 6.6, "A man", (Word("A", 6.1, 6.2), Word("man", 6.3, 6.6))),
    )
    (request,) = service.requests
    assert request["path"] == b"/v1/speech-to-text"
    assert service.keys == [KEY]
    fields = {name: request[name] for name in ("model_id", "file_format", "language_code")}
    assert fields == {
        "model_id": b"scribe_v2",
        "file_format": b"pcm_s16le_16",
        "language_code": b"en",
    }
    assert request["timestamps_granularity"] == b"word"
    sound = np.frombuffer(request["file"], "<i2").astype(np.float32) / 32_768
    np.testing.assert_allclose(sound, decode_speech()[0].waveform, atol=1 / 32_768)


def test_loud_sounds_are_clipped() -> None:
    waveform = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
    waveform.setflags(write=False)
    sent = np.frombuffer(scribe.to_pcm(waveform), "<i2")
    assert sent.tolist() == [-32_768, -32_768, 0, 16_384, 32_767, 32_767]


def test_times_are_seconds_of_the_file(service: Service) -> None:
    segments = segments_from(service, audio_start=3.0)
    assert [s.start_s for s in segments] == [4.0, 9.1]


def test_a_response_without_words_gives_no_segments(service: Service) -> None:
    service.responses = [(200, {**RESPONSE, "words": [word("(music)", 0.0, 5.0, "audio_event")]})]
    assert segments_from(service) == ()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_to_a_busy_service_is_sent_again_unchanged(service: Service, status: int) -> None:
    service.responses = [(status, {"detail": "busy"}), (200, RESPONSE)]
    assert len(segments_from(service)) == 2
    first, again = service.requests
    assert first == again
    assert again["model_id"] == b"scribe_v2"


def test_it_waits_as_long_as_retry_after_says(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    service.responses = [(429, {"detail": "busy"})] * 2 + [(200, RESPONSE)]
    service.headers = {"Retry-After": "7"}
    segments_from(service)
    service.headers = {"Retry-After": "7000"}
    service.requests.clear()
    segments_from(service)
    assert waits == [7.0, 7.0, 60.0, 60.0]


def test_a_failing_service_is_given_up(service: Service) -> None:
    service.responses = [(500, {"detail": {"message": "sorry"}})]
    with pytest.raises(SpeechUnavailable, match=r"failed 3 times, .* status 500: sorry") as caught:
        segments_from(service)
    assert caught.value.code == "speech_unavailable"
    assert len(service.requests) == 3


def test_an_unreachable_service_is_given_up(service: Service) -> None:
    with pytest.raises(SpeechUnavailable, match="failed 3 times, the last time with ConnectError"):
        segments_from(service, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_key_that_is_not_accepted_is_fatal_and_stays_secret(
    service: Service, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.responses = [(status, {"detail": {"status": "x", "message": f"bad key {KEY}"}})]
    with pytest.raises(BackendError, match=r"ELEVENLABS_API_KEY .*bad key \[key\]") as caught:
        segments_from(service)
    assert len(service.requests) == 1
    assert KEY not in str(caught.getrepr(chain=True, showlocals=False))
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "response", "message"),
    [
        (400, {"detail": "no"}, "answered status 400: no"),
        (422, {"detail": [{"loc": ["file"]}]}, "answered status 422"),
        (302, {}, "answered status 302"),
        (200, b"<html>", "answered status 200"),
        (200, [1, 2], "lists no words"),
        (200, {}, "lists no words"),
        (200, {**RESPONSE, "words": "many"}, "lists no words"),
        (200, {**RESPONSE, "words": ["The"]}, "a word without text or times"),
        (200, {**RESPONSE, "words": [{"text": "The", "type": "word"}]}, "a word without text or"),
        (200, {**RESPONSE, "words": [word("The", 3.0, 2.0)]}, "'The', 3.0 to 2.0 s"),
        (200, {**RESPONSE, "words": [word("The", -1.0, 2.0)]}, "'The', -1.0 to 2.0 s"),
    ],
)
def test_responses_that_cannot_be_read(
    service: Service, status: int, response: object, message: str
) -> None:
    service.responses = [(status, response)]
    service.headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    with pytest.raises(SpeechError, match=message) as caught:
        segments_from(service)
    assert caught.value.code == "speech_error"
    assert len(service.requests) == 1


def test_without_a_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scribe.KEY_VARIABLE, " ")
    with pytest.raises(BackendError, match="needs an API key in the environment variable ELEVEN"):
        segments_from(service)
    monkeypatch.setenv(scribe.KEY_VARIABLE, "sk\n_1")
    with pytest.raises(BackendError, match="has characters that no key has") as caught:
        segments_from(service)
    assert "_1" not in str(caught.value)
    monkeypatch.delenv(scribe.KEY_VARIABLE)
    with pytest.raises(BackendError, match="needs an API key"):
        segments_from(service)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://speech.example.com", "only by https or to this machine"),
        ("https://me:secret@speech.example.com", "must not contain credentials"),
    ],
)
def test_the_key_is_sent_to_safe_addresses_only(address: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AsrOptions(engine="scribe", base_url=address)
    assert AsrOptions(base_url="https://speech.example.com").base_url
