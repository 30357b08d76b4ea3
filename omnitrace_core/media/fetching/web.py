"""Fetching web media from listed hosts.

Every hop of a redirect goes the same way: the URL is parsed, its host must be listed, the host is
resolved once, all its addresses must be public, and the connection goes to one of these very
addresses, where the certificate must be the host's. So a second answer of the DNS reaches nobody.
One deadline holds for everything. No credentials, cookies or proxies are used.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from string import punctuation
from typing import BinaryIO
from urllib.parse import quote, urljoin

from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import (
    MediaDenied,
    MediaEmpty,
    MediaError,
    MediaMissing,
    MediaTimeout,
    MediaTooLarge,
)
from omnitrace_core.media.fetching.web_connection import (
    Deadline,
    Dial,
    Resolve,
    await_result,
    dial_address,
    resolve_host,
    secure,
)
from omnitrace_core.media.isolation.heartbeat import report_progress
from omnitrace_core.options import MediaOptions
from omnitrace_core.web_access import (
    IpAddress,
    WebTarget,
    is_listed,
    is_public,
    parse_web_address,
)

_MOST_REDIRECTS = 5
_CONNECT_S = 10.0
_BLOCK_BYTES = 1 << 16
_HEADERS = {
    "User-Agent": "OmniTrace",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 403, 451})
_INSTEAD = "download the file first and give its path or its address in an object store"


@dataclass(frozen=True, slots=True)
class WebReader:
    """Copies web media under the limits of `options`.

    resolve, dial: how names become addresses, and addresses connections.
    ca_file: whom to trust; None: the authorities that the system trusts.
    These three are for tests: no config reaches them.
    """

    options: MediaOptions
    resolve: Resolve = resolve_host
    dial: Dial = dial_address
    ca_file: str | None = None

    def copy(self, url: str, target: BinaryIO) -> None:
        """Write what lies at a URL into a file, block by block.

        Raises:
            MediaDenied: an address or a redirect that this run may not read; the server refuses.
            MediaMissing: the server says there is nothing.
            MediaTooLarge: more than `media.max_bytes`, announced or sent.
            MediaEmpty: zero bytes.
            MediaTimeout: not all here within `media.web_timeout_s`.
            MediaError: no such host, no connection, no valid certificate, no whole answer.
        """
        deadline = Deadline(self.options.web_timeout_s)
        name = first = shown_address(url)
        for _ in range(1 + _MOST_REDIRECTS):
            with self._answer(url, name, deadline) as response:
                location = _location(response, name)
                if location is None:
                    self._copy_body(response, target, name)
                    return
            url = _join(url, location, name)
            name = f"{first}, redirected to {shown_address(url)}"
        raise MediaError(
            f"{name}: more than {_MOST_REDIRECTS} redirects; give the address that they end at, "
            f"or {_INSTEAD}"
        )

    @contextmanager
    def _answer(self, url: str, name: str, deadline: Deadline) -> Iterator[HTTPResponse]:
        """The head of one answer, whose body is still to be read."""
        web = self._checked(url, name)
        addresses = self._public_addresses(web.host, name, deadline)
        connected = self._dial_first(addresses, web.host, name, deadline)
        # It speaks HTTP on the connection that it is given, and may open none of its own.
        with closing(HTTPConnection(web.host)) as connection:
            connection.auto_open = 0
            with self._web_errors(name):
                connection.sock = secure(connected, web.host, self.ca_file, deadline)
                connection.request("GET", web.path, headers=_HEADERS)
                response = connection.getresponse()
            with response:
                yield response

    def _checked(self, url: str, name: str) -> WebTarget:
        """Host and target of a URL whose host is listed."""
        try:
            web = parse_web_address(url)
        except ValueError as error:
            raise MediaDenied(f"{name}: {error}; or {_INSTEAD}") from error
        listed = self.options.web_hosts
        if not is_listed(web.host, listed):
            raise MediaDenied(
                f"{name}: {web.host} is not in media.web_hosts={list(listed)}; add it if this run "
                f"may read from it, or {_INSTEAD}"
            )
        return web

    def _public_addresses(self, host: str, name: str, deadline: Deadline) -> list[IpAddress]:
        """The addresses of a host, all of them public."""
        try:
            found = await_result(functools.partial(self.resolve, host), deadline)
        except TimeoutError as error:
            raise self._timeout(name) from error
        except OSError as error:
            raise MediaError(
                f"{name}: the host name {host!r} cannot be resolved ({_reason(error)}); check its "
                "spelling and this machine's DNS"
            ) from error
        addresses = [ip_address(text) for text in dict.fromkeys(found)]
        for address in addresses:
            if not is_public(address):
                raise MediaDenied(
                    f"{name}: {host} resolves to {address}, which is no public address; {_INSTEAD}"
                )
        return addresses

    def _dial_first(
        self, addresses: Sequence[IpAddress], host: str, name: str, deadline: Deadline
    ) -> socket.socket:
        """A connection to the first address that takes one."""
        failures = []
        for address in addresses:
            try:
                return self.dial(address, min(_CONNECT_S, deadline.left_s()))
            except OSError as error:
                failures.append(f"{address}: {_reason(error)}")
        try:
            deadline.left_s()
        except TimeoutError as error:
            raise self._timeout(name) from error
        raise MediaError(
            f"{name}: no connection to port 443 of {host} ({'; '.join(failures[-4:])}); "
            f"try again later, or {_INSTEAD}"
        )

    def _copy_body(self, response: HTTPResponse, target: BinaryIO, name: str) -> None:
        limit = self.options.max_bytes
        remedy = (
            f"above media.max_bytes={limit:,}; raise the limit in the config or shrink the file"
        )
        _check_coding(response, name)
        announced = response.length
        if announced is not None and announced > limit:
            raise MediaTooLarge(f"{name}: {announced:,} bytes, {remedy}")
        n_bytes = 0
        while block := self._next_block(response, name):
            n_bytes += len(block)
            if n_bytes > limit:
                raise MediaTooLarge(f"{name}: more than {limit:,} bytes, {remedy}")
            target.write(block)
            report_progress()
        if announced is not None and n_bytes < announced:
            raise MediaError(
                f"{name}: cut short, {n_bytes:,} of {announced:,} bytes came; try again later"
            )
        if n_bytes == 0:
            raise MediaEmpty(f"{name}: zero bytes")

    def _next_block(self, response: HTTPResponse, name: str) -> bytes:
        with self._web_errors(name):
            return response.read(_BLOCK_BYTES)

    @contextmanager
    def _web_errors(self, name: str) -> Iterator[None]:
        """Errors of a connection, as ours."""
        try:
            yield
        except TimeoutError as error:
            raise self._timeout(name) from error
        except ssl.SSLCertVerificationError as error:
            raise MediaError(
                f"{name}: the certificate is not trusted ({error.verify_message}); correct the "
                "host name, or have its owner or this machine's certificates put in order"
            ) from error
        except (HTTPException, OSError) as error:
            raise MediaError(
                f"{name}: the connection broke, or what came is no whole answer "
                f"({_reason(error)}); try again later, or {_INSTEAD}"
            ) from error

    def _timeout(self, name: str) -> MediaTimeout:
        return MediaTimeout(
            f"{name}: not all here within media.web_timeout_s={self.options.web_timeout_s:g}; "
            f"raise the limit in the config, or {_INSTEAD}"
        )


def _location(response: HTTPResponse, name: str) -> str | None:
    """Where a redirect points to; None if the media is in this answer."""
    status = response.status
    if status == 200:
        return None
    location = response.getheader("Location")
    if status in _REDIRECTS and location:
        return location
    said = f"{name}: the server answers {status}"
    if status in _GONE:
        raise MediaMissing(f"{said}, nothing is there; correct the address")
    if status in _REFUSED:
        raise MediaDenied(
            f"{said}, it refuses: a signature may have expired, and no credentials are sent; "
            f"{_INSTEAD}"
        )
    raise MediaError(f"{said}; try again later, or {_INSTEAD}")


def _check_coding(response: HTTPResponse, name: str) -> None:
    """Refuse what would not be the file's own bytes: decompressing has no limit of size."""
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = response.getheader(header, "").strip() or plain
        if coding.lower() != plain:
            raise MediaError(
                f"{name}: its {header} is {coding[:20]!r}, which was not asked for; {_INSTEAD}"
            )


def _join(url: str, location: str, name: str) -> str:
    """The URL that a redirect from another one means."""
    try:
        # Bytes beyond ASCII arrive as Latin-1 and were most likely UTF-8.
        return urljoin(url, quote(location, safe=punctuation, encoding="latin-1"))
    except ValueError:
        # Not chained: its message may quote what `shown_address` hides.
        raise MediaDenied(f"{name}: redirects to what is no URL; {_INSTEAD}") from None


def _reason(error: Exception) -> str:
    """What went wrong in a few words, none of them the server's."""
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
