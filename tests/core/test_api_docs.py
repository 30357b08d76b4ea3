"""docs/api.md: its code runs, and the names it lists are those that are exported."""

from __future__ import annotations

import re

import pytest

import omnitrace_core
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_its_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "api"}
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(code, "docs/api.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "[0] supported" in shown
    assert "media_missing" in shown


def test_it_lists_the_exported_names() -> None:
    table = PAGE.split("## Trace")[0]
    named = set(re.findall(r"`(\w+)(?:\(\))?`", table)) - {"omnitrace_core"}
    assert named <= set(omnitrace_core.__all__)
    errors = {name for name in omnitrace_core.__all__ if _is_error(name)}
    assert set(omnitrace_core.__all__) - errors - {"__version__"} <= named


def _is_error(name: str) -> bool:
    found = getattr(omnitrace_core, name)
    return isinstance(found, type) and issubclass(found, omnitrace_core.OmniTraceError)
