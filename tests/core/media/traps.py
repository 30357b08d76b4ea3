"""Notice whoever opens a planted file or sends to a port of this machine.

The kernel reports each opening of a file (inotify), also by libraries that are not Python.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_ACCESSED, _OPENED = 0x01, 0x20


class Traps:
    """Planted files and listening ports.

    files: the planted ones. port: of TCP and UDP at 127.0.0.1.
    """

    def __init__(self, files: list[Path], inotify: int, tcp: socket.socket, udp: socket.socket):
        self.files = files
        self.port = int(tcp.getsockname()[1])
        self._inotify, self._tcp, self._udp = inotify, tcp, udp

    def touched(self) -> list[str]:
        """What was opened or reached since the last call."""
        found = []
        try:
            if os.read(self._inotify, 1 << 16):
                found.append("a planted file was opened")
        except BlockingIOError:
            pass
        try:
            while True:
                self._tcp.accept()[0].close()
                found.append("a connection was made")
        except BlockingIOError:
            pass
        try:
            self._udp.recvfrom(1)
            found.append("a datagram came")
        except BlockingIOError:
            pass
        return found


@contextmanager
def set_traps(files: list[Path]) -> Iterator[Traps]:
    """Watch files that exist already, and listen."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert inotify >= 0, os.strerror(ctypes.get_errno())
        stack.callback(os.close, inotify)
        for file in files:
            watch = libc.inotify_add_watch(inotify, os.fsencode(file), _ACCESSED | _OPENED)
            assert watch >= 0, os.strerror(ctypes.get_errno())
        tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(64)
        tcp.setblocking(False)
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        udp.setblocking(False)
        yield Traps(files, inotify, tcp, udp)
