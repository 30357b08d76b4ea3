"""Run by Python at its start where PYTHONPATH says so: actors keep a chunk that they have done.

The file HELD says as JSON which, such as `{"DecodeMedia": 3}`: each process of this stage does not
hand on its third chunk, nor later ones, as long as there is the file. It writes `DecodeMedia.<pid>`
beside the file when it begins to wait. And what a run waits for is said every 5 s.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.pipeline.when_imported import when_imported

_FILE = Path(os.environ["HELD"])
_MODULES = {
    "DecodeMedia": "stages.decode_media",
    "ChunkAudio": "stages.chunk_audio",
    "TraceDecode": "stages.trace_decode",
    "CurateSpans": "stages.curate_spans",
}


def _hold(stage: str, first: int) -> None:
    """Wrap the stage's call, once there is one."""

    def wrap(module: Any) -> None:
        inner, given = getattr(module, stage).__call__, count(1)

        def call(self: Any, table: Any) -> Any:
            number, done = next(given), inner(self, table)
            while number >= first and _FILE.exists():
                (_FILE.parent / f"{stage}.{os.getpid()}").touch()
                time.sleep(0.05)
            return done

        getattr(module, stage).__call__ = call

    when_imported(_MODULES[stage], wrap)


def _often(module: Any) -> None:
    module.REPORT_EVERY_S = 5.0


when_imported("pipeline.driver.capacity_watch", _often)
if _FILE.exists():
    for _stage, _first in json.loads(_FILE.read_text()).items():
        _hold(_stage, _first)
