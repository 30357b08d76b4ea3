"""What several tests of the pipeline start from; one local Ray, since starting it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.ray_session import ray_session
from tests.pipeline.made_runs import write_input


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
