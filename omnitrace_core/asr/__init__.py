"""Speech in sounds: engines find speech segments (`engines/`), which are joined to speech chunks
(`chunking/`)."""

from __future__ import annotations

from omnitrace_core.asr.chunking.chunker import SpeechChunker
from omnitrace_core.asr.engines import engine_factory, list_asr_engines, load_engine
from omnitrace_core.asr.engines.base import (
    BatchEngine,
    Heard,
    LoadableEngine,
    Sound,
    SpeechEngine,
    hear,
)

__all__ = [
    "BatchEngine",
    "Heard",
    "LoadableEngine",
    "Sound",
    "SpeechChunker",
    "SpeechEngine",
    "engine_factory",
    "hear",
    "list_asr_engines",
    "load_engine",
]
