"""A run's configuration: one YAML file, any field overridable as `key=value`."""

from __future__ import annotations

import copy
import datetime
import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from omnitrace_core.errors import ConfigError, sample_error_codes
from omnitrace_core.options import (
    SPEECH_MODELS,
    AsrOptions,
    CurationOptions,
    DecodeOptions,
    MediaOptions,
    ModelOptions,
    Options,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.tracing.signals import HEADS
from omnitrace_core.tracing.signals.head_weights import head_weights_identity
from pipeline.storage.folder import absolute_path
from stages.arrow.table_schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from omnitrace_core.media_rules import MediaRules
    from omnitrace_core.reader import ReadingOptions

Tree: TypeAlias = dict[str, object]


class Location(Options):
    """A folder, or for input also a single file: a local path or any fsspec URL."""

    path: str = Field(
        min_length=1, description="Local path (relative to the current directory) or fsspec URL."
    )

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str) -> str:
        if "://" in path and "@" in urlsplit(path).netloc:
            raise ValueError("a path must not hold credentials; set them in the environment")
        return path


class RunOptions(Options):
    """The run's name, the size of its units of work, and its limits on errors."""

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        coerce_numbers_to_str=True,
        description="Id of the run; null: a hash of the input location and of all settings that "
        "affect records.",
    )
    date: datetime.date | None = Field(
        None, description="Date of the run; null: the day on which it began, in UTC."
    )
    chunk_samples: int = Field(
        32,
        ge=1,
        le=4096,
        description="Samples per chunk, which is processed and committed as a whole.",
    )
    window_chunks: int = Field(
        2000,
        ge=1,
        description="Chunks per execution of the graph; bounds the memory of the driver.",
    )
    max_error_fraction: float = Field(
        0.5, ge=0, le=1, description="Exit code 4 if a larger fraction of the rows are errors."
    )
    min_rows_to_stop: int = Field(
        1000, ge=1, description="Number of rows after which too many errors end the run early."
    )
    lease_s: float = Field(
        60,
        ge=1,
        description="Seconds without a renewal of the lease after which another driver may take "
        "the run over.",
    )
    retry: Literal["none", "errors"] | tuple[str, ...] = Field(
        "none",
        description="Error rows that are published and are to be traced once more: none, errors "
        "(all whose outcome can change), or a list of error codes.",
    )

    @field_validator("retry", mode="before")
    @classmethod
    def _known_codes(cls, retry: object) -> object:
        if retry in ("none", "errors"):
            return retry
        codes = [retry] if isinstance(retry, str) else retry
        if not isinstance(codes, list | tuple) or not codes:
            raise ValueError("give none, errors, or a list of error codes")
        known = sample_error_codes()
        if unknown := [code for code in codes if code not in known]:
            raise ValueError(
                f"unknown: {unknown}; give none, errors, or a list of these error codes: "
                f"{', '.join(known)}"
            )
        return tuple(sorted(set(codes)))


class RayOptions(Options):
    """Where the stages run, and the resources of each."""

    address: str | None = Field(
        None, description="Ray cluster to join: auto or HOST:PORT; null starts a local one."
    )
    quiet: bool = Field(True, description="Hide Ray's own logs and progress bars.")
    decode_actors: int = Field(1, ge=1, description="Actors that decode media.")
    decode_cpus: float = Field(0.25, gt=0, description="CPUs per decoding actor.")
    audio_actors: int = Field(1, ge=1, description="Actors that find speech and cut units.")
    audio_cpus: float = Field(0.25, gt=0, description="CPUs per audio actor.")
    audio_gpus: float = Field(
        0, ge=0, description="GPUs per audio actor, for a speech model with asr.device=cuda."
    )
    audio_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that a speech engine may take for one batch of sounds: up to 256 MiB "
        "of a chunk (from the third attempt on: of one sample). After that its process is ended "
        "and the attempt counts as a death; null: no limit.",
    )
    trace_cpus: float = Field(1, gt=0, description="CPUs per model replica (torch threads).")
    trace_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that making the inputs of a chunk may take, and again seconds that "
        "the model may take for it (from the third attempt on: for one sample). After that its "
        "process is ended and the attempt counts as a death; null: no limit.",
    )
    curate_actors: int = Field(1, ge=1, description="Actors that cut spans and curate sources.")
    curate_cpus: float = Field(0.25, gt=0, description="CPUs per curating actor.")
    io_cpus: float = Field(0.1, gt=0, description="CPUs per task that reads or commits a chunk.")


class RunConfig(Options):
    """All settings of a run."""

    input: Location = Field(description="Parquet samples: a folder of shards or one file.")
    output: Location = Field(description="Folder that holds all runs.")
    run: RunOptions = RunOptions()
    model: ModelOptions
    decode: DecodeOptions = DecodeOptions()
    trace: TraceOptions = TraceOptions()
    units: UnitOptions = UnitOptions()
    spans: SpanOptions = SpanOptions()
    curation: CurationOptions = CurationOptions()
    media: MediaOptions = MediaOptions()
    asr: AsrOptions = AsrOptions()
    ray: RayOptions = RayOptions()

    def reading_options(self, rules: MediaRules) -> ReadingOptions:
        """The settings of the stages that read samples. rules: of the run's model."""
        from omnitrace_core.reader import ReadingOptions

        return ReadingOptions(rules, self.media, self.units, self.asr, self.spans)


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML file and apply `key=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or a key or value is not valid.
    """
    return make_config(_read_yaml(path), overrides, path)


def make_config(tree: Tree, overrides: Sequence[str], where: str) -> RunConfig:
    """Validate a tree of settings after applying `key=value` overrides.

    where: names the source of the settings in messages.

    Raises:
        ConfigError: a key or value is not valid.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise ConfigError(f"{where} is not a valid configuration:\n{problems}") from error


def _read_yaml(path: str) -> Tree:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config {path} cannot be read: {error}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must be a mapping of sections such as input, output and model")
    return tree


def _apply(tree: Tree, override: str) -> None:
    """Set one dotted key in the tree. Raises: ConfigError."""
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(
            f"override {override!r} is not of the form key=value, such as trace.signals=[attmean]"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {key}: {text!r} is not valid YAML: {error}") from error
    node = tree
    for section in sections:
        child = node.get(section)
        # A section that is missing or empty in the file: create it to hold the key.
        if child is None:
            child = node[section] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {key}: {section} is a value, not a section")
        node = child
    node[last] = value


def _explain(problem: ErrorDetails) -> str:
    """One of pydantic's errors in one line: the key, its value, and what is valid."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: unknown key; {hint}valid: {', '.join(valid)}"
    if problem["type"] == "missing":
        return f"{key}: missing; it has no default"
    return f"{key}={problem['input']!r}: {problem['msg']}"


def _valid_keys(section: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for name in section:
        field = model.model_fields.get(str(name))
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return sorted(model.model_fields)


# Settings that cannot change a record: places, resources, chunk sizes, limits on errors.
_NOT_IN_FINGERPRINT: Mapping[str, bool | set[str]] = {
    "input": True,
    "output": True,
    "run": True,
    "ray": True,
    "model": {"replicas", "gpus_per_replica", "batch_tokens", "device"},
    "trace": {"rows_mib", "head_files"},
    "media": {"isolate", "decode_timeout_s", "decode_memory_mib"},
    # asr.batch_s and asr.device count: padding and half precision may change a transcript.
    "asr": {"threads", "timeout_s", "retries"},
}


def fingerprint(config: RunConfig, model_identity: str) -> str:
    """Hash of everything that affects the records: settings, model and schema version.

    model_identity: identifies the weights, as `model_files.model_identity` returns it.
    """
    settings = config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)
    content: list[object] = [SCHEMA_VERSION, model_identity, settings]
    # A file of head weights counts by its content, not its path.
    content.extend(head_weights_identity(path) for path in _head_files(config).values())
    if config.model.dtype == "auto":
        # auto means float32 on a CPU and the checkpoint's dtype on a GPU.
        content.append("on_gpu" if config.model.gpus_per_replica else "on_cpu")
    if config.decode.do_sample:
        # A batch is sampled from one seed, so its composition affects the samples.
        content.append([config.model.batch_tokens, config.run.chunk_samples])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _head_files(config: RunConfig) -> dict[str, str]:
    """Absolute path of each file of head weights, by the signal's name."""
    names = [name for name in config.trace.signals if name.startswith(HEADS)]
    return {name: absolute_path(name[len(HEADS) :]) for name in names}


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings with absolute local paths, since a worker's current directory may differ.

    Hub ids and names of installed pipelines are unchanged.
    """
    model = config.model.model_copy(update={"path": _absolute(config.model.path)})
    spans = config.spans.model_copy(update={"pipeline": _absolute(config.spans.pipeline)})
    roots = tuple(os.path.abspath(root) for root in config.media.roots)
    media = config.media.model_copy(update={"roots": roots})
    trace = config.trace.model_copy(update={"head_files": _head_files(config)})
    speech_models = {key: _absolute_or_none(getattr(config.asr, key)) for key in SPEECH_MODELS}
    asr = config.asr.model_copy(update=speech_models)
    changed = {"model": model, "spans": spans, "media": media, "trace": trace, "asr": asr}
    return config.model_copy(update=changed)


def _absolute_or_none(path: str | None) -> str | None:
    return None if path is None else _absolute(path)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if os.path.isdir(path) else path
