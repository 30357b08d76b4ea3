"""Rules for reading from the web: which URLs are valid, which hosts are listed, which IPs public.

Nothing here uses the network; `media/fetching/web.py` reads under these rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias
from urllib.parse import quote, urlsplit

IpAddress: TypeAlias = IPv4Address | IPv6Address

# RFC 9110, 4.1 asks servers to accept at least this much; most accept no more.
_MAX_URL_CHARS = 8000
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Resolvers read such a last label as part of an IPv4 address in decimal, octal or hexadecimal.
# No top-level domain looks like this.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Characters that RFC 3986 allows in a path or query without an escape, and `%`, which begins one.
_UNESCAPED = "%/?:@!$&'()*+,;="

# IANA assigns public IPv6 addresses from this block alone, so mapped, compatible, unique-local,
# link-local, site-local and multicast addresses lie outside.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 6052: the last 32 bits are the IPv4 address that packets reach.
_NAT64 = IPv6Network("64:ff9b::/96")
# Some versions of Python call these global (`is_global`), but no public server uses them.
_NOT_SERVERS = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    IPv4Network("192.88.99.0/24"),  # relays to 6to4, RFC 7526
    IPv4Network("168.63.129.16/32"),  # the Azure cloud's service for its own machines
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("2002::/16"),  # 6to4, RFC 7526: contains an IPv4 address
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
)


@dataclass(frozen=True, slots=True)
class WebTarget:
    """Where a request goes. host: in normal form. path: escaped, with its query."""

    host: str
    path: str


def parse_web_address(url: str) -> WebTarget:
    """The host and path of an https URL.

    Raises:
        ValueError: another scheme, no host name, a user name, a port other than 443, or too many
            characters; the message holds nothing of the URL that `shown_address` hides.
    """
    if len(url) > _MAX_URL_CHARS:
        raise ValueError(
            f"{len(url):,} characters, more than the {_MAX_URL_CHARS:,} that servers accept"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        path = quote(parts.path or "/", safe=_UNESCAPED)
        if parts.query:
            path += "?" + quote(parts.query, safe=_UNESCAPED)
    except ValueError:
        # Without the cause: its message may quote the whole address.
        raise ValueError("this is not a valid URL; give https://host/path") from None
    if parts.scheme == "http":
        raise ValueError(
            "http:// is never read, because others can change it on the way; use https://"
        )
    if parts.scheme != "https":
        raise ValueError(f"{parts.scheme}:// is not read from the web; give https://host/path")
    if "@" in parts.netloc:
        raise ValueError("user names and passwords are not sent; remove the part before the @")
    if port not in (None, 443):
        raise ValueError(f"port {port} is not read; only port 443 is")
    return WebTarget(host_name(parts.hostname or ""), path)


def host_name(text: str) -> str:
    """A host name in normal form: lower case, no dot at the end.

    Letters beyond ASCII are refused, not converted: the two versions of IDNA convert some names to
    different hosts, and an entry of the list must mean one host.

    Raises:
        ValueError: not a host name, or an IP address in any spelling.
    """
    shown = repr(text[:80])
    if not text.isascii():
        raise ValueError(f"the host {shown} is not ASCII; write its xn--… form")
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f"the host {shown} ends in a number, as IP addresses do; give a host name")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"the host {shown} is not a host name; give one such as media.example.com")
    return host


def host_pattern(text: str) -> str:
    """An entry of `media.web_hosts` in normal form: a host name, or `*.` and a domain.

    Raises:
        ValueError: neither of the two, or a pattern for a whole top-level domain.
    """
    is_wildcard = text.startswith("*.")
    try:
        host = host_name(text[2:] if is_wildcard else text)
    except ValueError as error:
        raise ValueError(
            f"{error}; an entry is a host alone, such as media.example.com or *.example.com"
        ) from error
    if is_wildcard and "." not in host:
        raise ValueError(f"{text!r} covers a whole top-level domain; name the domain")
    return f"*.{host}" if is_wildcard else host


def is_listed(host: str, patterns: Iterable[str]) -> bool:
    """Whether a host matches one of the patterns; all in normal form.

    `*.example.com` matches every host below example.com, but not example.com itself.
    """
    return any(
        host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
        for pattern in patterns
    )


def is_public(address: IpAddress) -> bool:
    """Whether an address can be a server on the public internet (IANA special-purpose registries).

    For NAT64 the IPv4 address inside decides; other addresses that contain one are not public.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_SERVERS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
