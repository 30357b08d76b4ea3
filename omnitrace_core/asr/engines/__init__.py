"""Speech engines: one module each, the table of their names, and how one is loaded.

A plug-in engine is an entry point in the group `omnitrace.asr`: a callable that takes `AsrOptions`
and returns a `SpeechEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from omnitrace_core.asr.engines.base import SpeechEngine
from omnitrace_core.asr.engines.given import GivenSegments
from omnitrace_core.asr.engines.paraformer import Paraformer
from omnitrace_core.asr.engines.scribe import Scribe
from omnitrace_core.asr.engines.vad import VoiceActivity
from omnitrace_core.asr.engines.whisper import Whisper
from omnitrace_core.errors import UnknownName
from omnitrace_core.options import AsrOptions

ENTRY_POINTS = "omnitrace.asr"

EngineFactory = Callable[[AsrOptions], SpeechEngine]

# To add an engine: one file in this folder, one line here. Plug-ins cannot replace these names.
ENGINES: Mapping[str, EngineFactory] = {
    "given": lambda options: GivenSegments(),
    "paraformer": Paraformer,
    "scribe": Scribe,
    "vad": VoiceActivity,
    "whisper": Whisper,
}


def list_asr_engines() -> tuple[str, ...]:
    """The valid values of `asr.engine`, sorted: the shipped engines, and those of plug-ins."""
    plugins = (point.name for point in entry_points(group=ENTRY_POINTS))
    return tuple(sorted({*ENGINES, *plugins}))


def engine_factory(name: str) -> EngineFactory:
    """The function that makes the engine of this name from its options.

    Raises:
        UnknownName: no shipped engine and no installed entry point has this name.
    """
    if name in ENGINES:
        return ENGINES[name]
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            factory: EngineFactory = point.load()
            return factory
    raise UnknownName(f"asr.engine={name!r}; valid engines: {', '.join(list_asr_engines())}")


def load_engine(options: AsrOptions) -> SpeechEngine:
    """The engine that `asr.engine` names.

    Its weights load with its first sound, or before that by `LoadableEngine.load`.

    Raises:
        UnknownName: no engine has this name, or the engine does not know `asr.language`.
        BackendError: a package, a model or an API key that the engine needs is missing.
    """
    return engine_factory(options.engine)(options)
