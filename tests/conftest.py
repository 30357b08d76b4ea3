"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
