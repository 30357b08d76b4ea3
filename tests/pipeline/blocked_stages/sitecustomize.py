"""Make actors hold chunks that they have processed. Python runs this at its start (PYTHONPATH).

The file BLOCKED_STAGES names the chunks as JSON, such as `{"DecodeMedia": 3}`: each process of this
stage holds its third and later chunks as long as the file exists. It writes `DecodeMedia.<pid>`
beside the file when it begins to wait. A run that waits for capacity reports it every 5 s.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.pipeline.when_imported import when_imported

_FILE = Path(os.environ["BLOCKED_STAGES"])
_MODULES = {
    "DecodeMedia": "stages.decode_media",
    "ChunkSpeech": "stages.chunk_speech",
    "TraceDecode": "stages.trace_decode",
    "CurateSpans": "stages.curate_spans",
}


def _hold(stage: str, first: int) -> None:
    """Wrap the call of the stage when its module is imported."""

    def wrap(module: Any) -> None:
        inner, numbers = getattr(module, stage).__call__, count(1)

        def call(self: Any, table: Any) -> Any:
            number, done = next(numbers), inner(self, table)
            while number >= first and _FILE.exists():
                (_FILE.parent / f"{stage}.{os.getpid()}").touch()
                time.sleep(0.05)
            return done

        getattr(module, stage).__call__ = call

    when_imported(_MODULES[stage], wrap)


def _report_often(module: Any) -> None:
    module.REPORT_EVERY_S = 5.0


when_imported("pipeline.driver.capacity_watch", _report_often)
if _FILE.exists():
    for _stage, _first in json.loads(_FILE.read_text()).items():
        _hold(_stage, _first)
