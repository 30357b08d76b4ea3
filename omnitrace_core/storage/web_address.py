"""Web addresses: how they are shown, which hosts are listed, which IP addresses are public.

Nothing here touches the network; `media/web.py` fetches under these rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias
from urllib.parse import quote, urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

_LONGEST_SHOWN = 200
# What servers are asked to take, and most take no more (RFC 9110, 4.1).
_LONGEST_URL = 8000
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What resolvers take for an IPv4 address in decimal, octal or hexadecimal: no such top-level domain
# exists.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Characters of RFC 3986 that stand for themselves in a path or query, and the escapes of others.
_KEPT = "%/?:@!$&'()*+,;="

# IPv6 addresses are handed out of this block alone (IANA), so mapped, compatible, unique-local,
# link-local, site-local and multicast ones lie outside.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 6052: the last 32 bits are the IPv4 address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")
# What `is_global` of some Python lets through, though no public server has an address there.
_NOT_SERVERS = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    IPv4Network("192.88.99.0/24"),  # relays to 6to4, RFC 7526
    IPv4Network("168.63.129.16/32"),  # what a cloud (Azure) tells its own machines
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("2002::/16"),  # 6to4, RFC 7526: an IPv4 address inside
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
)


@dataclass(frozen=True, slots=True)
class WebAddress:
    """What is asked of whom: the host in normal form, and the escaped path with its query."""

    host: str
    target: str


def is_web(uri: str) -> bool:
    """Whether this is an address of the web, allowed or not."""
    return uri.lower().startswith(("https://", "http://"))


def shown_address(uri: str) -> str:
    """A path or URL, short and fit for a message: what follows ? or # may be a signature.

    A web address is shown as scheme, host and path; names of files and objects may hold a ?.
    """
    if "://" in uri and "http" in uri.partition("://")[0].lower():
        scheme, _, rest = uri.partition("://")
        kept = re.split("[?#]", rest, maxsplit=1)[0]
        authority, slash, path = kept.partition("/")
        # What stands before an @ may be a password.
        host = authority.rpartition("@")[2]
        uri = f"{scheme}://{host}{slash}{path}"
        if kept != rest:
            return f"{_short(uri)}?…"
    return _short(uri)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def parse_web_address(url: str) -> WebAddress:
    """The host and target of an https URL.

    Raises:
        ValueError: another scheme, no host name, a user name, a port other than 443, or far too
            long; the message holds nothing of the URL that `shown_address` hides.
    """
    if len(url) > _LONGEST_URL:
        raise ValueError(f"{len(url):,} characters, where servers take {_LONGEST_URL:,} at most")
    try:
        parts = urlsplit(url)
        port = parts.port
        target = quote(parts.path or "/", safe=_KEPT)
        if parts.query:
            target += "?" + quote(parts.query, safe=_KEPT)
    except ValueError:
        # Not chained: its message may quote the address as a whole.
        raise ValueError("this is not a valid URL; give https://host/path") from None
    if parts.scheme == "http":
        raise ValueError(
            "http:// is never read, since anyone on the way may change it; use https://"
        )
    if parts.scheme != "https":
        raise ValueError(f"{parts.scheme}:// is not read from the web; give https://host/path")
    if "@" in parts.netloc:
        raise ValueError("no user name or password is sent; leave out what stands before the @")
    if port not in (None, 443):
        raise ValueError(f"port {port} is not read, only 443 is")
    host = host_name(parts.hostname or "")
    return WebAddress(host, target)


def host_name(text: str) -> str:
    """A host name in normal form: lower case, no dot at the end.

    Letters beyond ASCII are refused, not mapped: the two versions of IDNA map some names to
    different hosts, and the list has to mean one.

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
    """An entry of the list in normal form: a host name, or `*.` and a domain.

    Raises:
        ValueError: neither of them; or all of a top-level domain.
    """
    wild = text.startswith("*.")
    try:
        host = host_name(text[2:] if wild else text)
    except ValueError as error:
        raise ValueError(
            f"{error}; entries are hosts alone, such as media.example.com or *.example.com"
        ) from error
    if wild and "." not in host:
        raise ValueError(f"{text!r} lists all of a top-level domain; name the domain")
    return f"*.{host}" if wild else host


def is_listed(host: str, patterns: Iterable[str]) -> bool:
    """Whether a host is on the list; both in normal form.

    `*.example.com` stands for every host below example.com, and not for example.com itself.
    """
    return any(
        host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
        for pattern in patterns
    )


def is_public(address: Address) -> bool:
    """Whether an address is a server's on the public internet (IANA's special-purpose registries).

    An IPv4 address behind NAT64 is judged as itself; other addresses with one inside are refused.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_SERVERS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
