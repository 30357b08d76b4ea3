"""A proxy in front of an S3 server that injects faults of networks and busy servers, by rules.

Requests are signed for the proxy's address. The server accepts them because the proxy forwards the
Host header as the client sent it.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Fault = Literal[
    "slow_down",  # 503, not forwarded
    "too_many",  # 429, not forwarded
    "broken",  # 500, not forwarded
    "broken_after",  # 500, after the server has done it
    "drop_before",  # no response, not forwarded
    "drop_after",  # no response, after the server has done it
    "drop_within",  # half of the response
    "slow",  # forwarded after `delay_s`
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
_ERROR_RESPONSES = {
    "slow_down": (503, "SlowDown"),
    "too_many": (429, "TooManyRequests"),
    "broken": (500, "InternalError"),
    "broken_after": (500, "InternalError"),
}


@dataclass
class Rule:
    """A fault for the first `times` requests of an operation, or for a random share of them.

    operation: its name in S3; empty: all operations.
    """

    fault: Fault
    operation: str = ""
    times: float = float("inf")
    share: float = 1.0
    delay_s: float = 0.0

    def hits(self, operation: str, dice: random.Random) -> bool:
        """Whether the rule applies to this request; if so, one of its `times` is used up."""
        if self.operation not in ("", operation) or self.times <= 0 or dice.random() >= self.share:
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """The rules for requests, and counts of requests by operation and of faults by kind.

    response_bytes: bytes of the server's responses by operation.
    """

    upstream: str
    address: str = ""
    rules: list[Rule] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    forwarded: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    response_bytes: Counter[str] = field(default_factory=Counter)
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, operation: str) -> Rule | None:
        """Count a request, and choose the rule that applies to it."""
        with self.lock:
            self.requests[operation] += 1
            for rule in self.rules:
                if rule.hits(operation, self.dice):
                    self.faults[rule.fault] += 1
                    return rule
        return None

    def clear(self) -> None:
        """Remove all rules and counts."""
        with self.lock:
            self.rules.clear()
            for counter in (self.requests, self.forwarded, self.faults, self.response_bytes):
                counter.clear()


@contextmanager
def serve_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at `upstream`."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients close connections often."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = operation_of(self.command, self.path)
        rule = self.proxy.fault_for(operation)
        fault = rule.fault if rule else None
        if rule:
            time.sleep(rule.delay_s)
        if fault in ("slow_down", "too_many", "broken"):
            self._refuse(*_ERROR_RESPONSES[fault])
        elif fault == "drop_before":
            self._hang_up()
        else:
            status, headers, content = self._forward(body)
            with self.proxy.lock:
                self.proxy.forwarded[operation] += 1
                self.proxy.response_bytes[operation] += len(content)
            if fault == "broken_after":
                self._refuse(*_ERROR_RESPONSES[fault])
            elif fault == "drop_after":
                self._hang_up()
            else:
                self._respond(status, headers, content, half=fault == "drop_within")

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    server.putheader(name, value)
            server.endheaders(body)
            response = server.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            server.close()

    def _respond(
        self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool
    ) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                lines.append(f"{name}: {value}")
        sent = {name.lower(): value for name, value in headers}
        length = sent.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        if status != 204:
            lines.append(f"Content-Length: {length}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if half:
            # Without a body, part of the head.
            self.wfile.write(head + content[: len(content) // 2] if content else head[:20])
            self._hang_up()
        else:
            self.wfile.write(head + content)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
        content = b"" if self.command == "HEAD" else text.encode()
        self._respond(status, [("Content-Type", "application/xml")], content, half=False)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def operation_of(method: str, path: str) -> str:
    """Name of an S3 operation, from its HTTP request."""
    url = urlsplit(path)
    query = parse_qs(url.query, keep_blank_values=True).keys()
    of_bucket = "/" not in url.path.strip("/")
    if method == "GET" and "list-type" in query:
        return "ListObjectsV2"
    special = {
        ("PUT", "partNumber"): "UploadPart",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
        ("POST", "delete"): "DeleteObjects",
    }
    for (verb, word), name in special.items():
        if verb == method and word in query:
            return name
    return method.capitalize() + ("Bucket" if of_bucket else "Object")
