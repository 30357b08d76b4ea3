"""The README's example of a user's own signal, installed as a package and traced by its name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core import OmniTracer
from omnitrace_core.options import DecodeOptions
from tests.core.oracle import EagerOracle, attnorm, slow_fold
from tests.core.ready_samples import one_of_each
from tests.test_readme import BLOCKS

NAME = "upper_norm"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two blocks of the README as an installed distribution."""
    (code,) = (body for language, body in BLOCKS if language == "python" and NAME in body)
    (points,) = (body for language, body in BLOCKS if language == "toml")
    assert len(code.strip().splitlines()) <= 25
    (tmp_path / "my_signals.py").write_text(code)
    info = tmp_path / "my_signals-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-signals\nVersion: 1.0\n")
    declared = points.replace('[project.entry-points."omnitrace.signals"]', "[omnitrace.signals]")
    (info / "entry_points.txt").write_text(declared.replace('"', ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "my_signals", raising=False)


@pytest.mark.slow
def test_the_signal_of_the_readme_is_traced(tiny_model: str, installed: None) -> None:
    tracer = OmniTracer(
        tiny_model, signals=("attmean", NAME), decode=DecodeOptions(max_new_tokens=4)
    )
    sample = one_of_each()["image"]
    trace = tracer.trace(sample)
    eager, unit_index = EagerOracle(tracer.backend, tiny_model).forward(sample, trace.token_ids)
    wanted = slow_fold(attnorm(eager, first_layer=1), unit_index, len(sample.units))
    np.testing.assert_allclose(trace.folds[NAME].mass, wanted.mass, rtol=1e-4, atol=1e-6)
