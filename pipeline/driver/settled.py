"""A finished run, seen from two listings and a verdict: what a rerun with nothing to do costs."""

from __future__ import annotations

from dataclasses import fields, replace

from pipeline.config import RunConfig
from pipeline.planning.identity import Today, identify, utc_today
from pipeline.planning.inputs import list_shards
from pipeline.planning.plan import inputs_digest
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.verdict import Verdict, decide, read_verdict
from pipeline.storage.folder import Folder


def settled(config: RunConfig, today: Today = utc_today) -> tuple[Folder, Verdict] | None:
    """Folder and verdict of the run, if its input is as it was when it was finished.

    No shard and no manifest is opened: the input is listed, and so are the manifests.

    Raises:
        ConfigError, InputSchemaError, RunError: as of `prepare`, as far as they are met.
    """
    _, listed = list_shards(config.input.path)
    identity = identify(config, today)
    verdict = _stored(identity.folder)
    if verdict is None or not verdict.finished:
        return None
    digest = inputs_digest(listed, identity.fingerprint, config.run.chunk_samples)
    n_manifests = len(identity.folder.names(MANIFESTS, suffix=".json"))
    if verdict.inputs != digest or n_manifests != verdict.n_shards:
        return None
    # Judged by the limit of the day.
    limit = config.run.max_error_fraction
    exit_code, reason = decide(True, verdict.n_error, verdict.n_rows, limit)
    return identity.folder, replace(verdict, exit_code=exit_code, reason=reason)


def _stored(folder: Folder) -> Verdict | None:
    told = read_verdict(folder)
    known = {field.name for field in fields(Verdict)}
    # One that an older version wrote is no ground to skip the work on.
    return Verdict(**told) if told is not None and told.keys() == known else None
