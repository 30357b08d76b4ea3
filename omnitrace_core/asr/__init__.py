"""Speech engines: the protocol, and the table name -> loader.

An engine of one's own is an entry point in the group `omnitrace.asr`: a callable that takes
`AsrOptions` and returns a `SpeechEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from omnitrace_core.asr.base import SpeechEngine
from omnitrace_core.asr.given import GivenSegments
from omnitrace_core.asr.vad import VoiceActivity
from omnitrace_core.errors import UnknownName
from omnitrace_core.options import AsrOptions

__all__ = ["ENTRY_POINTS", "SpeechEngine", "load_engine"]

ENTRY_POINTS = "omnitrace.asr"
_ENGINES: Mapping[str, Callable[[AsrOptions], SpeechEngine]] = {
    "given": lambda options: GivenSegments(),
    "vad": VoiceActivity,
}


def load_engine(options: AsrOptions) -> SpeechEngine:
    """The engine that `asr.engine` names; its weights load with its first sound.

    Raises:
        UnknownName: neither built in nor an installed entry point.
    """
    if options.engine in _ENGINES:
        return _ENGINES[options.engine](options)
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if options.engine in plugins:
        engine: SpeechEngine = plugins[options.engine].load()(options)
        return engine
    raise UnknownName(
        f"asr.engine={options.engine!r}; valid engines: {', '.join(sorted({*_ENGINES, *plugins}))}"
    )
