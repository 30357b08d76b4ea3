"""Make decoders fail by the names of files. Python runs this at its start (PYTHONPATH).

Only in the decoder's child process: opening `aborts.*` kills it as a broken C library would,
opening `hangs.*` never returns, and opening `swells.*` takes all memory. The file SIMULATED_WEB
replaces the web there. Its JSON has `hosts` with their addresses, the `port` of a server on this
machine that replaces the address `public`, and the `authorities` whose certificates are trusted.
Each address that is connected to is appended to the file `connected`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    name = os.path.basename(os.fspath(arguments[0]))
    if name.startswith("aborts."):
        os.abort()
    if name.startswith("hangs."):
        time.sleep(1_000_000)
    if name.startswith("swells."):
        taken = []
        while True:
            taken.append(b"x" * (16 << 20))
            time.sleep(0.005)


def _simulate_web(path: str) -> None:
    with open(path) as file:
        web = json.load(file)
    os.environ["SSL_CERT_FILE"] = web["authorities"]

    def resolve(host: bytes, port: int, **_: object) -> list[tuple[object, ...]]:
        addresses = web["hosts"].get(host.decode())
        if addresses is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in addresses]

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        with open(web["connected"], "a") as file:
            file.write(f"{address[0]}:{address[1]}\n")
        if address != (web["public"], 443):
            raise ConnectionRefusedError(f"{address} must not be connected to")
        connected = socket.socket()
        connected.settimeout(timeout)
        connected.connect(("127.0.0.1", web["port"]))
        return connected

    socket.getaddrinfo = resolve  # type: ignore[assignment]
    socket.create_connection = connect  # type: ignore[assignment]


if any("omnitrace_core.media.isolation.child_main" in argument for argument in sys.orig_argv):
    sys.addaudithook(_watch)
    if "SIMULATED_WEB" in os.environ:
        _simulate_web(os.environ["SIMULATED_WEB"])
