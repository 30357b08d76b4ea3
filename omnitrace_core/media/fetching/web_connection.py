"""Connections that are dialled to a known address, speak TLS, and keep to one deadline."""

from __future__ import annotations

import functools
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from omnitrace_core.web_access import IpAddress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A host name -> its IP addresses as text; an address and seconds -> a connection to its port 443.
Resolve = Callable[[str], Sequence[str]]
Dial = Callable[[IpAddress, float], socket.socket]


class Deadline:
    """A moment after which everything that waits gives up."""

    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds left, more than 0. Raises: TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class TimedSocket(ssl.SSLSocket):
    """Waits until its deadline, however many times it is read: a limit per read can be dripped."""

    deadline: Deadline | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        if self.deadline is not None:
            self.settimeout(self.deadline.left_s())
        return super().recv_into(buffer, nbytes, flags)


def resolve_host(host: str) -> list[str]:
    """All addresses of a host by the system's resolver. Raises: OSError."""
    # As bytes, so that no codec maps the name to another.
    found = socket.getaddrinfo(host.encode("ascii"), 443, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


def dial_address(address: IpAddress, limit_s: float) -> socket.socket:
    """A connection to port 443 of an address. Raises: OSError."""
    return socket.create_connection((str(address), 443), timeout=limit_s)


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Verifies certificates and host names; reading the system's authorities takes some 20 ms."""
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = TimedSocket
    context.set_alpn_protocols(["http/1.1"])
    return context


def secure(
    connected: socket.socket, host: str, ca_file: str | None, deadline: Deadline
) -> TimedSocket:
    """TLS with the host on a connection, which it takes over; ca_file as in `tls_context`.

    Raises:
        OSError: no certificate for this host, no TLS, or not in time.
    """
    try:
        connected.settimeout(deadline.left_s())
        # An end without TLS's own farewell may be someone's cut, so it is an error.
        secured = tls_context(ca_file).wrap_socket(
            connected, server_hostname=host, suppress_ragged_eofs=False
        )
    except OSError:
        connected.close()
        raise
    assert isinstance(secured, TimedSocket)
    secured.deadline = deadline
    return secured


def await_result(work: Callable[[], Sequence[str]], deadline: Deadline) -> Sequence[str]:
    """The result of a call that knows no limit; past the deadline its thread is left behind.

    Raises: OSError of the call; TimeoutError.
    """
    done: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

    def call() -> None:
        try:
            done.put(work())
        except OSError as error:
            done.put(error)

    threading.Thread(target=call, name="resolve", daemon=True).start()
    try:
        result = done.get(timeout=deadline.left_s())
    except queue.Empty as error:
        raise TimeoutError from error
    if isinstance(result, OSError):
        raise result
    return result
