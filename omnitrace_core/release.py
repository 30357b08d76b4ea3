"""The calls of the method's published release (PyPI `omnitrace` 0.1.1), as samples and options.

Its arguments keep their names and meanings. One that cannot be honoured is refused, with the
setting to use in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import ValidationError

from omnitrace_core.errors import ConfigError, InvalidSample, UnknownName
from omnitrace_core.options import AsrOptions, Options, UnitOptions

# The release's names of models. Only families with a backend can be traced.
MODEL_NAMES = {"qwen": "Qwen/Qwen2.5-Omni-7B", "minicpm": "openbmb/MiniCPM-o-4_5"}
WITHOUT_BACKEND = frozenset({"minicpm"})
METHODS = frozenset({"attmean", "attraw", "attgrads"})
MODALITIES = ("image_text", "audio", "video")

NO_ASR = "no_asr"
# The release's names of speech models -> our engine, and that engine's model if the name says it.
_ENGINES: dict[str, tuple[str, str | None]] = {
    "paraformer": ("paraformer", None),
    "scribe_v2": ("scribe", "scribe_v2"),
    "whisper": ("whisper", None),
}
_NEEDS_MODEL = frozenset({"paraformer", "whisper"})
# What belongs to one engine and is not carried over to another.
_ENGINE_SETTINGS = ("model", "vad_model", "punc_model", "language", "base_url")

# Our settings -> the arguments that set them, for messages.
_SPELLINGS = {
    "bin_s": "bin_size",
    "model": "ChunkerConfig.asr_model",
    "min_chunk_s": "ChunkerConfig.min_chunk_duration",
    "max_chunk_s": "ChunkerConfig.max_chunk_duration",
    "language": "ChunkerConfig.language_code",
    "embedding": "ChunkerConfig.embedding_model",
    "device": "ChunkerConfig.device",
}

_O = TypeVar("_O", bound=Options)


@dataclass(slots=True)
class ChunkerConfig:
    """How speech is found and joined to chunks, in the release's spelling.

    None stands for the tracer's own `AsrOptions`, or by default for the release's values: the model
    `scribe_v2`, chunks of 5 to 60 s. Unlike the release, a sentence embedding model is used only if
    one is named (a local folder, or a hub id with its commit, `BAAI/bge-m3@<commit>`); without one,
    chunks end at pauses.
    """

    elevenlabs_api_key: str | None = field(default=None, repr=False)
    asr_model: str | None = None
    language_code: str | None = None
    diarize: bool = False
    num_speakers: int | None = None
    tag_audio_events: bool = False
    timestamps_granularity: str = "word"
    embedding_model: str | None = None
    min_chunk_duration: float | None = None
    max_chunk_duration: float | None = None
    similarity_threshold: float | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class AudioCall:
    """A call of `trace_audio` as a sample and the options to read it with."""

    sample: Mapping[str, object]
    units: UnitOptions
    asr: AsrOptions


def is_model_name(name: object) -> bool:
    """Whether this is one of the release's names of models."""
    return isinstance(name, str) and name.strip().lower() in MODEL_NAMES


def signal_name(method: str) -> str:
    """The signal of a method, which the release names in any case; other names stay as they are."""
    name = method.strip().lower()
    return name if name in METHODS else method


def method_of_modality(modality: object) -> str:
    """The method of the tracer that the release's `trace(modality=...)` calls.

    Raises:
        ConfigError: there is no such modality.
    """
    name = modality.strip().lower() if isinstance(modality, str) else modality
    if name not in MODALITIES:
        raise ConfigError(f"modality={modality!r}; valid: {', '.join(map(repr, MODALITIES))}")
    return f"trace_{name}"


def model_path(model_name: str) -> str:
    """The address of a model by the release's name; any other name is an address itself.

    Raises:
        ConfigError: there is no backend for the model.
    """
    name = model_name.strip().lower()
    if name in WITHOUT_BACKEND:
        raise ConfigError(
            f"model_name={model_name!r} ({MODEL_NAMES[name]}): there is no backend for this model "
            "family; use model_name='qwen', or install a backend for it and pass "
            f"ModelOptions(path={MODEL_NAMES[name]!r}, backend=NAME)"
        )
    return MODEL_NAMES.get(name, model_name)


def image_text_sample(prompt: str, content: Sequence[object]) -> Mapping[str, object]:
    """The sample of `trace_image_text`: the prompt instructs, texts and images follow in order."""
    return {"prompt": prompt, "question": list(content)}


def video_sample(
    prompt: str, video: object, video_fps: float | None, video_max_pixels: int | None
) -> Mapping[str, object]:
    """The sample of `trace_video`: video_max_pixels counts all sampled frames together."""
    part = {"type": "video", "video": video, "fps": video_fps, "total_pixels": video_max_pixels}
    return _media_sample(part, prompt)


def video_units(units: UnitOptions, video_fps: float | None, frames_per_step: int) -> UnitOptions:
    """Units of `trace_video`: the sound in bins as long as one step of the frames.

    Raises:
        ConfigError: video_fps is not a number above 0.
    """
    if video_fps is None:
        return units
    is_number = isinstance(video_fps, int | float) and not isinstance(video_fps, bool)
    if not (is_number and math.isfinite(video_fps) and video_fps > 0):
        raise ConfigError(f"video_fps={video_fps!r}; give sampled frames per second, above 0")
    return units.model_copy(update={"bin_s": frames_per_step / video_fps})


def audio_call(
    prompt: str,
    audio: object,
    *,
    audio_chunk_mode: str,
    bin_size: float,
    asr_model: str,
    semantic_chunks: Sequence[object] | None,
    chunker_config: ChunkerConfig | None,
    units: UnitOptions,
    asr: AsrOptions,
) -> AudioCall:
    """The sample and the options of `trace_audio`.

    units, asr: the tracer's own, for all that the call does not set. Arguments that the mode does
    not use are checked too.

    Raises:
        ConfigError: an argument has an invalid value or one that cannot be honoured.
        UnknownName: no speech engine is named `asr_model`.
        InvalidSample: an item of `semantic_chunks` is not a chunk.
    """
    if audio_chunk_mode not in ("time_bins", "semantic"):
        raise ConfigError(f"audio_chunk_mode={audio_chunk_mode!r}; valid: 'time_bins', 'semantic'")
    if semantic_chunks is not None and audio_chunk_mode != "semantic":
        raise ConfigError(
            f"semantic_chunks are passed with audio_chunk_mode={audio_chunk_mode!r}, which cuts "
            "the sound into time bins; pass audio_chunk_mode='semantic', or no chunks"
        )
    spoken = _asr_options(asr_model, chunker_config, asr)
    part: dict[str, object] = {"type": "audio", "audio": audio}
    kind: Literal["bins", "chunks"] = "bins"
    if semantic_chunks is not None:
        part["segments"] = [_segment(item, i) for i, item in enumerate(semantic_chunks)]
        asr = asr.model_copy(update={"engine": "given", "chunking": "none"})
        kind = "chunks"
    elif audio_chunk_mode == "semantic" and asr_model != NO_ASR:
        _check_model(asr_model, spoken)
        asr = spoken
        kind = "chunks"
    units = _changed(units, {"audio": kind, "bin_s": bin_size})
    return AudioCall(_media_sample(part, prompt), units, asr)


def refuse_generation_config(generation_config: object) -> None:
    """Raises: ConfigError, unless it is None."""
    if generation_config is not None:
        raise ConfigError(
            f"generation_config={type(generation_config).__name__} cannot be set per call; make "
            f"the tracer with OmniTracer(..., decode=DecodeOptions({_decoding(generation_config)}))"
        )


def _decoding(generation_config: object) -> str:
    """The settings of the caller that `DecodeOptions` has; the release's where it sets none."""
    values: list[str] = []
    for name, default in (("max_new_tokens", 256), ("no_repeat_ngram_size", 3)):
        value = _value(generation_config, name)
        values.append(f"{name}={value if isinstance(value, int) else default}")
    return ", ".join(values)


def _value(item: object, name: str) -> object:
    """A field of a mapping or an attribute of an object; None if there is none."""
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def _media_sample(part: Mapping[str, object], prompt: str) -> Mapping[str, object]:
    """The media first and then the prompt, which instructs: it is not a source."""
    text = {"type": "text", "text": prompt, "evidence": False}
    return {"messages": [{"role": "user", "content": [part, text]}]}


def _segment(item: object, index: int) -> Mapping[str, object]:
    """A chunk of the caller: the release's objects, ours, or mappings with the same names."""
    found: dict[str, object] = {}
    for name, spellings in (
        ("start_s", ("start_s", "start")),
        ("end_s", ("end_s", "end")),
        ("text", ("text", "transcript")),
    ):
        for spelling in spellings:
            value = _value(item, spelling)
            if value is not None:
                found[name] = value
                break
    if not {"start_s", "end_s"} <= found.keys():
        raise InvalidSample(
            f"semantic_chunks[{index}] is a {type(item).__name__} without start and end; give "
            "each chunk its start and end in seconds, and its text"
        )
    return found


def _asr_options(asr_model: str, config: ChunkerConfig | None, asr: AsrOptions) -> AsrOptions:
    """The options to find speech with. Raises: ConfigError, UnknownName."""
    from omnitrace_core.asr import list_asr_engines

    valid = sorted({*_ENGINES, NO_ASR, *list_asr_engines()})
    if asr_model not in valid:
        raise UnknownName(f"asr_model={asr_model!r}; valid: {', '.join(valid)}")
    # Without speech recognition, only the values of the config are checked.
    name = asr.engine if asr_model == NO_ASR else asr_model
    engine, model = _ENGINES.get(name, (name, None))
    changes: dict[str, object] = {"engine": engine}
    if engine != asr.engine:
        changes |= {name: AsrOptions.model_fields[name].default for name in _ENGINE_SETTINGS}
    if model is not None and (engine != asr.engine or asr.model is None):
        changes["model"] = model
    if config is not None:
        changes |= _chunker_changes(config, engine)
    options = _changed(asr, changes)
    if config is not None and options.min_chunk_s > options.max_chunk_s:
        raise ConfigError(
            f"{_SPELLINGS['min_chunk_s']}={options.min_chunk_s} is above "
            f"{_SPELLINGS['max_chunk_s']}={options.max_chunk_s}; give a smaller minimum, or a "
            "larger maximum"
        )
    return options


def _check_model(asr_model: str, options: AsrOptions) -> None:
    """Raises: ConfigError, if the engine needs a model and none is named."""
    if options.engine in _NEEDS_MODEL and options.model is None:
        raise ConfigError(
            f"asr_model={asr_model!r} needs the address of its model: make the tracer with "
            f"OmniTracer(..., asr=AsrOptions(engine={options.engine!r}, model=ADDRESS)), where "
            "ADDRESS is a local folder, or a hub id with its commit, name@<40 digits>"
        )


def _chunker_changes(config: ChunkerConfig, engine: str) -> dict[str, object]:
    """Raises: ConfigError."""
    if not isinstance(config, ChunkerConfig):
        raise ConfigError(
            f"chunker_config is a {type(config).__name__}; make it with "
            "`from omnitrace_core import ChunkerConfig`"
        )
    _refuse_unsupported(config)
    changes: dict[str, object] = {}
    for name, value in (
        ("model", config.asr_model if engine == "scribe" else None),
        ("min_chunk_s", config.min_chunk_duration),
        ("max_chunk_s", config.max_chunk_duration),
        ("language", config.language_code),
        ("embedding", config.embedding_model),
        ("device", config.device),
    ):
        if value is not None:
            changes[name] = value
    return changes


def _refuse_unsupported(config: ChunkerConfig) -> None:
    """Raises: ConfigError for the first setting that nothing here implements."""
    if config.elevenlabs_api_key is not None:
        raise ConfigError(
            "ChunkerConfig(elevenlabs_api_key=...): keys are not passed as settings; set the "
            "environment variable ELEVENLABS_API_KEY"
        )
    for name, supported, remedy in (
        ("diarize", False, "speaker diarization is not supported; leave it False"),
        ("num_speakers", None, "the number of speakers is not used; leave it None"),
        ("tag_audio_events", False, "only speech is transcribed; leave it False"),
        ("timestamps_granularity", "word", "only word times are returned; leave it 'word'"),
        (
            "similarity_threshold",
            None,
            "the threshold is computed from each sound (mean - 0.8 standard deviations, within "
            "0.3 and 0.7); leave it None",
        ),
    ):
        value = getattr(config, name)
        if value != supported:
            raise ConfigError(f"ChunkerConfig({name}={value!r}): {remedy}")


def _changed(options: _O, changes: Mapping[str, object]) -> _O:
    """The options with some fields changed, and checked. Raises: ConfigError."""
    try:
        return type(options).model_validate({**options.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"])
        raise ConfigError(
            f"{_SPELLINGS.get(name, name)}={first['input']!r}: {first['msg']}"
        ) from error
