"""Change modules when they are imported later; for the `sitecustomize.py` files of tests."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Change = Callable[[Any], None]


def when_imported(name: str, change: Change) -> None:
    """Call `change` with a module right after it was imported for the first time."""
    sys.meta_path.insert(0, _Finder(name, change))


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader, change: Change) -> None:
        self._real, self._change = real, change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        self._change(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, change: Change) -> None:
        self._name, self._change = name, change

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = _Loader(spec.loader, self._change)
        return spec
