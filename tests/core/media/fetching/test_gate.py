"""Addresses that are denied cause no request, whatever they are; loopback servers count them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import fsspec
import pytest

from omnitrace_core.errors import MediaDenied, MediaError, MediaMissing, SampleError
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.media.fetching.store_errors import store_errors
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

DENIED = """
    s3://evil/a.png  s3://evil/a.png?sig=PLANTED  s3a://me:PLANTED@evil/a.png  s3://bucket/../evil/a
    s3://bucket-evil/a.png  s3://bucket/folder-2/a.png  s3://bucket  s3://bucket/a\0  s3://
    s3://bucket/folder/a?versionId=1  S3://evil/a  s3://bucket//a  s3://127.0.0.1/a
    hf://datasets/evil/repo/a.png  hf://evil/repo@main/a.png  hf://evil/repo/a.png  hf://  hf://x
    hf://datasets/mine/repo@other/a.png  hf://datasets/mine/repository/a.png
    gs://evil/a  gs://  az://evil/a  abfs://box@evil/a  oci://a@b/c  oss://evil/a  adl://evil/a
    github://evil:repo@main/a.png  ftp://{host}/a.png  webhdfs://{host}/a.png  smb://{host}/a
    hdfs://{host}/a  sftp://{host}/a  memory://evil/a  unknown://{host}/a  ://a  git://a/b
    zip://a.png::http://{host}/a.zip  simplecache::http://{host}/a  simplecache::s3://evil/a
    filecache::hf://evil/repo/a  reference://::http://{host}/a  dask://{host}/a
    jupyter://{host}/?token=PLANTED  http://{host}/a.png  https://{host}/a.png
    data:image/png;base64,AAAA  generic://http://{host}/a  dir://::s3://bucket/folder
"""
# Allowed by the settings, so these do send requests: otherwise the count would prove nothing.
ASKED = ("s3://bucket/folder/a.png", "hf://datasets/mine/repo/a.png")
SETTINGS = {"allow": ["s3://bucket/folder/", "hf://datasets/mine/repo/", "gs://mine/", "sftp://h/"]}
CHILD = """
import json, sys
from omnitrace_core.errors import SampleError
from omnitrace_core.media.fetching.fetch import read_media
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
settings, addresses = json.loads(sys.argv[1])
for index, address in enumerate(addresses):
    try:
        read_media(Part("image", uri=address), MediaOptions(**settings))
    except SampleError as error:
        print(json.dumps([index, error.code, error.message]))
"""


class Server(ThreadingHTTPServer):
    """Answers every request with 404 and keeps its line and headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(f"{self.requestline}\n{self.headers}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Without a line on stderr per request."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def _read_in_child(server: Server, addresses: list[str]) -> list[tuple[int, str, str]]:
    """Index, code and message of each, from a process whose credentials lead to the server."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_"))},
        "AWS_ENDPOINT_URL": f"http://{server.host}",
        "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
        "AWS_SECRET_ACCESS_KEY": "PLANTED-secret",
        "HF_ENDPOINT": f"http://{server.host}",
        "HF_TOKEN": "hf_PLANTED",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([SETTINGS, addresses])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PLANTED" not in done.stdout + done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_denied_addresses_send_nothing(server: Server) -> None:
    addresses = [address.format(host=server.host) for address in DENIED.split()]
    found = _read_in_child(server, addresses)
    assert [index for index, _, _ in found] == list(range(len(addresses)))
    assert {code for _, code, _ in found} == {"media_denied"}
    assert server.requests == []


def test_allowed_addresses_do_send_requests(server: Server) -> None:
    found = _read_in_child(server, [*ASKED, "gs://mine/a.png", "sftp://h/a.png"])
    assert {code for _, code, _ in found} == {"media_missing", "media_error", "media_denied"}
    assert any("AKIAPLANTED" in request for request in server.requests)
    assert any("hf_PLANTED" in request for request in server.requests)
    # The file systems of the last two are not installed.
    for _, code, message in found[2:]:
        assert code == "media_denied"
        assert "is not installed" in message


def test_chain_that_an_entry_names() -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/a.bin", b"content")
    fsspec.filesystem("memory").pipe_file("/gate/a.zip", packed.getvalue())
    part = Part("image", uri="zip://in/a.bin::memory://gate/a.zip")
    options = MediaOptions(allow=("zip://in/::memory://gate/",))
    assert read_media(part, options) == b"content"
    with media_path(part, options) as path:
        assert path.read_bytes() == b"content"
    with pytest.raises(MediaDenied, match=r"lies in no entry of media\.allow=\['memory://gate/'\]"):
        read_media(part, MediaOptions(allow=("memory://gate/",)))
    with pytest.raises(MediaMissing, match="no such object"):
        read_media(Part("image", uri="zip://in/b::memory://gate/a.zip"), options)


def test_what_is_denied_names_the_remedy() -> None:
    part = Part("image", uri="s3://bucket/folder/a.png")
    with pytest.raises(MediaDenied, match=r"all of s3://bucket/, to media\.allow \(in Python"):
        read_media(part, MediaOptions())
    with pytest.raises(MediaDenied, match=r"media\.allow=\[\]; add its folder"):
        read_media(part, MediaOptions(allow=()))


class Odd(Exception):
    """An exception of a store's client, of no type that we know."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Odd("GET https://me:word@host/a?sig=PLANTED1: Authorization: Bearer PLANTED2"),
            MediaError,
        ),
        (OSError("token=PLANTED1 at s3://me:word@bucket/a?X-Amz-Signature=PLANTED2"), MediaError),
        (PermissionError("'secret_key': 'PLANTED12' for me:word@host"), MediaDenied),
        (ImportError("pip install from https://me:word@host/?PLANTED1"), MediaDenied),
        (KeyError("account_name"), MediaError),
        (ValueError("planted-in-environment"), MediaError),
    ],
)
def test_errors_of_stores_show_no_secrets(
    error: Exception, expected: type[SampleError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "planted-in-environment")
    part = Part("image", uri="gs://bucket/a.png")
    with pytest.raises(expected, match=r"gs://bucket/a\.png: .*") as caught, store_errors(part):
        raise error
    for secret in ("PLANTED", "word", "planted"):
        assert secret not in caught.value.message
    assert type(caught.value) is expected
