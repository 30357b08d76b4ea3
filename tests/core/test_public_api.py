"""The names that `omnitrace_core` exports: which they are, and that looking at them is cheap."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import omnitrace_core
from omnitrace_core import errors, options

FUNCTIONS = {
    "enable_transformers_vision",
    "list_asr_engines",
    "list_backends",
    "list_signals",
    "load_signal",
    "mean_of_shares",
    "weighted_heads",
}
OPTIONS = {
    "AsrOptions",
    "CurationOptions",
    "DecodeOptions",
    "MediaOptions",
    "ModelOptions",
    "SpanOptions",
    "TraceOptions",
    "UnitOptions",
}
RECORDS = {
    "Attribution",
    "DecodedAudio",
    "DecodedImage",
    "DecodedVideo",
    "Fold",
    "Frame",
    "HeatMap",
    "Label",
    "LabelSource",
    "Message",
    "Part",
    "PartOptions",
    "Positions",
    "PromptMap",
    "ReadySample",
    "Sample",
    "Segmentation",
    "Source",
    "SourceUnit",
    "Span",
    "SpeechChunk",
    "SpeechSegment",
    "StreamedToken",
    "TokenTrace",
    "TraceResult",
    "Word",
}
ERRORS = {
    "BackendError",
    "ConfigError",
    "DamagedFile",
    "DecoderError",
    "DeviceBroken",
    "DuplicateSampleId",
    "FatalError",
    "InputDamaged",
    "InputSchemaError",
    "InputUnreadable",
    "InternalError",
    "InvalidSample",
    "LeaseHeld",
    "LeaseLost",
    "MediaCorrupt",
    "MediaCrashed",
    "MediaDenied",
    "MediaEmpty",
    "MediaError",
    "MediaMemory",
    "MediaMissing",
    "MediaTimeout",
    "MediaTooLarge",
    "MediaUnavailable",
    "MissingSampleId",
    "NodeFault",
    "OmniTraceError",
    "OutOfMemory",
    "Quarantined",
    "ResponseEmpty",
    "RunError",
    "SampleError",
    "SpeechError",
    "SpeechUnavailable",
    "StoreCredentials",
    "StoreUnavailable",
    "TraceError",
    "UnknownName",
    "UnknownPartType",
    "UnsupportedFile",
}
OTHERS = {"ChunkerConfig", "LayerView", "OmniTracer", "Signal", "__version__"}
HEAVY = ("torch", "transformers", "spacy", "ray", "librosa", "pandas", "pyarrow", "av", "decord")


def classes_of(module: object, base: type) -> set[str]:
    """Names of the classes that a module defines below `base`, itself included."""
    found = inspect.getmembers(module, inspect.isclass)
    return {name for name, item in found if issubclass(item, base)}


def test_the_exported_names_are_these() -> None:
    assert set(omnitrace_core.__all__) == FUNCTIONS | OPTIONS | RECORDS | ERRORS | OTHERS
    assert sorted(omnitrace_core.__all__) == omnitrace_core.__all__
    assert set(omnitrace_core.__all__) <= set(dir(omnitrace_core))


def test_every_error_and_every_options_class_is_exported() -> None:
    assert classes_of(errors, errors.OmniTraceError) == ERRORS
    assert classes_of(options, options.Options) - {"Options"} == OPTIONS


@pytest.mark.parametrize("name", omnitrace_core.__all__)
def test_every_name_resolves_to_what_it_names(name: str) -> None:
    found = getattr(omnitrace_core, name)
    if name in FUNCTIONS:
        assert inspect.isfunction(found)
    elif name != "__version__":
        assert inspect.isclass(found)
        assert found.__name__ == name
    assert getattr(omnitrace_core, name) is found


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'omnitrace_core' has no attribute 'Tracer'"):
        _ = omnitrace_core.Tracer  # type: ignore[attr-defined]


def test_all_names_together_load_nothing_heavy() -> None:
    code = (
        f"import sys; from omnitrace_core import *; OmniTracer, Sample, load_signal;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_address_that_the_readme_named_before_still_works() -> None:
    from omnitrace_core.signals import LayerView

    assert LayerView is omnitrace_core.LayerView
