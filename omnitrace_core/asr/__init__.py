"""Find speech in sounds (`engines/`) and join it to speech chunks (`chunking/`)."""

from __future__ import annotations

from omnitrace_core.asr.chunking.chunker import SpeechChunker
from omnitrace_core.asr.engines import engine_factory, list_asr_engines, load_engine
from omnitrace_core.asr.engines.base import (
    BatchEngine,
    LoadableEngine,
    PartAudio,
    SpeechEngine,
    SpeechResult,
    find_segments,
    sound_key,
)

__all__ = [
    "BatchEngine",
    "LoadableEngine",
    "PartAudio",
    "SpeechChunker",
    "SpeechEngine",
    "SpeechResult",
    "engine_factory",
    "find_segments",
    "list_asr_engines",
    "load_engine",
    "sound_key",
]
