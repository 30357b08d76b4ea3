"""Importing is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("ray", "torch", "transformers", "spacy", "av", "decord", "librosa", "silero_vad", "pandas")


@pytest.mark.parametrize(
    "module",
    [
        "omnitrace_core",
        "omnitrace_core.tracer",
        "omnitrace_core.tracing.refold",
        "omnitrace_core.attribution.heatmaps",
        "omnitrace_core.media.isolation.child_main",
        "pipeline.cli",
    ],
)
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
