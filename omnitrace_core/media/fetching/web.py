"""Fetch web media from listed hosts.

The URL and that of each redirect pass the same steps: it is parsed; its host must be listed; the
host is resolved once; all its IP addresses must be public; the connection goes to one of these
addresses; the certificate must be the host's. So a later DNS response cannot redirect the
connection. One deadline covers all of it. No credentials, cookies or proxies are used.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from string import punctuation
from typing import Protocol
from urllib.parse import quote, urljoin

from omnitrace_core.access.web import IpAddress, is_public
from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import (
    MediaDenied,
    MediaEmpty,
    MediaError,
    MediaMissing,
    MediaTimeout,
    MediaTooLarge,
)
from omnitrace_core.media.fetching.gate import ALTERNATIVE, web_target
from omnitrace_core.media.fetching.web_connection import (
    Deadline,
    Dial,
    Resolve,
    await_result,
    dial_address,
    resolve_host,
    secure,
)
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.options import MediaOptions
from omnitrace_core.runtime.node_faults import check_handles, raise_if_node_fault

_MAX_REDIRECTS = 5
_CONNECT_TIMEOUT_S = 10.0
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


class Writable(Protocol):
    """What the content is written to."""

    def write(self, block: bytes, /) -> object:
        """Write all of a block."""
        ...


@dataclass(frozen=True, slots=True)
class WebReader:
    """Copies web media within the limits of `options`.

    Tests replace the other three, which no config sets. resolve: finds a host's IP addresses. dial:
    connects to one. ca_file: certificates to trust, None for those of the system.
    """

    options: MediaOptions
    resolve: Resolve = resolve_host
    dial: Dial = dial_address
    ca_file: str | None = None

    def copy(
        self, url: str, target: Writable, expect: Callable[[int], None] = lambda size: None
    ) -> None:
        """Write the content of a URL into a file, block by block.

        expect: called with the size before the first block, if the server announces it.

        Raises:
            MediaDenied: this run may not read the URL or a redirect's, or the server refuses.
            MediaMissing: the server responds that there is nothing.
            MediaTooLarge: more than `media.max_bytes`, announced or sent.
            MediaEmpty: zero bytes.
            MediaTimeout: not complete within `media.web_timeout_s`.
            MediaError: no such host, no connection, no valid certificate, no complete response.
        """
        deadline = Deadline(self.options.web_timeout_s)
        name = first = shown_address(url)
        for _ in range(1 + _MAX_REDIRECTS):
            with self._response(url, name, deadline) as response:
                location = _location(response, name)
                if location is None:
                    self._copy_body(response, target, expect, name)
                    return
            url = _join(url, location, name)
            name = f"{first}, redirected to {shown_address(url)}"
        raise MediaError(
            f"{name}: more than {_MAX_REDIRECTS} redirects; give the address that they end at, "
            f"or {ALTERNATIVE}"
        )

    @contextmanager
    def _response(self, url: str, name: str, deadline: Deadline) -> Iterator[HTTPResponse]:
        """The response to one request; its body is not read yet."""
        web = web_target(url, self.options, name)
        addresses = self._public_addresses(web.host, name, deadline)
        connected = self._dial_first(addresses, web.host, name, deadline)
        # It uses the connection made above, and must not open another.
        with closing(HTTPConnection(web.host)) as connection:
            connection.auto_open = 0
            with self._web_errors(name):
                connection.sock = secure(connected, web.host, self.ca_file, deadline)
                connection.request("GET", web.path, headers=_HEADERS)
                response = connection.getresponse()
            with response:
                yield response

    def _public_addresses(self, host: str, name: str, deadline: Deadline) -> list[IpAddress]:
        """The IP addresses of a host, if all of them are public."""
        try:
            found = await_result(functools.partial(self.resolve, host), deadline)
        except TimeoutError as error:
            raise self._timeout(name) from error
        except OSError as error:
            check_handles()
            raise MediaError(
                f"{name}: the host name {host!r} cannot be resolved ({_reason(error)}); check its "
                "spelling and this machine's DNS"
            ) from error
        addresses = [ip_address(text) for text in dict.fromkeys(found)]
        for address in addresses:
            if not is_public(address):
                raise MediaDenied(
                    f"{name}: {host} resolves to {address}, which is not a public address; "
                    f"{ALTERNATIVE}"
                )
        return addresses

    def _dial_first(
        self, addresses: Sequence[IpAddress], host: str, name: str, deadline: Deadline
    ) -> socket.socket:
        """A connection to the first address that accepts one."""
        failures = []
        for address in addresses:
            try:
                return self.dial(address, min(_CONNECT_TIMEOUT_S, deadline.left_s()))
            except OSError as error:
                raise_if_node_fault(error)
                failures.append(f"{address}: {_reason(error)}")
        try:
            deadline.left_s()
        except TimeoutError as error:
            raise self._timeout(name) from error
        raise MediaError(
            f"{name}: no connection to port 443 of {host} ({'; '.join(failures[-4:])}); "
            f"try again later, or {ALTERNATIVE}"
        )

    def _copy_body(
        self, response: HTTPResponse, target: Writable, expect: Callable[[int], None], name: str
    ) -> None:
        limit = self.options.max_bytes
        remedy = (
            f"above media.max_bytes={limit:,}; raise the limit in the config or shrink the file"
        )
        _check_coding(response, name)
        announced = response.length
        if announced is not None and announced > limit:
            raise MediaTooLarge(f"{name}: {announced:,} bytes, {remedy}")
        if announced is not None:
            expect(announced)
        n_bytes = 0
        while block := self._next_block(response, name):
            n_bytes += len(block)
            if n_bytes > limit:
                raise MediaTooLarge(f"{name}: more than {limit:,} bytes, {remedy}")
            target.write(block)
            report_progress()
        if announced is not None and n_bytes < announced:
            raise MediaError(
                f"{name}: incomplete, {n_bytes:,} of {announced:,} bytes arrived; try again later"
            )
        if n_bytes == 0:
            raise MediaEmpty(f"{name}: zero bytes")

    def _next_block(self, response: HTTPResponse, name: str) -> bytes:
        with self._web_errors(name):
            return response.read(_BLOCK_BYTES)

    @contextmanager
    def _web_errors(self, name: str) -> Iterator[None]:
        """Raise errors of a connection as media errors."""
        try:
            yield
        except TimeoutError as error:
            raise self._timeout(name) from error
        except ssl.SSLCertVerificationError as error:
            raise MediaError(
                f"{name}: the certificate is not trusted ({error.verify_message}); correct the "
                "host name, or have the server's or this machine's certificates corrected"
            ) from error
        except (HTTPException, OSError) as error:
            raise MediaError(
                f"{name}: the connection broke, or the response is not complete and valid "
                f"({_reason(error)}); try again later, or {ALTERNATIVE}"
            ) from error

    def _timeout(self, name: str) -> MediaTimeout:
        return MediaTimeout(
            f"{name}: not complete within media.web_timeout_s={self.options.web_timeout_s:g}; "
            f"raise the limit in the config, or {ALTERNATIVE}"
        )


def _location(response: HTTPResponse, name: str) -> str | None:
    """Where a redirect leads; None if this response holds the media."""
    status = response.status
    if status == 200:
        return None
    location = response.getheader("Location")
    if status in _REDIRECTS and location:
        return location
    problem = f"{name}: the server responds {status}"
    if status in _GONE:
        raise MediaMissing(f"{problem}, nothing is there; correct the address")
    if status in _REFUSED:
        raise MediaDenied(
            f"{problem}, it refuses access: a signature may have expired, and no credentials are "
            f"sent; {ALTERNATIVE}"
        )
    raise MediaError(f"{problem}; try again later, or {ALTERNATIVE}")


def _check_coding(response: HTTPResponse, name: str) -> None:
    """Refuse encoded bodies: their decompressed size would have no limit."""
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = response.getheader(header, "").strip() or plain
        if coding.lower() != plain:
            raise MediaError(
                f"{name}: its {header} is {coding[:20]!r}, which was not requested; {ALTERNATIVE}"
            )


def _join(url: str, location: str, name: str) -> str:
    """The URL that a redirect from `url` leads to."""
    try:
        # Bytes beyond ASCII arrive decoded as Latin-1, but were most likely UTF-8.
        return urljoin(url, quote(location, safe=punctuation, encoding="latin-1"))
    except ValueError:
        # Without the cause: its message may quote what `shown_address` hides.
        raise MediaDenied(f"{name}: redirects to an invalid URL; {ALTERNATIVE}") from None


def _reason(error: Exception) -> str:
    """A short cause that contains no text of the server."""
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
