"""Fetching from the web: listed hosts alone, at public addresses, within size and time.

The server is a real one on loopback, with TLS; the DNS and the last step of a connection are ours.
"""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core.errors import (
    MediaDenied,
    MediaEmpty,
    MediaError,
    MediaMissing,
    MediaTimeout,
    MediaTooLarge,
    SampleError,
)
from omnitrace_core.media import decode_part, fetch
from omnitrace_core.media.fetch import media_path, read_media
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.media.web import WebReader
from omnitrace_core.media.web_connection import dial_address
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.web_address import Address
from tests.core.media_files import image_bytes, write_clip
from tests.core.web_server import PUBLIC, Web, answer, serve_web

URL = "https://media.example.com/a.png"
LISTED = ("media.example.com", "third.example.com")
BODY = bytes(range(256)) * 700  # several blocks


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_web() as web:
        web.answers["/a.png"] = answer(200, BODY)
        yield web


def get(web: Web, url: str = URL, **options: object) -> bytes:
    """What a reader writes, with the options of `media.*`."""
    target = io.BytesIO()
    chosen = MediaOptions(**{"web_hosts": LISTED, "web_timeout_s": 30, **options})
    web.reader(chosen).copy(url, target)
    return target.getvalue()


def test_reads_a_listed_host(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    web.answers["/a%20b.png?x=%C3%A9&y=1"] = answer(200, BODY)
    assert get(web) == BODY
    assert get(web, "HTTPS://MEDIA.example.com.:443/a b.png?x=é&y=1#part") == BODY
    assert web.dialled == [PUBLIC, PUBLIC]
    assert web.server.names == ["media.example.com"] * 2
    head = web.server.requests[1].lower()
    assert "\r\nhost: media.example.com\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


def test_every_decoder_reads_the_web(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    png, clip = image_bytes(Image.new("RGB", (112, 84))), write_clip(tmp_path / "a.mp4", 10)
    web.answers |= {"/red": answer(200, png), "/clip": answer(200, clip.read_bytes())}
    monkeypatch.setattr(fetch, "WebReader", web.reader)
    options = MediaOptions(web_hosts=LISTED)
    image = decode_part(Part("image", uri="https://media.example.com/red"), options, MediaRules())
    assert image.sha256 == hashlib.sha256(png).hexdigest()
    part = Part("video", uri="https://media.example.com/clip")
    video = decode_part(part, options, MediaRules())
    assert video.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    with media_path(part, options) as path:
        assert path.read_bytes() == clip.read_bytes()
    assert not path.exists()
    assert read_media(Part("image", uri="HTTPS://media.example.com/red"), options) == png


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://other.example.com/a.png", r"other\.example\.com is not in media\.web_hosts=\["),
        ("https://media.example.com.evil.org/", "is not in"),
        ("https://evil-media.example.com/", "is not in"),
        ("http://media.example.com/a.png", "http:// is never read.*; use https://"),
        ("ftp://media.example.com/a.png", "ftp:// is not read from the web"),
        ("https://me:word@media.example.com/", "no user name or password is sent"),
        ("https://media.example.com@evil.org/", "no user name or password is sent"),
        (r"https://media.example.com\@evil.org/", "no user name or password is sent"),
        (r"https://evil.org\.media.example.com/", "is not a host name"),
        ("https://media.example.com:8443/", "port 8443 is not read, only 443"),
        ("https://media.example.com:x/", "not a valid URL"),
        ("https://media.example.com:99999/", "not a valid URL"),
        ("https://[::1/", "not a valid URL"),
        ("https://[::ffff:7f00:1]/", "is not a host name"),
        ("https://127.0.0.1/", "'127.0.0.1' ends in a number"),
        ("https://2130706433/", "ends in a number"),
        ("https://0x7f.1/", "ends in a number"),
        ("https://0x7f000001/", "ends in a number"),
        ("https://0177.0.0.01/", "ends in a number"),
        ("https://media.example.com%2eevil.org/", "is not a host name"),
        ("https:///a.png", "is not a host name"),
        ("https://media.example.com/" + "a" * 8_000, "8,026 characters"),
        ("https://müdia.example.com/", "xn--"),
        # Fullwidth letters and the ideographic full stop, which IDNA would map to our host.
        ("https://ｍedia.example.com/", "xn--"),  # noqa: RUF001
        ("https://media。example.com/", "xn--"),
    ],
)
def test_denied_before_any_connection(url: str, message: str, web: Web) -> None:
    with pytest.raises(MediaDenied, match=message) as caught:
        get(web, url)
    assert "download the file first" in str(caught.value)
    assert not web.asked
    assert not web.dialled


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%eth0"],
        ["::ffff:10.0.0.1"],
        [PUBLIC, "192.168.0.1"],
        ["2606:2800:220:1::1", "fd00::1"],
    ],
)
def test_all_addresses_must_be_public(addresses: list[str], web: Web) -> None:
    web.addresses["media.example.com"] = [addresses]
    with pytest.raises(MediaDenied, match=r"media\.example\.com resolves to .*no public address"):
        get(web)
    assert not web.dialled


def test_the_systems_own_names_are_private() -> None:
    reader = WebReader(MediaOptions(web_hosts=("localhost",)))
    with pytest.raises(MediaDenied, match=r"localhost resolves to .*no public address"):
        reader.copy("https://localhost/a.png", io.BytesIO())


def test_the_checked_address_is_the_one_dialled(web: Web) -> None:
    """A DNS that turns to a private address after the check changes nothing."""
    web.addresses["media.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    assert get(web) == BODY
    assert (web.asked, web.dialled) == (["media.example.com"], [PUBLIC])
    # A redirect to the same host is a hop of its own, and is checked again.
    web.answers["/again"] = answer(302, location="/a.png")
    web.addresses["media.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(MediaDenied, match=r"127\.0\.0\.1, which is no public address"):
        get(web, "https://media.example.com/again")
    assert web.dialled == [PUBLIC, PUBLIC]


def test_dials_numbers_on_443(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = []
    monkeypatch.setattr(
        socket, "create_connection", lambda place, timeout: dialled.append((*place, timeout))
    )
    dial_address(ip_address("2606:2800:220:1::1"), 3.0)
    assert dialled == [("2606:2800:220:1::1", 443, 3.0)]


def test_tries_one_address_after_the_other(web: Web) -> None:
    web.addresses["media.example.com"] = [["2606:2800:220:1::1", PUBLIC, PUBLIC]]
    through = web.dial

    def dial(address: Address, limit_s: float) -> socket.socket:
        assert 0 < limit_s <= 10
        if address.version == 6 or limit_s < 1:
            raise ConnectionRefusedError(111, "Connection refused")
        return through(address, limit_s)

    web.dial = dial  # type: ignore[method-assign]
    assert get(web) == BODY
    assert web.dialled == [PUBLIC]
    web.addresses["media.example.com"] = [["2606:2800:220:1::1"]]
    with pytest.raises(MediaError, match=r"no connection to port 443 .*::1: Connection refused"):
        get(web)


def test_a_name_that_does_not_resolve(web: Web) -> None:
    with pytest.raises(MediaError, match=r"'gone\.example\.com' cannot be resolved \(Name or "):
        get(web, "https://gone.example.com/a.png", web_hosts=("*.example.com",))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["/a.png", "../a.png", "//media.example.com/a.png", "https://other.example.com/a.png"],
)
def test_follows_redirects(status: int, location: str, web: Web) -> None:
    web.answers["/x/y"] = answer(status, b"moved", location=location, set_cookie="a=b")
    assert get(web, "https://media.example.com/x/y", web_hosts=("*.example.com",)) == BODY
    assert len(web.asked) == len(web.dialled) == 2
    assert "cookie" not in web.server.requests[1].lower()


def test_redirects_escape_what_is_not_ascii(web: Web) -> None:
    web.answers["/x"] = answer(302, location="/é ü?q=ä".encode().decode("latin-1"))
    web.answers["/%C3%A9%20%C3%BC?q=%C3%A4"] = answer(200, BODY)
    assert get(web, "https://media.example.com/x") == BODY


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://media.example.com/a.png", "http:// is never read"),
        ("https://other.example.com/a.png", "is not in media.web_hosts"),
        ("https://127.0.0.1/a.png", "ends in a number"),
        ("https://third.example.com/a.png", "no public address"),
        ("https://media.example.com:8443/a.png", "port 8443"),
        ("https://me:word@media.example.com/a.png", "no user name"),
        ("file:///etc/passwd", "file:// is not read from the web"),
        ("https://[/", "no URL"),
    ],
)
def test_each_hop_is_checked(location: str, message: str, web: Web) -> None:
    web.addresses["third.example.com"] = [["10.0.0.1"]]
    web.answers["/x"] = answer(302, location=location)
    with pytest.raises(MediaDenied, match=message) as caught:
        get(web, "https://media.example.com/x")
    assert str(caught.value).startswith("https://media.example.com/x")
    assert web.dialled == [PUBLIC]


def test_redirects_end(web: Web) -> None:
    web.answers["/loop"] = answer(302, location="/loop")
    with pytest.raises(MediaError, match="more than 5 redirects"):
        get(web, "https://media.example.com/loop")
    assert len(web.dialled) == 6
    for k in range(5):
        web.answers[f"/{k}"] = answer(302, location=f"/{k + 1}")
    web.answers["/5"] = answer(200, BODY)
    assert get(web, "https://media.example.com/0") == BODY


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, MediaMissing, "answers 404, nothing is there"),
        (410, MediaMissing, "answers 410"),
        (401, MediaDenied, "answers 401, it refuses"),
        (403, MediaDenied, "answers 403, it refuses: a signature may have expired"),
        (204, MediaError, "answers 204"),
        (206, MediaError, "answers 206"),
        (302, MediaError, "answers 302"),  # to nowhere
        (429, MediaError, "answers 429; try again later"),
        (500, MediaError, "answers 500; try again later"),
    ],
)
def test_statuses(status: int, error: type[SampleError], message: str, web: Web) -> None:
    web.answers["/a.png"] = answer(status, b"" if status == 204 else b"no")
    with pytest.raises(error, match=message) as caught:
        get(web)
    assert type(caught.value) is error


def test_too_large(web: Web) -> None:
    assert get(web, max_bytes=len(BODY)) == BODY
    message = r"179,200 bytes, above media\.max_bytes=179,199; raise the limit"
    with pytest.raises(MediaTooLarge, match=message):
        get(web, max_bytes=len(BODY) - 1)
    # A server that does not say how much it sends, and would send for ever.
    web.answers["/a.png"] = _without_end
    with pytest.raises(MediaTooLarge, match=r"more than 100,000 bytes, above media\.max_bytes="):
        get(web, max_bytes=100_000)


def _without_end(connected: ssl.SSLSocket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connected.sendall(b"x" * 10_000)


def test_chunks_and_bodies_up_to_the_end(web: Web) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (BODY[:1000], BODY[1000:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.answers |= {
        "/chunked": head + chunks + b"0\r\n\r\n",
        "/cut": head + chunks,
        "/to-the-end": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    }
    assert get(web, "https://media.example.com/chunked") == BODY
    assert get(web, "https://media.example.com/to-the-end") == BODY
    with pytest.raises(MediaError, match=r"no whole answer \(IncompleteRead\)"):
        get(web, "https://media.example.com/cut")


def test_cut_short(web: Web) -> None:
    web.answers["/a.png"] = answer(200, BODY, content_length=str(len(BODY) + 5))
    with pytest.raises(MediaError, match="cut short, 179,200 of 179,205 bytes"):
        get(web)
    web.answers["/a.png"] = _cut
    with pytest.raises(MediaError, match="no whole answer"):
        get(web)


def _cut(connected: ssl.SSLSocket) -> None:
    """An end without TLS's farewell, of a body without length: anyone on the way can make one."""
    connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    raise ConnectionAbortedError


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        (answer(200), MediaEmpty, "zero bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n", MediaEmpty, "zero bytes"),
        (answer(200, BODY, content_encoding="gzip"), MediaError, "Content-Encoding is 'gzip'"),
        (
            answer(200, BODY, transfer_encoding="gzip, chunked"),
            MediaError,
            "Transfer-Encoding is 'gzip, chunked'",
        ),
        (b"SSH-2.0-OpenSSH\r\n", MediaError, "no whole answer"),
        (b"", MediaError, "no whole answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", MediaError, "no whole answer"),
    ],
)
def test_answers_that_hold_no_media(
    told: bytes, error: type[SampleError], message: str, web: Web
) -> None:
    web.answers["/a.png"] = told
    with pytest.raises(error, match=message) as caught:
        get(web)
    assert "SSH" not in str(caught.value)


def test_an_encoding_that_says_identity_is_none(web: Web) -> None:
    web.answers["/a.png"] = answer(200, BODY, content_encoding="Identity")
    assert get(web) == BODY


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_a_dripping_server_meets_the_deadline(head: bytes, web: Web) -> None:
    def drip(connected: ssl.SSLSocket) -> None:
        connected.sendall(head)
        for _ in range(200):
            connected.sendall(b"H")
            time.sleep(0.05)

    web.answers["/a.png"] = drip
    started = time.monotonic()
    with pytest.raises(MediaTimeout, match=r"media\.web_timeout_s=0\.5; raise the limit"):
        get(web, web_timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_redirects_share_one_deadline(web: Web) -> None:
    def slow(connected: ssl.SSLSocket) -> None:
        time.sleep(0.3)
        connected.sendall(answer(302, location="/a.png"))

    web.answers["/a.png"] = slow
    with pytest.raises(MediaTimeout):
        get(web, web_timeout_s=0.8)


def test_a_silent_dns_and_a_silent_server_meet_the_deadline(web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        web.dial = lambda _, limit_s: socket.create_connection(("127.0.0.1", port), limit_s)  # type: ignore[method-assign]
        with pytest.raises(MediaTimeout):
            get(web, web_timeout_s=0.3)
    released = threading.Event()
    web.resolve = lambda _: [str(released.wait(20))]  # type: ignore[method-assign]
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
    ("url", "told"),
    [
        ("https://media.example.com/a.png?sig=SECRET", answer(404)),
        ("https://media.example.com/a.png?sig=SECRET", answer(500)),
        ("https://media.example.com/a.png?sig=SECRET", answer(200)),
        (
            "https://media.example.com/a.png?sig=SECRET",
            answer(302, location="https://other.example.com/b?sig=SECRET"),
        ),
        (
            "https://media.example.com/a.png?sig=SECRET",
            answer(302, location="https://me:SECRET@[/b?sig=SECRET"),
        ),
        ("https://other.example.com/a.png?sig=SECRET#SECRET", b""),
        ("https://me:SECRET@media.example.com/a.png", b""),
        ("https://me:SECRET@media℀.example.com/a.png?sig=SECRET", b""),
        ("http://media.example.com/a.png?sig=SECRET", b""),
    ],
)
def test_secrets_of_an_address_are_not_told(url: str, told: bytes, web: Web) -> None:
    web.answers["/a.png?sig=SECRET"] = told
    with pytest.raises(MediaError, match=r"^https?://.*\.example\.com/a\.png") as caught:
        get(web, url)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
