"""Responses of web servers: statuses, sizes, deadlines, certificates; messages hold no secrets."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
import traceback

import pytest

from omnitrace_core.errors import (
    MediaDenied,
    MediaEmpty,
    MediaError,
    MediaMissing,
    MediaTimeout,
    MediaTooLarge,
    SampleError,
)
from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.options import MediaOptions
from tests.core.media.web_server import BODY, LISTED, URL, Web, get, response


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, MediaMissing, "responds 404, nothing is there"),
        (410, MediaMissing, "responds 410"),
        (401, MediaDenied, "responds 401, it refuses access"),
        (403, MediaDenied, "responds 403, it refuses access: a signature may have expired"),
        (204, MediaError, "responds 204"),
        (206, MediaError, "responds 206"),
        (302, MediaError, "responds 302"),  # no Location header
        (429, MediaError, "responds 429; try again later"),
        (500, MediaError, "responds 500; try again later"),
    ],
)
def test_statuses(status: int, error: type[SampleError], message: str, web: Web) -> None:
    web.responses["/a.png"] = response(status, b"" if status == 204 else b"no")
    with pytest.raises(error, match=message) as caught:
        get(web)
    assert type(caught.value) is error


def test_bodies_that_are_too_large(web: Web) -> None:
    assert get(web, max_bytes=len(BODY)) == BODY
    message = r"179,200 bytes, above media\.max_bytes=179,199; raise the limit"
    with pytest.raises(MediaTooLarge, match=message):
        get(web, max_bytes=len(BODY) - 1)
    # A server that declares no length and never stops sending.
    web.responses["/a.png"] = _without_end
    with pytest.raises(MediaTooLarge, match=r"more than 100,000 bytes, above media\.max_bytes="):
        get(web, max_bytes=100_000)


def _without_end(connected: ssl.SSLSocket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connected.sendall(b"x" * 10_000)


def test_bodies_without_a_declared_length(web: Web) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (BODY[:1000], BODY[1000:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.responses |= {
        "/chunked": head + chunks + b"0\r\n\r\n",
        "/cut": head + chunks,
        "/to-the-end": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    }
    assert get(web, "https://media.example.com/chunked") == BODY
    assert get(web, "https://media.example.com/to-the-end") == BODY
    with pytest.raises(MediaError, match=r"not complete and valid \(IncompleteRead\)"):
        get(web, "https://media.example.com/cut")


def test_the_size_is_told_before_the_body_if_it_is_known(web: Web) -> None:
    web.responses["/to-the-end"] = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
    reader, target = web.reader(MediaOptions(web_hosts=LISTED)), io.BytesIO()
    told: list[tuple[int, int]] = []
    for url in (URL, "https://media.example.com/to-the-end"):
        reader.copy(url, target, expect=lambda size: told.append((size, target.tell())))
    assert told == [(len(BODY), 0)]


def test_incomplete_bodies(web: Web) -> None:
    web.responses["/a.png"] = response(200, BODY, content_length=str(len(BODY) + 5))
    with pytest.raises(MediaError, match="incomplete, 179,200 of 179,205 bytes"):
        get(web)
    web.responses["/a.png"] = _cut
    with pytest.raises(MediaError, match="not complete and valid"):
        get(web)


def _cut(connected: ssl.SSLSocket) -> None:
    """End without TLS's closing message: anybody between client and server can cause this."""
    connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    raise ConnectionAbortedError


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (response(200), MediaEmpty, "zero bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n", MediaEmpty, "zero bytes"),
        (response(200, BODY, content_encoding="gzip"), MediaError, "Content-Encoding is 'gzip'"),
        (
            response(200, BODY, transfer_encoding="gzip, chunked"),
            MediaError,
            "Transfer-Encoding is 'gzip, chunked'",
        ),
        (b"SSH-2.0-OpenSSH\r\n", MediaError, "not complete and valid"),
        (b"", MediaError, "not complete and valid"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
            MediaError,
            "not complete and valid",
        ),
    ],
)
def test_responses_without_media(
    content: bytes, error: type[SampleError], message: str, web: Web
) -> None:
    web.responses["/a.png"] = content
    with pytest.raises(error, match=message) as caught:
        get(web)
    assert "SSH" not in str(caught.value)


def test_the_encoding_identity_is_accepted(web: Web) -> None:
    web.responses["/a.png"] = response(200, BODY, content_encoding="Identity")
    assert get(web) == BODY


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_the_deadline_stops_a_slow_server(head: bytes, web: Web) -> None:
    def drip(connected: ssl.SSLSocket) -> None:
        connected.sendall(head)
        for _ in range(200):
            connected.sendall(b"H")
            time.sleep(0.05)

    web.responses["/a.png"] = drip
    started = time.monotonic()
    with pytest.raises(MediaTimeout, match=r"media\.web_timeout_s=0\.5; raise the limit"):
        get(web, web_timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_redirects_share_one_deadline(web: Web) -> None:
    def slow(connected: ssl.SSLSocket) -> None:
        time.sleep(0.3)
        connected.sendall(response(302, location="/a.png"))

    web.responses["/a.png"] = slow
    with pytest.raises(MediaTimeout):
        get(web, web_timeout_s=0.8)


def test_the_deadline_stops_a_silent_dns_and_a_silent_server(web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        web.dial = lambda _, limit_s: socket.create_connection(("127.0.0.1", port), limit_s)
        with pytest.raises(MediaTimeout):
            get(web, web_timeout_s=0.3)
    released = threading.Event()
    web.resolve = lambda _: [str(released.wait(20))]
    with pytest.raises(MediaTimeout):
        get(web, web_timeout_s=0.3)
    released.set()


def test_certificates(web: Web) -> None:
    with pytest.raises(MediaError, match=r"certificate is not trusted \(Hostname mismatch"):
        get(web, "https://third.example.com/a.png")
    stranger = WebReader(MediaOptions(web_hosts=LISTED), web.resolve, web.dial)
    with pytest.raises(MediaError, match=r"certificate is not trusted \(self.signed"):
        stranger.copy(URL, io.BytesIO())
    assert not web.server.requests


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("https://media.example.com/a.png?sig=SECRET", response(404)),
        ("https://media.example.com/a.png?sig=SECRET", response(500)),
        ("https://media.example.com/a.png?sig=SECRET", response(200)),
        (
            "https://media.example.com/a.png?sig=SECRET",
            response(302, location="https://other.example.com/b?sig=SECRET"),
        ),
        (
            "https://media.example.com/a.png?sig=SECRET",
            response(302, location="https://me:SECRET@[/b?sig=SECRET"),
        ),
        ("https://other.example.com/a.png?sig=SECRET#SECRET", b""),
        ("https://me:SECRET@media.example.com/a.png", b""),
        ("https://me:SECRET@media℀.example.com/a.png?sig=SECRET", b""),
        ("http://media.example.com/a.png?sig=SECRET", b""),
    ],
)
def test_messages_hold_no_secrets_of_an_address(url: str, content: bytes, web: Web) -> None:
    web.responses["/a.png?sig=SECRET"] = content
    with pytest.raises(MediaError, match=r"^https?://.*\.example\.com/a\.png") as caught:
        get(web, url)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
