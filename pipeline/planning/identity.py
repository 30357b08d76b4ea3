"""Identify a run: its id, date, fingerprint and folder. The same command gives the same run."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from omnitrace_core.errors import RunError
from pipeline.config import RunConfig, fingerprint
from pipeline.planning.model_files import model_identity, speech_identity
from pipeline.storage.addresses import absolute_path
from pipeline.storage.folder import Folder

Today = Callable[[], datetime.date]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Identifies a run.

    date: the UTC date on which it began. fingerprint: hash of the settings and models that its
    records depend on. output: the folder of all runs.
    """

    run_id: str
    date: datetime.date
    fingerprint: str
    output: Folder

    @property
    def folder(self) -> Folder:
        """Folder of the run's files."""
        return self.output / f"run_date={self.date.isoformat()}/run_id={self.run_id}"


def utc_today() -> datetime.date:
    """Today's date in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def run_identity(config: RunConfig, today: Today = utc_today) -> RunIdentity:
    """Identify the run of a config; writes nothing.

    Raises:
        ConfigError: the model is neither a directory nor a hub id with a pinned revision.
        RunError: the record of the run's date cannot be read.
    """
    models = [model_identity(config.model)]
    if config.units.audio == "chunks":
        models += speech_identity(config.asr)
    config_fingerprint = fingerprint(config, "\0".join(models))
    key = f"{absolute_path(config.input.path)}\0{config_fingerprint}"
    # Begins with a letter, or Hive-style readers could take the folder name for a number.
    run_id = config.run.id or f"r{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    output = Folder(config.output.path)
    date = config.run.date or _recorded_date(output, run_id) or today()
    return RunIdentity(run_id, date, config_fingerprint, output)


def record_run_date(identity: RunIdentity) -> None:
    """Record the date on which the run began, so that it stays one run after midnight.

    Raises:
        RunError: another driver has recorded another date meanwhile.
    """
    record = {"run_id": identity.run_id, "run_date": identity.date.isoformat()}
    if identity.output.create(_record(identity.run_id), json.dumps(record).encode()):
        return
    if (recorded := _recorded_date(identity.output, identity.run_id)) != identity.date:
        raise RunError(
            f"run {identity.run_id} was begun on {recorded} by another driver, while this one "
            f"planned to begin it on {identity.date}; run the same command again"
        )


def _recorded_date(output: Folder, run_id: str) -> datetime.date | None:
    try:
        content = output.read(_record(run_id))
    except FileNotFoundError:
        return None
    try:
        return datetime.date.fromisoformat(json.loads(content)["run_date"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{output.url(_record(run_id))} does not say on which date the run began ({error}); "
            "set run.date to its folder's date, or delete the file to begin a new run"
        ) from error


def _record(run_id: str) -> str:
    return f"_runs/{run_id}.json"
