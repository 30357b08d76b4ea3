"""Run by Python at its start where PYTHONPATH says so: some samples kill the process that traces.

`BatchTracer.trace_prepared` is wrapped once its module is imported. A sample called `deadly-…` ends
the process as a broken driver library would, each time; `poison-…` breaks the device, which the
stage answers by ending the process in good order; `unready-…` is deadly while its inputs are made.
With DEADLY_LOAD in the environment, loading the model is; each load adds a character to that file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from tests.pipeline.when_imported import when_imported


def _arm(module: Any) -> None:
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

    def load(self: Any, *arguments: Any) -> None:
        with open(os.environ["DEADLY_LOAD"], "a") as counted:
            counted.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    if "DEADLY_LOAD" in os.environ:
        module.BatchTracer.__init__ = load
    module.BatchTracer.trace_prepared = trace_prepared
    module.BatchTracer.prepare = prepare


when_imported("omnitrace_core.tracing.batch_tracer", _arm)
