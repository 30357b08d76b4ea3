"""Media are read only from listed hosts at public addresses, also after redirects.

A real TLS server runs on loopback; the DNS and the connecting are replaced.
"""

from __future__ import annotations

import hashlib
import io
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core.access.web import IpAddress
from omnitrace_core.errors import (
    MediaDenied,
    MediaError,
)
from omnitrace_core.media import decode_part
from omnitrace_core.media.fetching import fetch
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.media.fetching.web_connection import dial_address
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media.web_server import BODY, LISTED, PUBLIC, Web, get, response
from tests.core.media_files import image_bytes, write_clip


def test_a_listed_host_is_read(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    web.responses["/a%20b.png?x=%C3%A9&y=1"] = response(200, BODY)
    assert get(web) == BODY
    assert get(web, "HTTPS://MEDIA.example.com.:443/a b.png?x=é&y=1#part") == BODY
    assert web.dialled == [PUBLIC, PUBLIC]
    assert web.server.names == ["media.example.com"] * 2
    head = web.server.requests[1].lower()
    assert "\r\nhost: media.example.com\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


def test_all_decoders_read_from_the_web(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    png, clip = image_bytes(Image.new("RGB", (112, 84))), write_clip(tmp_path / "a.mp4", 10)
    web.responses |= {"/red": response(200, png), "/clip": response(200, clip.read_bytes())}
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
        ("https://me:word@media.example.com/", "user names and passwords are not sent"),
        ("https://media.example.com@evil.org/", "user names and passwords are not sent"),
        (r"https://media.example.com\@evil.org/", "user names and passwords are not sent"),
        (r"https://evil.org\.media.example.com/", "is not a host name"),
        ("https://media.example.com:8443/", "port 8443 is not read; only port 443"),
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
        # Fullwidth letters and an ideographic full stop, which IDNA would convert to our host.
        ("https://ｍedia.example.com/", "xn--"),  # noqa: RUF001
        ("https://media。example.com/", "xn--"),
    ],
)
def test_urls_denied_before_any_connection(url: str, message: str, web: Web) -> None:
    with pytest.raises(MediaDenied, match=message) as caught:
        get(web, url)
    assert "download the file first" in str(caught.value)
    assert not web.lookups
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
    with pytest.raises(
        MediaDenied, match=r"media\.example\.com resolves to .*not a public address"
    ):
        get(web)
    assert not web.dialled


def test_localhost_is_denied() -> None:
    reader = WebReader(MediaOptions(web_hosts=("localhost",)))
    with pytest.raises(MediaDenied, match=r"localhost resolves to .*not a public address"):
        reader.copy("https://localhost/a.png", io.BytesIO())


def test_the_connection_goes_to_the_checked_address(web: Web) -> None:
    """A later DNS response with a private address is not used."""
    web.addresses["media.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    assert get(web) == BODY
    assert (web.lookups, web.dialled) == (["media.example.com"], [PUBLIC])
    # A redirect to the same host is looked up and checked again.
    web.responses["/again"] = response(302, location="/a.png")
    web.addresses["media.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(MediaDenied, match=r"127\.0\.0\.1, which is not a public address"):
        get(web, "https://media.example.com/again")
    assert web.dialled == [PUBLIC, PUBLIC]


def test_connections_go_to_port_443(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = []
    monkeypatch.setattr(
        socket, "create_connection", lambda place, timeout: dialled.append((*place, timeout))
    )
    dial_address(ip_address("2606:2800:220:1::1"), 3.0)
    assert dialled == [("2606:2800:220:1::1", 443, 3.0)]


def test_addresses_are_tried_in_order(web: Web) -> None:
    web.addresses["media.example.com"] = [["2606:2800:220:1::1", PUBLIC, PUBLIC]]
    connect = web.dial

    def dial(address: IpAddress, limit_s: float) -> socket.socket:
        assert 0 < limit_s <= 10
        if address.version == 6 or limit_s < 1:
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(address, limit_s)

    web.dial = dial
    assert get(web) == BODY
    assert web.dialled == [PUBLIC]
    web.addresses["media.example.com"] = [["2606:2800:220:1::1"]]
    with pytest.raises(MediaError, match=r"no connection to port 443 .*::1: Connection refused"):
        get(web)


def test_a_host_name_that_cannot_be_resolved(web: Web) -> None:
    with pytest.raises(MediaError, match=r"'gone\.example\.com' cannot be resolved \(Name or "):
        get(web, "https://gone.example.com/a.png", web_hosts=("*.example.com",))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["/a.png", "../a.png", "//media.example.com/a.png", "https://other.example.com/a.png"],
)
def test_redirects_are_followed(status: int, location: str, web: Web) -> None:
    web.responses["/x/y"] = response(status, b"moved", location=location, set_cookie="a=b")
    assert get(web, "https://media.example.com/x/y", web_hosts=("*.example.com",)) == BODY
    assert len(web.lookups) == len(web.dialled) == 2
    assert "cookie" not in web.server.requests[1].lower()


def test_non_ascii_redirects_are_escaped(web: Web) -> None:
    web.responses["/x"] = response(302, location="/é ü?q=ä".encode().decode("latin-1"))
    web.responses["/%C3%A9%20%C3%BC?q=%C3%A4"] = response(200, BODY)
    assert get(web, "https://media.example.com/x") == BODY


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://media.example.com/a.png", "http:// is never read"),
        ("https://other.example.com/a.png", "is not in media.web_hosts"),
        ("https://127.0.0.1/a.png", "ends in a number"),
        ("https://third.example.com/a.png", "not a public address"),
        ("https://media.example.com:8443/a.png", "port 8443"),
        ("https://me:word@media.example.com/a.png", "user names and passwords"),
        ("file:///etc/passwd", "file:// is not read from the web"),
        ("https://[/", "an invalid URL"),
    ],
)
def test_each_redirect_is_checked(location: str, message: str, web: Web) -> None:
    web.addresses["third.example.com"] = [["10.0.0.1"]]
    web.responses["/x"] = response(302, location=location)
    with pytest.raises(MediaDenied, match=message) as caught:
        get(web, "https://media.example.com/x")
    assert str(caught.value).startswith("https://media.example.com/x")
    assert web.dialled == [PUBLIC]


def test_the_number_of_redirects_is_limited(web: Web) -> None:
    web.responses["/loop"] = response(302, location="/loop")
    with pytest.raises(MediaError, match="more than 5 redirects"):
        get(web, "https://media.example.com/loop")
    assert len(web.dialled) == 6
    for k in range(5):
        web.responses[f"/{k}"] = response(302, location=f"/{k + 1}")
    web.responses["/5"] = response(200, BODY)
    assert get(web, "https://media.example.com/0") == BODY
