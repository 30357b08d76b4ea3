"""The engine scribe: ElevenLabs' SDK against a server on this machine that speaks its format."""

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


def said(text: str, start: float, end: float, kind: str = "word") -> dict[str, object]:
    return {"text": text, "start": start, "end": end, "type": kind, "logprob": -0.1}


ANSWER: dict[str, object] = {
    "language_code": "eng",
    "language_probability": 0.99,
    "text": "The angel. (laughter) A man",
    "words": [
        said("The", 1.0, 1.2),
        said(" ", 1.2, 1.3, "spacing"),
        said("angel.", 1.3, 2.0),
        said("(laughter)", 2.1, 3.0, "audio_event"),
        said("A", 6.1, 6.2),
        said("man", 6.3, 6.6),
    ],
}


@dataclass
class Service:
    """Answers in turn, the last for ever, and what it was asked."""

    answers: list[tuple[int, object]] = field(default_factory=lambda: [(200, ANSWER)])
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, bytes]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            form = BytesParser(policy=policy.HTTP).parsebytes(head + body)
            told.keys.append(self.headers["xi-api-key"])
            told.asked.append(
                {
                    str(part.get_param("name", header="content-disposition")): part.get_payload(
                        decode=True
                    )
                    for part in form.iter_parts()  # type: ignore[attr-defined]
                }
                | {"path": self.path.encode()}
            )
            status, answer = told.answers[min(len(told.asked), len(told.answers)) - 1]
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv(scribe.KEY_VARIABLE, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(scribe, "_FIRST_WAIT_S", 0.01)
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def heard(
    service: Service, cut: dict[str, float] | None = None, **settings: object
) -> tuple[SpeechSegment, ...]:
    told = {"engine": "scribe", "base_url": service.url, "retries": 2, **settings}
    engine = load_engine(AsrOptions.model_validate(told))
    return engine.segments(*decode_speech(**(cut or {})))


def test_sentences_and_words(service: Service) -> None:
    segments = heard(service, language="en")
    assert segments == (
        SpeechSegment(1.0, 2.0, "The angel.", (Word("The", 1.0, 1.2), Word("angel.", 1.3, 2.0))),
        SpeechSegment(6.1, 6.6, "A man", (Word("A", 6.1, 6.2), Word("man", 6.3, 6.6))),
    )
    (asked,) = service.asked
    assert asked["path"] == b"/v1/speech-to-text"
    assert service.keys == [KEY]
    told = {name: asked[name] for name in ("model_id", "file_format", "language_code")}
    assert told == {
        "model_id": b"scribe_v2",
        "file_format": b"pcm_s16le_16",
        "language_code": b"en",
    }
    assert asked["timestamps_granularity"] == b"word"
    sound = np.frombuffer(asked["file"], "<i2").astype(np.float32) / 32_768
    np.testing.assert_allclose(sound, decode_speech()[0].waveform, atol=1 / 32_768)


def test_loud_sounds_are_clipped() -> None:
    waveform = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
    waveform.setflags(write=False)
    sent = np.frombuffer(scribe._as_pcm(waveform), "<i2")
    assert sent.tolist() == [-32_768, -32_768, 0, 16_384, 32_767, 32_767]


def test_times_are_on_the_files_clock(service: Service) -> None:
    segments = heard(service, {"audio_start": 3.0})
    assert [s.start_s for s in segments] == [4.0, 9.1]


def test_no_words_are_no_speech(service: Service) -> None:
    service.answers = [(200, {**ANSWER, "words": [said("(music)", 0.0, 5.0, "audio_event")]})]
    assert heard(service) == ()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again_with_all_of_the_form(service: Service, status: int) -> None:
    service.answers = [(status, {"detail": "busy"}), (200, ANSWER)]
    assert len(heard(service)) == 2
    first, again = service.asked
    assert first == again
    assert again["model_id"] == b"scribe_v2"


def test_it_waits_as_long_as_it_is_asked_to(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(scribe.time, "sleep", waits.append)
    service.answers = [(429, {"detail": "busy"})] * 2 + [(200, ANSWER)]
    service.headers = {"Retry-After": "7"}
    heard(service)
    service.headers = {"Retry-After": "7000"}
    service.asked.clear()
    heard(service)
    assert waits == [7.0, 7.0, 60.0, 60.0]


def test_a_service_out_of_order_is_given_up(service: Service) -> None:
    service.answers = [(500, {"detail": {"message": "sorry"}})]
    with pytest.raises(SpeechUnavailable, match=r"failed 3 times, .* status 500: sorry") as caught:
        heard(service)
    assert caught.value.code == "speech_unavailable"
    assert len(service.asked) == 3


def test_a_service_out_of_reach_is_given_up(service: Service) -> None:
    with pytest.raises(SpeechUnavailable, match="failed 3 times, at last with ConnectError"):
        heard(service, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_key_that_is_not_accepted_is_fatal_and_stays_secret(
    service: Service, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.answers = [(status, {"detail": {"status": "x", "message": f"bad key {KEY}"}})]
    with pytest.raises(BackendError, match=r"ELEVENLABS_API_KEY .*bad key \[key\]") as caught:
        heard(service)
    assert len(service.asked) == 1
    assert KEY not in str(caught.getrepr(chain=True, showlocals=False))
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (400, {"detail": "no"}, "answered status 400: no"),
        (422, {"detail": [{"loc": ["file"]}]}, "answered status 422"),
        (302, {}, "answered status 302"),
        (200, b"<html>", "answered status 200"),
        (200, [1, 2], "lists no words"),
        (200, {}, "lists no words"),
        (200, {**ANSWER, "words": "many"}, "lists no words"),
        (200, {**ANSWER, "words": ["The"]}, "a word without text or times"),
        (200, {**ANSWER, "words": [{"text": "The", "type": "word"}]}, "a word without text or"),
        (200, {**ANSWER, "words": [said("The", 3.0, 2.0)]}, "'The', 3.0 to 2.0 s"),
        (200, {**ANSWER, "words": [said("The", -1.0, 2.0)]}, "'The', -1.0 to 2.0 s"),
    ],
)
def test_answers_that_make_no_sense(
    service: Service, status: int, answer: object, message: str
) -> None:
    service.answers = [(status, answer)]
    service.headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    with pytest.raises(SpeechError, match=message) as caught:
        heard(service)
    assert caught.value.code == "speech_error"
    assert len(service.asked) == 1


def test_without_a_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scribe.KEY_VARIABLE, " ")
    with pytest.raises(BackendError, match="needs an API key in the environment variable ELEVEN"):
        heard(service)
    monkeypatch.setenv(scribe.KEY_VARIABLE, "sk\n_1")
    with pytest.raises(BackendError, match="has characters that no key has") as caught:
        heard(service)
    assert "_1" not in str(caught.value)
    monkeypatch.delenv(scribe.KEY_VARIABLE)
    with pytest.raises(BackendError, match="needs an API key"):
        heard(service)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://speech.example.com", "only https, or this machine itself"),
        ("https://me:secret@speech.example.com", "credentials do not belong"),
    ],
)
def test_the_key_goes_nowhere_in_the_open(address: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AsrOptions(engine="scribe", base_url=address)
    assert AsrOptions(base_url="https://speech.example.com").base_url
