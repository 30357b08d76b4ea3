"""Importing is cheap, and imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = ("ray", "torch", "transformers", "spacy", "decord", "librosa", "silero_vad", "pandas")


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


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("omnitrace_core", {"ray", "stages", "pipeline"}), ("stages", {"ray", "pipeline"})],
)
def test_imports_go_one_way(package: str, forbidden: set[str]) -> None:
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & forbidden, file
