"""A TLS server on loopback that sends given bytes, and a fake DNS that points to it."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from omnitrace_core.access.web import IpAddress
from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.media.fetching.web_connection import Dial, Resolve
from omnitrace_core.options import MediaOptions
from tests.conftest import ROOT

# Key and certificate for media.example.com and other.example.com.
PEM = ROOT / "tests" / "data" / "web_server.pem"
PUBLIC = "93.184.216.34"
URL = "https://media.example.com/a.png"
LISTED = ("media.example.com", "third.example.com")
BODY = bytes(range(256)) * 700  # several blocks
HOSTS = ("media.example.com", "other.example.com", "third.example.com")

# A response: its bytes, or a function that sends them.
Response = bytes | Callable[[ssl.SSLSocket], None]


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A complete response; headers as `content_type="image/png"`."""
    fields = {"Content-Length": str(len(body))}
    fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    head = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class WebServer:
    """Serves each GET on its own thread.

    responses: by path. requests: the heads received. names: the host names that TLS asked for.
    """

    def __init__(self) -> None:
        self.responses: dict[str, Response] = {}
        self.requests: list[str] = []
        self.names: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(PEM)
        self._tls.sni_callback = self._record_name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop accepting and wait for responses that are being sent."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _record_name(
        self, _: ssl.SSLSocket | ssl.SSLObject, name: str | None, __: ssl.SSLContext
    ) -> None:
        self.names.append(name or "")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connected,)))
                self._threads[-1].start()

    def _serve(self, connected: socket.socket) -> None:
        connected.settimeout(10)
        # In many tests the client closes the connection first.
        with connected, suppress(OSError), self._tls.wrap_socket(connected, True) as secured:
            head = b""
            while b"\r\n\r\n" not in head and (block := secured.recv(1 << 16)):
                head += block
            self.requests.append(head.decode("ascii"))
            content = self.responses[head.split()[1].decode("ascii")]
            if isinstance(content, bytes):
                secured.sendall(content)
            else:
                content(secured)
            # TLS's closing message: without it the client sees a broken connection.
            secured.unwrap()


class Web:
    """The web as a reader sees it: all known hosts have public addresses, which lead to our server.

    addresses: by host, the results of successive DNS look-ups; the last one repeats. lookups and
    dialled: the hosts looked up and the addresses connected to, in order. Tests may replace
    `resolve` and `dial`.
    """

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.responses = server.responses
        self.addresses: dict[str, list[list[str]]] = {host: [[PUBLIC]] for host in HOSTS}
        self.lookups: list[str] = []
        self.dialled: list[str] = []
        self.resolve: Resolve = self.next_addresses
        self.dial: Dial = self.connect

    def next_addresses(self, host: str) -> list[str]:
        """The result of the next DNS look-up of a host."""
        self.lookups.append(host)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        results = self.addresses[host]
        return results.pop(0) if len(results) > 1 else results[0]

    def connect(self, address: IpAddress, limit_s: float) -> socket.socket:
        """A connection to our server, for any address."""
        self.dialled.append(str(address))
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=limit_s)

    def reader(self, options: MediaOptions) -> WebReader:
        """A reader of this web; it trusts our server's certificate."""
        return WebReader(options, self.resolve, self.dial, str(PEM))


@contextmanager
def serve_web() -> Iterator[Web]:
    """A web whose server stops after the block."""
    server = WebServer()
    try:
        yield Web(server)
    finally:
        server.close()


def get(web: Web, url: str = URL, **options: object) -> bytes:
    """The bytes that a reader copies from a URL, with options of `media`."""
    target = io.BytesIO()
    media = MediaOptions.model_validate({"web_hosts": LISTED, "web_timeout_s": 30, **options})
    web.reader(media).copy(url, target)
    return target.getvalue()
