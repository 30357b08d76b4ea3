"""Speech engines: the protocol, and the table name -> loader.

An engine of one's own is an entry point in the group `omnitrace.asr`: a callable that takes
`AsrOptions` and returns a `SpeechEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from omnitrace_core.asr.base import (
    BatchEngine,
    Heard,
    LoadableEngine,
    Sound,
    SpeechEngine,
    hear,
)
from omnitrace_core.asr.given import GivenSegments
from omnitrace_core.asr.paraformer import Paraformer
from omnitrace_core.asr.scribe import Scribe
from omnitrace_core.asr.vad import VoiceActivity
from omnitrace_core.asr.whisper import Whisper
from omnitrace_core.errors import UnknownName
from omnitrace_core.options import AsrOptions

__all__ = [
    "ENTRY_POINTS",
    "BatchEngine",
    "Heard",
    "LoadableEngine",
    "Sound",
    "SpeechEngine",
    "engine_loader",
    "hear",
    "load_engine",
]

ENTRY_POINTS = "omnitrace.asr"
_ENGINES: Mapping[str, Callable[[AsrOptions], SpeechEngine]] = {
    "given": lambda options: GivenSegments(),
    "paraformer": Paraformer,
    "scribe": Scribe,
    "vad": VoiceActivity,
    "whisper": Whisper,
}


def load_engine(options: AsrOptions) -> SpeechEngine:
    """The engine that `asr.engine` names; its weights load with its first sound,
    or when it is told to (`LoadableEngine`).

    Raises:
        UnknownName: neither built in nor an installed entry point, or not its language.
        BackendError: a package, a model or a key that the engine needs is missing.
    """
    return engine_loader(options.engine)(options)


def engine_loader(name: str) -> Callable[[AsrOptions], SpeechEngine]:
    """What makes the engine of this name.

    Raises:
        UnknownName: neither built in nor an installed entry point.
    """
    if name in _ENGINES:
        return _ENGINES[name]
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in plugins:
        loader: Callable[[AsrOptions], SpeechEngine] = plugins[name].load()
        return loader
    raise UnknownName(
        f"asr.engine={name!r}; valid engines: {', '.join(sorted({*_ENGINES, *plugins}))}"
    )
