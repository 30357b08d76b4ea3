"""Which run this is: its id, its date, its folder. The same command is the same run."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from omnitrace_core.errors import RunError
from pipeline.config import RunConfig, fingerprint
from pipeline.planning.model_files import model_identity, speech_identity
from pipeline.storage.folder import Folder, absolute

Today = Callable[[], datetime.date]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Names of a run, and what its records depend on."""

    run_id: str
    date: datetime.date
    fingerprint: str
    output: Folder

    @property
    def folder(self) -> Folder:
        """Where the run's files lie."""
        return self.output / f"run_date={self.date.isoformat()}/run_id={self.run_id}"


def utc_today() -> datetime.date:
    """The date in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def identify(config: RunConfig, today: Today = utc_today) -> RunIdentity:
    """Find out which run the config means; writes nothing.

    Raises:
        ConfigError: the model is neither a directory nor a pinned hub id.
        RunError: the record of the run's first day cannot be read.
    """
    models = [model_identity(config.model)]
    if config.units.audio == "chunks":
        models += speech_identity(config.asr)
    shaped = fingerprint(config, "\0".join(models))
    told = f"{absolute(config.input.path)}\0{shaped}"
    # Not all digits, or readers of the folder name would take it for a number.
    run_id = config.run.id or f"r{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    output = Folder(config.output.path)
    date = config.run.date or _first_day(output, run_id) or today()
    return RunIdentity(run_id, date, shaped, output)


def remember(identity: RunIdentity) -> None:
    """Note the day on which the run began, so that it stays one run after midnight.

    Raises:
        RunError: another driver noted another day meanwhile.
    """
    record = {"run_id": identity.run_id, "run_date": identity.date.isoformat()}
    if identity.output.create(_record(identity.run_id), json.dumps(record).encode()):
        return
    if (noted := _first_day(identity.output, identity.run_id)) != identity.date:
        raise RunError(
            f"run {identity.run_id} was begun on {noted} by another driver while this one planned "
            f"to begin it on {identity.date}; run the same command again"
        )


def _first_day(output: Folder, run_id: str) -> datetime.date | None:
    try:
        content = output.read(_record(run_id))
    except FileNotFoundError:
        return None
    try:
        return datetime.date.fromisoformat(json.loads(content)["run_date"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{output.url(_record(run_id))} does not say on which day the run began ({error}); "
            "set run.date to its folder's date, or delete the file to begin a new run"
        ) from error


def _record(run_id: str) -> str:
    return f"_runs/{run_id}.json"
