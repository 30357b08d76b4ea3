"""Which hosts, URLs and IP addresses may be read from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from omnitrace_core.access.web import is_listed, is_public, parse_web_address
from omnitrace_core.options import MediaOptions


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.0.1"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1"),
        *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::10.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:8.8.8.8"),
        *("::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::8.8.8.8"),
        *("100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1"),
        *("2001:db8::1", "2002:a00:1::", "2002:808:808::", "3fff::1", "4000::1", "5f00::1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1"),
    ],
)
def test_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1"),
        *("2606:2800:220:1::1", "2a00:1450::1", "64:ff9b::8.8.8.8"),
    ],
)
def test_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_hosts_are_kept_in_normal_form() -> None:
    options = MediaOptions(web_hosts=["Media.Example.com.", "*.B.example", "media.example.com"])
    assert options.web_hosts == ("*.b.example", "media.example.com")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("*", "not a host name"),
        ("*.com", "covers a whole top-level domain"),
        ("media.*.com", "not a host name"),
        ("https://example.com", "an entry is a host alone"),
        ("example.com/media", "an entry is a host alone"),
        ("example.com:8443", "an entry is a host alone"),
        ("me@example.com", "an entry is a host alone"),
        ("10.0.0.1", "ends in a number"),
        ("*.0.0.1", "ends in a number"),
        ("::1", "not a host name"),
        ("", "is blank"),
        ("a..b", "not a host name"),
        ("-a.example", "not a host name"),
        ("a" * 64 + ".example", "not a host name"),
        ("a." * 130 + "example", "not a host name"),
        ("münchen.example", "write its xn--"),
        ("example.com\n", "not a host name"),
    ],
)
def test_invalid_entries(entry: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MediaOptions(web_hosts=[entry])


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("a.example", True),
        ("b.a.example", False),
        ("b.example", False),
        ("x.b.example", True),
        ("y.x.b.example", True),
        ("xb.example", False),
    ],
)
def test_is_listed(host: str, listed: bool) -> None:
    assert is_listed(host, ("a.example", "*.b.example")) == listed
    assert not is_listed(host, ())


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://a.example", "/"),
        ("https://a.example?x=1", "/?x=1"),
        ("https://a.example/a%20b/ü?q=a b#c", "/a%20b/%C3%BC?q=a%20b"),
        ("https://a.example/\x00\x7f\x1b[m", "/%00%7F%1B%5Bm"),
        ("https://a.example/a\r\nHost: b", "/aHost:%20b"),
    ],
)
def test_paths_are_escaped(url: str, path: str) -> None:
    assert parse_web_address(url).path == path


def test_a_path_that_cannot_be_escaped() -> None:
    with pytest.raises(ValueError, match="not a valid URL"):
        parse_web_address("https://a.example/\ud800?sig=x")
