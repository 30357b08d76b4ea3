"""Runs a real S3 server for tests: SeaweedFS on loopback, with its own ports and folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

KEY, SECRET = "omnitrace-tests", "not-a-secret-of-anyone"
_READY_S = 60.0


def binary() -> str | None:
    """Path of the SeaweedFS program, beside this Python or on PATH; None if not installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


@contextmanager
def serve_s3(folder: Path) -> Iterator[str]:
    """Run the server on a folder; yields its address."""
    program = binary()
    assert program is not None
    settings = folder / "s3.json"
    access = {"credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    settings.write_text(json.dumps({"identities": [{"name": "tests", **access}]}))
    (folder / "data").mkdir()
    with ExitStack() as stack:
        yield _start(stack, program, folder, settings)


def _start(stack: ExitStack, program: str, folder: Path, settings: Path) -> str:
    """Start the server, which is stopped when the stack is closed; returns its address."""
    for is_last in (False, False, True):
        ports = _free_ports(5)
        with ExitStack() as trial:
            log = trial.enter_context((folder / "log").open("wb"))
            server = subprocess.Popen(
                [program, *_flags(folder, settings, ports)], stdout=log, stderr=log, cwd=folder
            )
            trial.callback(server.wait)
            trial.callback(server.kill)
            try:
                _wait(server, ports[-1], folder / "log")
            except RuntimeError:
                # Another process may have taken one of its ports meanwhile.
                if is_last:
                    raise
                continue
            stack.enter_context(trial.pop_all())
            return f"http://127.0.0.1:{ports[-1]}"
    raise AssertionError("unreachable")


def environment(address: str) -> dict[str, str]:
    """The AWS variables with which clients find the server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _flags(folder: Path, settings: Path, ports: list[int]) -> list[str]:
    master, volume, filer, metrics, s3 = ports
    return [
        "server",
        "-s3",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *_with_grpc("master", master),
        *_with_grpc("volume", volume),
        *_with_grpc("filer", filer),
        *_with_grpc("s3", s3),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",  # as in S3
        f"-s3.config={settings}",
        f"-metricsPort={metrics}",
        # Each bucket gets its own volumes: small ones, and many.
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        "-master.telemetry=false",
    ]


def _with_grpc(part: str, port: int) -> tuple[str, str]:
    return f"-{part}.port={port}", f"-{part}.port.grpc={port + 10_000}"


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose ports + 10,000 are free (SeaweedFS uses both)."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            if port not in found:
                found.append(port)
    return found


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server responds, even with an error: it refuses callers without a key."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")
