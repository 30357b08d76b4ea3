"""The `omnitrace` command: one table of verbs, each loaded when it is called.

Exit codes: 0 done, 1 crash, 2 usage, config or input schema (before any work), 4 incomplete, or
damaged samples in the input of `validate`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnitrace_core import __version__
from omnitrace_core.addresses import scrub
from omnitrace_core.errors import OmniTraceError
from omnitrace_core.printable import PrintableFormatter, printable
from pipeline.commands.terminal import (
    SafeParser,
    count,
    print_blocks,
    print_error,
    print_text,
    printable_warnings,
)
from pipeline.driver.stop_signals import stopping_on_signals
from pipeline.plurals import counted

Arguments = argparse.Namespace
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verb:
    """A subcommand: its arguments, and the function that runs it and returns the exit code."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Arguments], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run its verb; returns the exit code."""
    arguments = parse_arguments(argv)
    _set_up_logging(arguments.verbose)
    run: Callable[[Arguments], int] = arguments.run
    try:
        with stopping_on_signals(), printable_warnings():
            return run(arguments)
    except OmniTraceError as error:
        from pipeline.run_folder.verdict import exit_code_of

        _say_failure(str(error), arguments.verbose)
        return exit_code_of(error)
    except OSError as error:
        from pipeline.run_folder.verdict import ExitCode

        _say_failure(f"{type(error).__name__}: {error}", arguments.verbose)
        return ExitCode.CRASH
    except KeyboardInterrupt as stop:
        print_error(f"omnitrace: interrupted{f' by {stop}' if stop.args else ''}")
        from pipeline.run_folder.verdict import ExitCode

        return ExitCode.INCOMPLETE
    except Exception:
        from pipeline.run_folder.verdict import ExitCode

        # Logged rather than raised: Python would print the exception's text as it is.
        log.exception("unexpected error; this is a fault of omnitrace, please report it")
        return ExitCode.CRASH


def _set_up_logging(verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if verbose:
        # Ours alone: clients of stores log the headers that they sign and send.
        for package in ("omnitrace_core", "stages", "pipeline"):
            logging.getLogger(package).setLevel(logging.DEBUG)


def _say_failure(message: str, verbose: bool) -> None:
    if verbose:
        print_error(scrub(traceback.format_exc().rstrip()))
    print_error(f"omnitrace: {scrub(message)}")


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The arguments of a command line (by default this process's), with the verb's `run`.

    Raises:
        SystemExit: the command line is not valid (code 2), or only asks for help (code 0).
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(chosen=next((item for item in argv if not item.startswith("-")), None))
    arguments, rest = parser.parse_known_args(argv)
    # argparse does not collect key=value after an option; here it may stand anywhere.
    if rest and ("overrides" not in arguments or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen verb adds its arguments, which may load its module."""
    parser = SafeParser(
        prog="omnitrace",
        description="Which parts of the input made the model say that?",
        epilog="exit codes: 0 done, 1 crash, 2 usage, config or input, 4 incomplete",
    )
    parser.add_argument("--version", action="version", version=__version__)
    shared = SafeParser(add_help=False)
    shared.add_argument("-v", "--verbose", action="store_true", help="tracebacks and debug logs")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        added = verbs.add_parser(
            verb.name, help=verb.summary, description=verb.summary, parents=[shared]
        )
        if verb.name == chosen:
            verb.add_arguments(added)
        added.set_defaults(run=verb.run)
    return parser


def _ingest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="JSON, JSONL or Parquet: a file, a folder, a URL or a glob")
    parser.add_argument("dest", help="folder for the shards")
    parser.add_argument(
        "--media-root",
        help="folder or s3://... that relative media paths start at; runs may read media from it",
    )
    parser.add_argument(
        "--shard-rows", type=count, default=1024, help="samples per shard (default: 1024)"
    )
    parser.add_argument(
        "--inline-media", action="store_true", help="embed the bytes of local media files"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in DEST")


def _ingest(arguments: Arguments) -> int:
    from pipeline.commands.ingest import ingest

    report = ingest(
        arguments.source,
        arguments.dest,
        media_root=arguments.media_root,
        shard_rows=arguments.shard_rows,
        inline_media=arguments.inline_media,
        overwrite=arguments.overwrite,
    )
    print_text(
        f"{counted(report.rows, 'sample')} from {counted(report.files_read, 'file')} -> "
        f"{counted(len(report.shards), 'shard')}:"
    )
    for shard in report.shards:
        print_text(f"  {printable(shard)}")
    for kind in report.left_out:
        print_text(f"does not read {printable(kind)}")
    for root in report.media_roots:
        print_text(f"a run may read media from {printable(root)}, which the shards name")
    for root in report.unnamed_roots:
        print_text(f"a run reads media from {printable(root)} only if media.allow lists it")
    return 0


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file of the run")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="set a field of the config, such as trace.signals=[attmean,attraw]",
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and the plan; do nothing"
    )
    parser.add_argument(
        "--address", help="Ray cluster to join: auto or HOST:PORT; overrides ray.address"
    )
    _break_lease_argument(parser)


def _break_lease_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--break-lease",
        action="store_true",
        help="take the run over at once, even if another driver works on it",
    )


def _validate_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument(
        "--quick", action="store_true", help="do not read the samples, only their ids"
    )


def _validate(arguments: Arguments) -> int:
    from pipeline.commands.summary import damage_text, media_warnings, plan_text
    from pipeline.commands.validate import damage_of_others, read_samples_of
    from pipeline.config import load_config
    from pipeline.driver.plan_run import check_writable, plan_run
    from pipeline.planning.identified_run import identify_run
    from pipeline.planning.input_shards import UnreadableShards
    from pipeline.run_folder.verdict import ExitCode

    identified = identify_run(load_config(arguments.config, arguments.overrides))
    try:
        planned = plan_run(identified)
    except UnreadableShards as error:
        damaged = [] if arguments.quick else damage_of_others(identified.listing, error)
        if damaged:
            print_text(damage_text(damaged))
        raise
    check_writable(planned.identity.output)
    damaged = [] if arguments.quick else read_samples_of(identified.listing)
    plan = plan_text(planned, identified.listing.left_out)
    is_damaged = bool(damaged) or any(shard.unread_ids for shard in planned.plan.shards)
    state = "is valid, but its input is damaged" if is_damaged else "is valid"
    print_text(f"{printable(arguments.config)} {state}\n{plan}")
    for warning in media_warnings(planned.resolved_config.media):
        print_text(f"warning {warning}")
    if damaged:
        print_text(damage_text(damaged))
    return ExitCode.INCOMPLETE if is_damaged else ExitCode.DONE


def _run(arguments: Arguments) -> int:
    from pipeline.commands.summary import (
        config_text,
        nothing_to_do_text,
        plan_text,
        verdict_blocks,
    )
    from pipeline.config import load_config
    from pipeline.driver.finished_run import finished_verdict
    from pipeline.driver.plan_run import plan_run
    from pipeline.driver.run import run
    from pipeline.planning.identified_run import identify_run

    overrides = arguments.overrides
    if arguments.address is not None:
        # As JSON, so that YAML reads it as a text, an empty one too.
        overrides = [*overrides, f"ray.address={json.dumps(arguments.address)}"]
    identified = identify_run(load_config(arguments.config, overrides))
    verdict = None if arguments.dry_run else finished_verdict(identified)
    if verdict is not None:
        print_text(nothing_to_do_text(identified.config))
    else:
        planned = plan_run(identified)
        plan = plan_text(planned, identified.listing.left_out)
        if arguments.dry_run:
            print_text(f"{config_text(planned.resolved_config)}\n\n{plan}")
            return 0
        print_text(plan)
        verdict = run(planned, take_lease=arguments.break_lease)
    print_blocks(verdict_blocks(identified.identity.folder, verdict))
    return int(verdict.exit_code or 0)


def _curate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run's folder, or one above it")
    parser.add_argument("dest", metavar="DEST", help="folder for the resulting run")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="change a setting of the run, such as curation.pools=per_modality",
    )
    parser.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="worker processes (default: one per CPU, at most one per shard)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and their changes; do nothing"
    )
    _break_lease_argument(parser)


def _curate(arguments: Arguments) -> int:
    from pipeline.commands.summary import config_text, recuration_text, verdict_blocks
    from pipeline.recuration.plan import plan_recuration
    from pipeline.recuration.recurate_run import run_recuration
    from pipeline.run_folder.verdict import is_finished

    recuration = plan_recuration(arguments.run_folder, arguments.dest, arguments.overrides)
    if arguments.dry_run:
        print_text(f"{config_text(recuration.config)}\n\n{recuration_text(recuration)}")
        return 0
    nothing_to_do = is_finished(recuration)
    print_text(
        "this run is finished: nothing to do" if nothing_to_do else recuration_text(recuration)
    )
    verdict = run_recuration(recuration, arguments.workers, take_lease=arguments.break_lease)
    print_blocks(verdict_blocks(recuration.folder, verdict))
    return int(verdict.exit_code or 0)


def _trace_arguments(parser: argparse.ArgumentParser) -> None:
    from pipeline.commands.trace import add_arguments

    add_arguments(parser)


def _trace(arguments: Arguments) -> int:
    from pipeline.commands.trace import run

    return run(arguments)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run's folder, or one above it")
    parser.add_argument("sample_id", metavar="SAMPLE_ID", help="id of the sample to show")


def _inspect(arguments: Arguments) -> int:
    from pipeline.commands.inspect import inspect_sample

    print_blocks(inspect_sample(arguments.run_folder, arguments.sample_id))
    return 0


VERBS: tuple[Verb, ...] = (
    Verb("ingest", "Turn samples into Parquet shards.", _ingest_arguments, _ingest),
    Verb("validate", "Check a config, its model and its input.", _validate_arguments, _validate),
    Verb("run", "Trace a corpus on Ray.", _run_arguments, _run),
    Verb("curate", "Curate a run again, without its model.", _curate_arguments, _curate),
    Verb("trace", "Trace a small JSON file, without Ray.", _trace_arguments, _trace),
    Verb("inspect", "Show one sample of a run.", _inspect_arguments, _inspect),
)
