"""`omnitrace trace FILE`: trace a small file without Ray, from JSON to JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omnitrace_core.access.stores import store_of
from omnitrace_core.errors import BackendError, ConfigError, InvalidSample
from omnitrace_core.printable import json_printable, printable
from omnitrace_core.records import Sample
from omnitrace_core.samples.forms import ID_KEYS
from omnitrace_core.samples.parse import parse_any, with_default_id
from omnitrace_core.samples.values import shorten
from pipeline.commands.input_files import InputFile, find_files
from pipeline.commands.json_records import ParsedRecord
from pipeline.commands.terminal import count, print_error, print_text
from pipeline.config import RunConfig, make_config
from pipeline.planning.media_stores import with_allowed_stores
from pipeline.plurals import counted
from pipeline.run_folder.verdict import ExitCode
from stages.guards.row_guard import RowError, guarded

if TYPE_CHECKING:
    from omnitrace_core.result import TraceResult
    from omnitrace_core.tracer import OmniTracer

# The sections of a run's config that this verb accepts as well.
_SECTIONS = ("asr", "curation", "decode", "media", "spans", "trace", "units")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add our arguments and those of the method's published release."""
    parser.add_argument("file", nargs="?", help="JSON, JSONL or Parquet file of samples")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="set a field as in a run's config, such as asr.engine=whisper asr.model=DIR; "
        f"sections: {', '.join(_SECTIONS)}",
    )
    parser.add_argument("--questions_path", help="alias of FILE, as in the published release")
    parser.add_argument("--model", help="local directory or hub id of the model")
    parser.add_argument(
        "--model_name",
        default=None,
        help="qwen: same as --model, as the published release spells it",
    )
    parser.add_argument(
        "--method", default="attmean", help="signal, such as attmean, attraw, attgrads"
    )
    parser.add_argument("--output_path", default="output.json", help=".json or .jsonl; - prints")
    parser.add_argument("--limit", type=count, help="trace only the first N samples")
    parser.add_argument(
        "--use_asr_for_audio",
        action="store_true",
        help="speech chunks instead of time bins, found by asr.engine (vad)",
    )
    parser.add_argument(
        "--web-hosts",
        action="append",
        default=[],
        metavar="HOST[,HOST]",
        help="hosts that https media may come from (default: none); *.example.com allows all "
        "hosts below it; repeatable",
    )
    parser.add_argument(
        "--qwen-video-fps", type=float, default=2.0, help="sampled video frames per second"
    )
    parser.add_argument(
        "--video-max-pixels", type=int, default=4_200_000, help="pixel budget of a video's frames"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, help="most tokens generated")


def run(arguments: argparse.Namespace) -> int:
    """Trace the file; 0 if every sample was traced, 4 if some became error records.

    Raises:
        ConfigError: no input, no model, or an output that cannot be written.
        InputSchemaError: the file holds no samples.
    """
    source, overrides = _source(arguments)
    if arguments.model is None and arguments.model_name is None:
        raise ConfigError("trace needs a model: --model PATH (a directory or hub id)")
    found = find_files(source)
    for kind in found.left_out:
        print_error(f"does not read {kind}")
    inputs = [(file.folder, record) for file in found.files for record in file.records()]
    config = _config(arguments, overrides)
    if config.media.allow is None:
        config = _with_stores(config, found.files)
    _check_output(arguments.output_path)
    records = trace_records(_tracer(arguments, config), inputs[: arguments.limit])
    failed = sum(record["status"] == "error" for record in records)
    _write(records, arguments.output_path)
    if arguments.output_path != "-":
        counts = f"{counted(len(records), 'sample')}, {counted(failed, 'error')}"
        print_text(f"{counts} -> {printable(arguments.output_path)}")
    return ExitCode.INCOMPLETE if failed else ExitCode.DONE


def _with_stores(config: RunConfig, files: Sequence[InputFile]) -> RunConfig:
    """The config with the stores of the files, and those that they name, in `media.allow`."""
    own = {store for file in files if (store := store_of(file.url))}
    named = {root for file in files for root in file.media_roots()}
    for root in sorted(named):
        if not root.startswith(tuple(own)):
            print_error(f"warning: media may be read from {printable(root)}, which the file names")
    return with_allowed_stores(config, own | named)


def trace_records(
    tracer: OmniTracer, inputs: Sequence[tuple[str, ParsedRecord]]
) -> list[dict[str, object]]:
    """One JSON-ready result per record, in order.

    inputs: records, each with the folder that relative media addresses start at.
    """
    results: list[dict[str, object]] = []
    for number, (folder, record) in enumerate(inputs, start=1):
        name = _name_of(record.value, number)
        print_error(f"[{number}/{len(inputs)}] {printable(name)}")
        work = partial(_traced, tracer, record, name, folder)
        result = guarded("trace", name, work)
        if isinstance(result, RowError):
            print_error(f"  {result.code}: {result.message}")
            result = _failure(name, result)
        results.append(result)
    return results


def _traced(tracer: OmniTracer, record: ParsedRecord, name: str, folder: str) -> dict[str, object]:
    return _success(tracer.trace(_sample(record, name, folder)))


def _sample(record: ParsedRecord, name: str, folder: str) -> Sample:
    """Raises: InvalidSample."""
    if not isinstance(record.value, Mapping):
        raise InvalidSample(
            f"{record.where}: the record is {shorten(record.value)}, not an object; give a sample"
        )
    return parse_any(with_default_id(record.value, name), folder)


def _source(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """The input file, and the overrides. Raises: ConfigError: there is no file."""
    if arguments.questions_path:
        # Then the first word without a flag is not a file but an override.
        first = [] if arguments.file is None else [arguments.file]
        return arguments.questions_path, first + arguments.overrides
    if not arguments.file:
        raise ConfigError("trace needs a JSON file of samples: omnitrace trace FILE --model PATH")
    return arguments.file, arguments.overrides


def _config(arguments: argparse.Namespace, overrides: list[str]) -> RunConfig:
    """The config of flags and overrides. Raises: ConfigError: one of them is not valid."""
    for override in overrides:
        section, dot, _ = override.partition("=")[0].partition(".")
        if dot and section not in _SECTIONS:
            raise ConfigError(f"override {override!r}: trace takes only {', '.join(_SECTIONS)}")
    hosts = [host.strip() for value in arguments.web_hosts for host in value.split(",")]
    tree: dict[str, object] = {
        "input": {"path": "-"},
        "output": {"path": "-"},
        "model": {"path": arguments.model or arguments.model_name},
        "trace": {"signals": [arguments.method]},
        "decode": {"max_new_tokens": arguments.max_new_tokens},
        "units": {"audio": "chunks" if arguments.use_asr_for_audio else "bins"},
        "media": {
            "video_fps": arguments.qwen_video_fps,
            "video_total_pixels": arguments.video_max_pixels,
            "web_hosts": [host for host in hosts if host],
        },
    }
    config = make_config(tree, overrides, "the command line")
    if config.units.audio != "chunks" and any(item.startswith("asr.") for item in overrides):
        raise ConfigError(
            "asr settings have no effect on sounds cut into time bins; add --use_asr_for_audio"
        )
    return config


def _tracer(arguments: argparse.Namespace, config: RunConfig) -> OmniTracer:
    """The loaded tracer. Raises: ConfigError: the model or speech engine cannot be loaded."""
    from omnitrace_core import OmniTracer
    from omnitrace_core.asr import SpeechChunker, load_engine

    which = {"model": arguments.model} if arguments.model else {"model_name": arguments.model_name}
    sections = {name: getattr(config, name) for name in _SECTIONS}
    try:
        if config.units.audio == "chunks":
            load_engine(config.asr)
            SpeechChunker(config.asr)
        return OmniTracer(**which, **sections).load()
    except BackendError as error:
        raise ConfigError(str(error)) from error


def _check_output(output: str) -> None:
    """Check before the work that its result can be written. Raises: ConfigError."""
    if output == "-":
        return
    try:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        with Path(output).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"--output_path {output}: cannot be written ({error})") from error


def _success(result: TraceResult) -> dict[str, object]:
    return {
        "sample_id": result.sample.sample_id,
        "status": "ok",
        "response": result.response,
        "reference_answer": result.sample.reference_answer,
        "metadata": dict(result.sample.metadata),
        "units": [asdict(unit) for unit in result.units],
        "spans": [
            {
                **asdict(item.span),
                "outcome": item.outcome,
                "confidence": item.confidence,
                "masses": dict(item.masses),
                "sources": [
                    {
                        **asdict(source.unit),
                        "mass": source.mass,
                        "share": source.share,
                        "run": source.run,
                        "score": source.score,
                        "rank": source.rank,
                    }
                    for source in item.sources
                ],
            }
            for item in result.spans
        ],
        "notes": list(result.trace.notes + result.segmentation.notes),
    }


def _failure(name: str, error: RowError) -> dict[str, object]:
    return {
        "sample_id": name,
        "status": "error",
        "error_code": error.code,
        "message": error.message,
        "spans": [],
    }


def _name_of(record: object, number: int) -> str:
    if isinstance(record, Mapping):
        for key in ID_KEYS:
            if record.get(key) is not None:
                return str(record[key])
    return f"sample-{number}"


def _write(records: list[dict[str, object]], output: str) -> None:
    if output.endswith(".jsonl"):
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    text = json_printable(text)
    if output != "-":
        Path(output).write_text(text, encoding="utf-8")
        return
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an older encoding: JSON can write every letter in ASCII
        text = json_printable(json.dumps(records, indent=1) + "\n")
    sys.stdout.write(text)
