"""Run by Python at its start where PYTHONPATH says so: some samples kill the process that traces.

`BatchTracer.trace_prepared` is wrapped once its module is imported. A sample called `deadly-…` ends
the process as a broken driver library would, each time; `poison-…` breaks the device, which the
stage answers by ending the process in good order; `unready-…` is deadly while its inputs are made.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_WRAPPED = "omnitrace_core.batch_tracer"


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        traced, prepared_by = module.BatchTracer.trace_prepared, module.BatchTracer.prepare

        def prepare(self: Any, ready: Sequence[Any]) -> Any:
            if any(item.sample.sample_id.startswith("unready") for item in ready):
                os.kill(os.getpid(), signal.SIGKILL)
            return prepared_by(self, ready)

        def trace_prepared(self: Any, prepared: Sequence[Any]) -> Any:
            for item in prepared:
                name = item.encoded.ready.sample.sample_id
                if name.startswith("deadly"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if name.startswith("poison"):
                    from omnitrace_core.errors import DeviceBroken

                    raise DeviceBroken(f"{name}: CUDA error: an illegal memory access (simulated)")
            return traced(self, prepared)

        module.BatchTracer.trace_prepared = trace_prepared
        module.BatchTracer.prepare = prepare


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != _WRAPPED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
