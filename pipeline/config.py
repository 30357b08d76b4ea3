"""A run's configuration: one YAML file, any field overridable as `key=value`."""

from __future__ import annotations

import copy
import datetime
import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from omnitrace_core.base_options import Gpus, Options
from omnitrace_core.errors import ConfigError, sample_error_codes
from omnitrace_core.options import (
    DAY_S,
    SPEECH_MODELS,
    AsrOptions,
    CurationOptions,
    DecodeOptions,
    MediaOptions,
    ModelOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.samples.values import shorten
from omnitrace_core.tracing.signals import HEADS
from omnitrace_core.tracing.signals.head_weights import head_weights_identity
from pipeline.head_address import checked_address
from pipeline.settings_yaml import Tree, apply_override, read_tree
from pipeline.storage.addresses import absolute_path, address_problem
from stages.arrow.table_schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from omnitrace_core.media_rules import MediaRules
    from omnitrace_core.reader import ReadingOptions

MAX_RUN_ID_CHARS = 128  # it becomes part of file names, which have at most 255 bytes
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Location(Options):
    """A folder, or for input also a single file: a local path or any fsspec URL."""

    path: str = Field(
        min_length=1, description="Local path (relative to the current directory) or fsspec URL."
    )

    @field_validator("path")
    @classmethod
    def _can_be_read(cls, path: str) -> str:
        if problem := address_problem(path):
            raise ValueError(problem)
        return path


class RunOptions(Options):
    """The run's name, the size of its units of work, and its limits on errors."""

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_RUN_ID_CHARS,
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
        le=10**6,
        description="Chunks per execution of the graph; bounds the memory of the driver.",
    )
    max_error_fraction: float = Field(
        0.5, ge=0, le=1, description="Exit code 4 if a larger fraction of the rows are errors."
    )
    min_rows_to_stop: int = Field(
        1000,
        ge=1,
        le=10**12,
        description="Number of rows after which too many errors end the run early.",
    )
    lease_s: float = Field(
        60,
        ge=1,
        le=DAY_S,
        description="Seconds without a renewal of the lease after which another driver may take "
        "the run over.",
    )
    retry: Literal["none", "errors"] | tuple[str, ...] = Field(
        "none",
        description="Error rows that are published and are to be traced once more: none, errors "
        "(all that the rows of the input alone do not decide), or a list of error codes.",
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
                f"unknown: {shorten(unknown)}; give none, errors, or a list of these error codes: "
                f"{', '.join(known)}"
            )
        return tuple(sorted(set(codes)))

    @field_validator("id", mode="before")
    @classmethod
    def _as_written(cls, run_id: object) -> object:
        # 1.10 would become the id 1.1.
        if isinstance(run_id, float):
            raise ValueError("a number with a fraction; quote it, such as run.id='\"1.10\"'")
        return run_id

    @field_validator("date", mode="before")
    @classmethod
    def _calendar_date(cls, date: object) -> object:
        # pydantic takes numbers, also in texts, for seconds since 1970.
        is_date = isinstance(date, datetime.date) and not isinstance(date, datetime.datetime)
        if date is None or is_date or (isinstance(date, str) and _DATE.fullmatch(date)):
            return date
        raise ValueError("not a date of the form YYYY-MM-DD")


_Actors = Annotated[int, Field(ge=1, le=100_000)]
_Cpus = Annotated[float, Field(ge=0.0001, le=4096)]  # Ray counts in steps of 0.0001


class RayOptions(Options):
    """Where the stages run, and the resources of each."""

    address: str | None = Field(
        None, description="Ray cluster to join: auto or HOST:PORT; null starts a local one."
    )
    quiet: bool = Field(True, description="Hide Ray's own logs and progress bars.")
    decode_actors: _Actors = Field(1, description="Actors that decode media.")
    decode_cpus: _Cpus = Field(0.25, description="CPUs per decoding actor.")
    audio_actors: _Actors = Field(1, description="Actors that find speech and cut units.")
    audio_cpus: _Cpus = Field(0.25, description="CPUs per audio actor.")
    audio_gpus: Gpus = Field(
        0, description="GPUs per audio actor, for a speech model with asr.device=cuda."
    )
    audio_timeout_s: float | None = Field(
        None,
        gt=0,
        le=DAY_S,
        description="Seconds that a speech engine may take for one batch of sounds: up to 256 MiB "
        "of a chunk (from the third attempt on: of one sample). After that its process is ended "
        "and the attempt counts as a death; null: no limit.",
    )
    trace_cpus: _Cpus = Field(1, description="CPUs per model replica (torch threads).")
    trace_timeout_s: float | None = Field(
        None,
        gt=0,
        le=DAY_S,
        description="Seconds that making the inputs of a chunk may take, and again seconds that "
        "the model may take for it (from the third attempt on: for one sample). After that its "
        "process is ended and the attempt counts as a death; null: no limit.",
    )
    curate_actors: _Actors = Field(1, description="Actors that cut spans and curate sources.")
    curate_cpus: _Cpus = Field(0.25, description="CPUs per curating actor.")
    io_cpus: _Cpus = Field(0.1, description="CPUs per task that reads or commits a chunk.")

    @field_validator("address")
    @classmethod
    def _has_the_form(cls, address: str | None) -> str | None:
        return None if address is None else checked_address(address)


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
    return make_config(read_tree(path), overrides, path)


def make_config(tree: Tree, overrides: Sequence[str], where: str) -> RunConfig:
    """Validate a tree of settings after applying `key=value` overrides.

    where: names the source of the settings in messages.

    Raises:
        ConfigError: a key or value is not valid.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        apply_override(tree, override)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise ConfigError(f"{where} is not a valid configuration:\n{problems}") from error
    if config.trace.head_files:
        raise ConfigError(
            f"{where} is not a valid configuration:\n  trace.head_files: set by the pipeline; "
            "name each file in trace.signals, such as heads:FILE"
        )
    return config


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
    return f"{key}={_shown(problem['input'])}: {problem['msg'].removeprefix('Value error, ')}"


def _shown(value: object) -> str:
    """A value on one short line, without the user part of an address, which may be a secret."""
    if isinstance(value, str):
        value = re.sub("(://)[^/]*@", r"\1…@", value)
    return shorten(value)


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


_LATER_MEDIA_SETTINGS = {"allow": None, "max_heard_s": None, "video_reader": "pyav"}


def fingerprint(config: RunConfig, model_identity: str) -> str:
    """Hash of everything that affects the records: settings, model and schema version.

    model_identity: identifies the weights, as `model_files.model_identity` returns it.
    """
    settings = config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)
    # These came later: configs without them keep their runs.
    for name, default in _LATER_MEDIA_SETTINGS.items():
        if getattr(config.media, name) == default:
            del settings["media"][name]
    content: list[object] = [SCHEMA_VERSION, model_identity, settings]
    if config.units.audio == "chunks":
        # Runs of older versions left the sound between speech chunks without units.
        content.append("sound between speech chunks")
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
    roots = tuple(os.path.abspath(os.path.expanduser(root)) for root in config.media.roots)
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
