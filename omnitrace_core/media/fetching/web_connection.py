"""Connections to a known IP address, with TLS, under one deadline."""

from __future__ import annotations

import functools
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from omnitrace_core.access.web import IpAddress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Resolve: a host name -> its IP addresses as text.
# Dial: an IP address and a time limit in seconds -> a connection to its port 443.
Resolve = Callable[[str], Sequence[str]]
Dial = Callable[[IpAddress, float], socket.socket]


class Deadline:
    """A point in time after which all waiting ends with a TimeoutError."""

    def __init__(self, limit_s: float) -> None:
        self._end_s = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds left, more than 0. Raises: TimeoutError."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


class TimedSocket(ssl.SSLSocket):
    """A TLS socket whose reads together end at a deadline.

    A time limit for each read would not stop a server that sends one byte at a time.
    """

    deadline: Deadline | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        if self.deadline is not None:
            self.settimeout(self.deadline.left_s())
        return super().recv_into(buffer, nbytes, flags)


def resolve_host(host: str) -> list[str]:
    """All IP addresses of a host, from the system's resolver. Raises: OSError."""
    # As bytes: Python would convert a str by IDNA, possibly to another name.
    found = socket.getaddrinfo(host.encode("ascii"), 443, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def dial_address(address: IpAddress, limit_s: float) -> socket.socket:
    """A connection to port 443 of an address. Raises: OSError."""
    return socket.create_connection((str(address), 443), timeout=limit_s)


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that verifies certificates and host names.

    ca_file: certificates to trust; None: the system's, which take about 20 ms to read.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = TimedSocket
    context.set_alpn_protocols(["http/1.1"])
    return context


def secure(
    connected: socket.socket, host: str, ca_file: str | None, deadline: Deadline
) -> TimedSocket:
    """Start TLS on a connection, which the result owns. ca_file: as in `tls_context`.

    Raises:
        OSError: no valid certificate for this host, no TLS, or a timeout.
    """
    try:
        connected.settimeout(deadline.left_s())
        # An end without TLS's closing message is an error: somebody may have cut the connection.
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
    """Return the result of a call that cannot be given a time limit.

    After the deadline, the call's thread is left running.

    Raises:
        OSError: what the call raises.
        TimeoutError: the deadline passed.
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
