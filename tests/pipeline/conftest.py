"""One local Ray for all tests that need one: starting it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.config import RunConfig
from pipeline.ray_session import ray_session


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray as a run would start it; runs inside join it and leave it running."""
    tree = {"input": {"path": "in"}, "output": {"path": "out"}, "model": {"path": "model"}}
    with ray_session(RunConfig.model_validate(tree)):
        yield
