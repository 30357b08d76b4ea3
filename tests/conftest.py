"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name encoded media by their length: a WAV contains the time of writing, and the processes
    that collect the tests must agree on every name."""
    if isinstance(val, bytes) and len(val) > 32:
        return f"{argname}-of-{len(val)}-bytes"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests whose fixtures start Ray; tests that start it themselves have the mark already."""
    for item in items:
        if {"local_ray", "broken_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real samples beside the checkout, or a skip."""
    folder = Path(os.environ.get("OMNITRACE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "samples.json").is_file():
        pytest.skip(f"no real samples at {folder}; set OMNITRACE_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny Qwen2.5-Omni thinker with seeded random weights."""
    from training.tiny.build import build_tiny

    return str(build_tiny(tmp_path_factory.mktemp("tiny") / "model"))
