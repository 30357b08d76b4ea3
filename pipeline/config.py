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
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from omnitrace_core.errors import ConfigError
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
from omnitrace_core.tracing.head_weights import head_weights_identity
from omnitrace_core.tracing.signals import HEADS
from pipeline.storage.folder import absolute
from stages.arrow.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from omnitrace_core.media_rules import MediaRules
    from omnitrace_core.reader import ReadingOptions

Tree: TypeAlias = dict[str, object]


class Location(Options):
    """A folder, or for input also a single file: a local path or any fsspec URL."""

    path: str = Field(min_length=1, description="Local path (relative: to the cwd) or fsspec URL.")

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str) -> str:
        if "://" in path and "@" in urlsplit(path).netloc:
            raise ValueError("credentials do not belong in a path; set them in the environment")
        return path


class RunOptions(Options):
    """What a run is called and how its work is cut."""

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        coerce_numbers_to_str=True,
        description="Name of the run; null: a hash of the input location and what shapes records.",
    )
    date: datetime.date | None = Field(
        None, description="Date of the run; null: the day it began, in UTC."
    )
    chunk_samples: int = Field(
        32, ge=1, le=4096, description="Samples per chunk, the unit of work and of commit."
    )
    window_chunks: int = Field(
        2000, ge=1, description="Chunks per Ray Data execution; bounds the driver's memory."
    )
    max_error_fraction: float = Field(
        0.5, ge=0, le=1, description="ExitCode code 4 if a larger share of the rows are errors."
    )
    min_rows_to_stop: int = Field(
        1000, ge=1, description="From so many rows on, too many errors end the run early."
    )
    lease_s: float = Field(
        60, ge=1, description="Another driver takes over a run whose own is silent for so long."
    )


class RayOptions(Options):
    """Where the stages run and what each is given."""

    address: str | None = Field(
        None, description="Ray to join: auto or an address; null starts a local one."
    )
    quiet: bool = Field(True, description="Keep Ray's own logs and progress bars off the terminal.")
    decode_actors: int = Field(1, ge=1, description="Actors that decode media.")
    decode_cpus: float = Field(0.25, gt=0, description="CPUs of each.")
    audio_actors: int = Field(1, ge=1, description="Actors that find speech and cut units.")
    audio_cpus: float = Field(0.25, gt=0, description="CPUs of each.")
    audio_gpus: float = Field(
        0, ge=0, description="GPUs of each, for a speech model with asr.device=cuda."
    )
    audio_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Longest time of a speech engine at what it hears together, which is at most "
        "256 MiB of a chunk (from the third attempt on: of a sample), or its process is ended as "
        "one that hangs; null: no limit.",
    )
    trace_cpus: float = Field(1, gt=0, description="CPUs of each model replica (torch threads).")
    trace_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Longest time for the inputs of a chunk, and then of a model at it (from "
        "the third attempt on: of a sample), or its process is ended as one that hangs; null: no "
        "limit.",
    )
    curate_actors: int = Field(1, ge=1, description="Actors that cut spans and curate sources.")
    curate_cpus: float = Field(0.25, gt=0, description="CPUs of each.")
    io_cpus: float = Field(
        0.1, gt=0, description="CPUs of each task that reads or commits a chunk."
    )


class RunConfig(Options):
    """Everything a run is told."""

    input: Location = Field(description="Parquet samples: a folder of shards or one file.")
    output: Location = Field(description="Folder of runs.")
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
    """Read a run's YAML and apply `key=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: no such file, not YAML, or a key or value that is not valid.
    """
    return make_config(_read_yaml(path), overrides, path)


def make_config(tree: Tree, overrides: Sequence[str], where: str) -> RunConfig:
    """A tree of settings with `key=value` overrides. where: what messages call it.

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
    """Set one dotted key in the tree."""
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
        # A section that the file leaves out or empty takes its defaults; make room for the key.
        if child is None:
            child = node[section] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {key}: {section} is a value, not a section")
        node = child
    node[last] = value


def _explain(problem: ErrorDetails) -> str:
    """One line for one of pydantic's errors: the key, the value met, and what is valid."""
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


# Where the work is done, how it is cut and what counts as too many errors cannot change a record.
_NOT_IN_FINGERPRINT: Mapping[str, bool | set[str]] = {
    "input": True,
    "output": True,
    "run": True,
    "ray": True,
    "model": {"replicas", "gpus_per_replica", "batch_tokens", "device"},
    "trace": {"rows_mib", "head_files"},
    "media": {"isolate", "decode_timeout_s", "decode_memory_mib"},
    # Not batch_s and device: padding and half precision may change what models hear.
    "asr": {"threads", "timeout_s", "retries"},
}


def fingerprint(config: RunConfig, model_identity: str) -> str:
    """Hash of all that shapes the records: settings, model and schema.

    model_identity: what `model_files.model_identity` says of the weights.
    """
    settings = config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)
    told: list[object] = [SCHEMA_VERSION, model_identity, settings]
    # A file of head weights counts by what it holds.
    told.extend(head_weights_identity(path) for path in _head_files(config).values())
    if config.model.dtype == "auto":
        # float32 on a CPU, the checkpoint's own on a GPU.
        told.append("on_gpu" if config.model.gpus_per_replica else "on_cpu")
    if config.decode.do_sample:
        # A batch is sampled from one seed, so who shares a batch counts.
        told.append([config.model.batch_tokens, config.run.chunk_samples])
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _head_files(config: RunConfig) -> dict[str, str]:
    """Files of head weights by the signal's name, as seen from here."""
    names = [name for name in config.trace.signals if name.startswith(HEADS)]
    return {name: absolute(name[len(HEADS) :]) for name in names}


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings with local paths made absolute: a worker may have another folder than ours.

    Hub ids and names of installed pipelines stay as they are.
    """
    model = config.model.model_copy(update={"path": _absolute(config.model.path)})
    spans = config.spans.model_copy(update={"pipeline": _absolute(config.spans.pipeline)})
    roots = tuple(os.path.abspath(root) for root in config.media.roots)
    media = config.media.model_copy(update={"roots": roots})
    trace = config.trace.model_copy(update={"head_files": _head_files(config)})
    heard = {key: _absolute_or_none(getattr(config.asr, key)) for key in SPEECH_MODELS}
    asr = config.asr.model_copy(update=heard)
    changed = {"model": model, "spans": spans, "media": media, "trace": trace, "asr": asr}
    return config.model_copy(update=changed)


def _absolute_or_none(path: str | None) -> str | None:
    return None if path is None else _absolute(path)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if os.path.isdir(path) else path
