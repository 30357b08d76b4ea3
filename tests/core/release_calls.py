"""What the tests of the release's calls share."""

from __future__ import annotations

from omnitrace_core import TraceResult
from tests.core.media_files import DATA

SPEECH = str(DATA / "two_sentences.flac")
PROMPT = "Summarize the audio recording in English."


def intervals(result: TraceResult, kind: str) -> list[tuple[float, float]]:
    units = [unit for unit in result.units if unit.kind == kind]
    return [(unit.start_s or 0.0, unit.end_s or 0.0) for unit in units]
