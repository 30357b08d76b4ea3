"""A TLS server on loopback that answers byte for byte as told, and a DNS that points to it."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.options import MediaOptions
from omnitrace_core.web_access import IpAddress
from tests.conftest import ROOT

# Key and certificate for media.example.com and other.example.com.
PEM = ROOT / "tests" / "data" / "web_server.pem"
PUBLIC = "93.184.216.34"
URL = "https://media.example.com/a.png"
LISTED = ("media.example.com", "third.example.com")
BODY = bytes(range(256)) * 700  # several blocks
HOSTS = ("media.example.com", "other.example.com", "third.example.com")

# What is sent after a request: bytes, or what does the sending.
Answer = bytes | Callable[[ssl.SSLSocket], None]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer; headers as `content_type="image/png"`."""
    told = {"Content-Length": str(len(body))}
    told |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    head = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class WebServer:
    """Answers GETs on a thread each; `requests` are the heads that came, `names` those of TLS."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.names: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(PEM)
        self._tls.sni_callback = self._note_name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop accepting and wait for answers that are under way."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _note_name(self, _: ssl.SSLSocket, name: str, __: ssl.SSLContext) -> None:
        self.names.append(name)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connected,)))
                self._threads[-1].start()

    def _serve(self, connected: socket.socket) -> None:
        connected.settimeout(10)
        # Clients that hang up on us are what many tests are about.
        with connected, suppress(OSError), self._tls.wrap_socket(connected, True) as secured:
            head = b""
            while b"\r\n\r\n" not in head and (block := secured.recv(1 << 16)):
                head += block
            self.requests.append(head.decode("ascii"))
            told = self.answers[head.split()[1].decode("ascii")]
            if isinstance(told, bytes):
                secured.sendall(told)
            else:
                told(secured)
            # TLS's farewell: without it the client sees a cut.
            secured.unwrap()


class Web:
    """The web as a reader sees it: every known host is at a public address, behind it our server.

    addresses: per host what each look-up gives, the last one for ever.
    """

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.answers = server.answers
        self.addresses: dict[str, list[list[str]]] = {host: [[PUBLIC]] for host in HOSTS}
        self.asked: list[str] = []
        self.dialled: list[str] = []

    def resolve(self, host: str) -> list[str]:
        """The next answer of the DNS."""
        self.asked.append(host)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        lookups = self.addresses[host]
        return lookups.pop(0) if len(lookups) > 1 else lookups[0]

    def dial(self, address: IpAddress, limit_s: float) -> socket.socket:
        """Our server, whatever the address."""
        self.dialled.append(str(address))
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=limit_s)

    def reader(self, options: MediaOptions) -> WebReader:
        """A reader in this web, which trusts our server's certificate."""
        return WebReader(options, self.resolve, self.dial, str(PEM))


@contextmanager
def serve_web() -> Iterator[Web]:
    """A web that ends with the block."""
    server = WebServer()
    try:
        yield Web(server)
    finally:
        server.close()


def get(web: Web, url: str = URL, **options: object) -> bytes:
    """What a reader writes, with the options of `media.*`."""
    target = io.BytesIO()
    chosen = MediaOptions(**{"web_hosts": LISTED, "web_timeout_s": 30, **options})
    web.reader(chosen).copy(url, target)
    return target.getvalue()
