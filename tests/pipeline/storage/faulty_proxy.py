"""A proxy before an S3 server that does what networks and busy servers do, by rules.

Requests are signed for the proxy's address; the server accepts them because it gets the Host header
as the client sent it.
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
    "broken_after",  # 500, though the server did it
    "drop_before",  # no answer, not forwarded
    "drop_after",  # no answer, though the server did it
    "drop_within",  # half of the answer
    "slow",  # forwarded after `delay_s`
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "too_many": (429, "TooManyRequests"),
    "broken": (500, "InternalError"),
    "broken_after": (500, "InternalError"),
}


@dataclass
class Rule:
    """A fault for the first `times` requests of an operation, or for a random share of them.

    operation: as S3 calls it; empty: every one.
    """

    fault: Fault
    operation: str = ""
    times: float = float("inf")
    share: float = 1.0
    delay_s: float = 0.0

    def hits(self, operation: str, dice: random.Random) -> bool:
        """Whether it is for this request; counts it then."""
        if self.operation not in ("", operation) or self.times <= 0 or dice.random() >= self.share:
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """What to do with requests, and what was met."""

    upstream: str
    address: str = ""
    rules: list[Rule] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    forwarded: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, operation: str) -> Rule | None:
        """Count a request, and draw what shall happen to it."""
        with self.lock:
            self.asked[operation] += 1
            for rule in self.rules:
                if rule.hits(operation, self.dice):
                    self.faults[rule.fault] += 1
                    return rule
        return None

    def clear(self) -> None:
        """Forget the rules and the counts."""
        with self.lock:
            self.rules.clear()
            for counter in (self.asked, self.forwarded, self.faults):
                counter.clear()


@contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`."""
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
        """Clients hang up; nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = operation_of(self.command, self.path)
        rule = self.proxy.fault_for(operation)
        fault = rule.fault if rule else None
        if rule:
            time.sleep(rule.delay_s)
        if fault in ("slow_down", "too_many", "broken"):
            self._refuse(*_ANSWERS[fault])
        elif fault == "drop_before":
            self._hang_up()
        else:
            status, headers, content = self._forward(body)
            with self.proxy.lock:
                self.proxy.forwarded[operation] += 1
            if fault == "broken_after":
                self._refuse(*_ANSWERS[fault])
            elif fault == "drop_after":
                self._hang_up()
            else:
                self._answer(status, headers, content, half=fault == "drop_within")

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        there = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    there.putheader(name, value)
            there.endheaders(body)
            answer = there.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            there.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool
    ) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                lines.append(f"{name}: {value}")
        told = dict((name.lower(), value) for name, value in headers)
        length = told.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        if status != 204:
            lines.append(f"Content-Length: {length}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if half:
            # Of an answer without a body, half of the head.
            self.wfile.write(head + content[: len(content) // 2] if content else head[:20])
            self._hang_up()
        else:
            self.wfile.write(head + content)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>"
        content = b"" if self.command == "HEAD" else text.encode()
        self._answer(status, [("Content-Type", "application/xml")], content, half=False)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def operation_of(method: str, path: str) -> str:
    """What S3 calls a request."""
    url = urlsplit(path)
    asked = parse_qs(url.query, keep_blank_values=True).keys()
    of_bucket = "/" not in url.path.strip("/")
    if method == "GET" and "list-type" in asked:
        return "ListObjectsV2"
    special = {
        ("PUT", "partNumber"): "UploadPart",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
        ("POST", "delete"): "DeleteObjects",
    }
    for (verb, word), name in special.items():
        if verb == method and word in asked:
            return name
    return method.capitalize() + ("Bucket" if of_bucket else "Object")
