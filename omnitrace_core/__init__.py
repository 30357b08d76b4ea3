"""Find which parts of a multimodal input a model's response rests on.

A pure library: no Ray, no cluster. Everything in `__all__` is public and is imported from here.
Each name is loaded at its first use, so importing this package is cheap: no torch, no spaCy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnitrace_core.asr import list_asr_engines
    from omnitrace_core.attribution.heatmaps import HeatMap
    from omnitrace_core.backends import list_backends
    from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedVideo
    from omnitrace_core.errors import (
        BackendError,
        ConfigError,
        DamagedFile,
        DecoderError,
        DeviceBroken,
        DuplicateSampleId,
        FatalError,
        InputDamaged,
        InputSchemaError,
        InputUnreadable,
        InternalError,
        InvalidSample,
        LeaseHeld,
        LeaseLost,
        MediaCorrupt,
        MediaCrashed,
        MediaDenied,
        MediaEmpty,
        MediaError,
        MediaMemory,
        MediaMissing,
        MediaTimeout,
        MediaTooLarge,
        MediaUnavailable,
        MissingSampleId,
        NodeFault,
        OmniTraceError,
        OutOfMemory,
        Quarantined,
        ResponseEmpty,
        RunError,
        SampleError,
        SpeechError,
        SpeechUnavailable,
        StoreCredentials,
        StoreUnavailable,
        TraceError,
        UnknownName,
        UnknownPartType,
        UnsupportedFile,
    )
    from omnitrace_core.options import (
        AsrOptions,
        CurationOptions,
        DecodeOptions,
        MediaOptions,
        ModelOptions,
        SpanOptions,
        TraceOptions,
        UnitOptions,
    )
    from omnitrace_core.positions import Positions, PromptMap
    from omnitrace_core.records import (
        Attribution,
        Fold,
        Frame,
        Label,
        LabelSource,
        Message,
        Part,
        PartOptions,
        ReadySample,
        Sample,
        Segmentation,
        Source,
        SourceUnit,
        Span,
        SpeechChunk,
        SpeechSegment,
        TokenTrace,
        Word,
    )
    from omnitrace_core.release import ChunkerConfig
    from omnitrace_core.result import TraceResult
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision
    from omnitrace_core.tracer import OmniTracer
    from omnitrace_core.tracing.signals import (
        LayerView,
        Signal,
        list_signals,
        load_signal,
        mean_of_shares,
        weighted_heads,
    )
    from omnitrace_core.tracing.streaming import StreamedToken

__version__ = "0.2.0.dev0"
__all__ = [
    "AsrOptions",
    "Attribution",
    "BackendError",
    "ChunkerConfig",
    "ConfigError",
    "CurationOptions",
    "DamagedFile",
    "DecodeOptions",
    "DecodedAudio",
    "DecodedImage",
    "DecodedVideo",
    "DecoderError",
    "DeviceBroken",
    "DuplicateSampleId",
    "FatalError",
    "Fold",
    "Frame",
    "HeatMap",
    "InputDamaged",
    "InputSchemaError",
    "InputUnreadable",
    "InternalError",
    "InvalidSample",
    "Label",
    "LabelSource",
    "LayerView",
    "LeaseHeld",
    "LeaseLost",
    "MediaCorrupt",
    "MediaCrashed",
    "MediaDenied",
    "MediaEmpty",
    "MediaError",
    "MediaMemory",
    "MediaMissing",
    "MediaOptions",
    "MediaTimeout",
    "MediaTooLarge",
    "MediaUnavailable",
    "Message",
    "MissingSampleId",
    "ModelOptions",
    "NodeFault",
    "OmniTraceError",
    "OmniTracer",
    "OutOfMemory",
    "Part",
    "PartOptions",
    "Positions",
    "PromptMap",
    "Quarantined",
    "ReadySample",
    "ResponseEmpty",
    "RunError",
    "Sample",
    "SampleError",
    "Segmentation",
    "Signal",
    "Source",
    "SourceUnit",
    "Span",
    "SpanOptions",
    "SpeechChunk",
    "SpeechError",
    "SpeechSegment",
    "SpeechUnavailable",
    "StoreCredentials",
    "StoreUnavailable",
    "StreamedToken",
    "TokenTrace",
    "TraceError",
    "TraceOptions",
    "TraceResult",
    "UnitOptions",
    "UnknownName",
    "UnknownPartType",
    "UnsupportedFile",
    "Word",
    "__version__",
    "enable_transformers_vision",
    "list_asr_engines",
    "list_backends",
    "list_signals",
    "load_signal",
    "mean_of_shares",
    "weighted_heads",
]

# Where the names are defined; every other name of `__all__` is a record, an option or an error.
_MODULES = {
    "ChunkerConfig": "release",
    "DecodedAudio": "decoded_media",
    "DecodedImage": "decoded_media",
    "DecodedVideo": "decoded_media",
    "HeatMap": "attribution.heatmaps",
    "LayerView": "tracing.signals",
    "OmniTracer": "tracer",
    "Positions": "positions",
    "PromptMap": "positions",
    "Signal": "tracing.signals",
    "StreamedToken": "tracing.streaming",
    "TraceResult": "result",
    "enable_transformers_vision": "runtime.torchvision_shim",
    "list_asr_engines": "asr",
    "list_backends": "backends",
    "list_signals": "tracing.signals",
    "load_signal": "tracing.signals",
    "mean_of_shares": "tracing.signals",
    "weighted_heads": "tracing.signals",
}


if not TYPE_CHECKING:  # a type checker knows the names from the imports above

    def __getattr__(name: str) -> object:
        if name in __all__:
            modules = (_MODULES[name],) if name in _MODULES else ("errors", "records", "options")
            for module in modules:
                found = getattr(import_module(f"{__name__}.{module}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
