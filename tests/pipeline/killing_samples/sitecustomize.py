"""Make some samples kill the process that traces. Python runs this at its start (PYTHONPATH).

`BatchTracer.encode` and `trace_encoded` are wrapped when their module is imported. A sample called
`kill-in-trace-…` ends the process each time, as a broken driver library would; `break-device-…`
breaks the device, so that the stage ends the process; `kill-in-encode-…` ends the process while the
model's inputs are prepared.
If KILL_IN_LOAD is in the environment, loading the model ends the process, too, and each load adds a
character to the file of that name.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from tests.pipeline.when_imported import when_imported


def _wrap(module: Any) -> None:
    trace_as_before, encode_as_before = module.BatchTracer.trace_encoded, module.BatchTracer.encode

    def encode(self: Any, ready: Sequence[Any]) -> Any:
        if any(item.sample.sample_id.startswith("kill-in-encode") for item in ready):
            os.kill(os.getpid(), signal.SIGKILL)
        return encode_as_before(self, ready)

    def trace_encoded(self: Any, encoded: Sequence[Any]) -> Any:
        for item in encoded:
            name = item.encoded.ready.sample.sample_id
            if name.startswith("kill-in-trace"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("break-device"):
                from omnitrace_core.errors import DeviceBroken

                raise DeviceBroken(f"{name}: CUDA error: an illegal memory access (simulated)")
        return trace_as_before(self, encoded)

    def load(self: Any, *arguments: Any) -> None:
        with open(os.environ["KILL_IN_LOAD"], "a") as loads:
            loads.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    if "KILL_IN_LOAD" in os.environ:
        module.BatchTracer.__init__ = load
    module.BatchTracer.trace_encoded = trace_encoded
    module.BatchTracer.encode = encode


when_imported("omnitrace_core.tracing.batch_tracer", _wrap)
