"""Compare a plan with the input as it is now, and plan the present input."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from omnitrace_core.errors import InputSchemaError
from pipeline.planning.input_shards import InputListing, list_input, media_roots, scan_input
from pipeline.planning.media_stores import store_warnings
from pipeline.planning.plan import digest_inputs, make_plan
from pipeline.plurals import counted
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import ExitCode, StopReason

_SHOWN = 3  # names in a message
log = logging.getLogger(__name__)


def with_present_input(planned: PlannedRun) -> PlannedRun:
    """The run with a plan of the input as it is now; the same run if the listing is the same.

    For a driver that has just taken the lease: since it planned, another one may have finished the
    run for an input that was changed meanwhile. An unchanged input costs one listing.

    Raises:
        InputSchemaError: there is no input any more, or it cannot be read as samples.
    """
    listing = list_input(planned.config.input.path)
    if is_planned(planned, listing):
        return planned
    log.warning("the input changed since it was planned: %s", _changes(planned, listing.shards))
    numbers = {name: manifest.number for name, manifest in planned.manifests.items()}
    fingerprint, chunk_samples = planned.plan.fingerprint, planned.plan.chunk_samples
    scans = scan_input(listing, roots=planned.config.media.allow is None)
    roots = media_roots(scans)
    for text in store_warnings(planned.config, set(roots) - set(planned.media_roots)):
        log.warning("%s", text)
    plan = make_plan(scans, fingerprint, chunk_samples, numbers)
    return replace(planned, plan=plan, media_roots=roots)


def is_planned(planned: PlannedRun, listing: InputListing) -> bool:
    """Whether the plan is of the input that is listed."""
    plan = planned.plan
    digest = digest_inputs(listing.shards, plan.fingerprint, plan.chunk_samples)
    return digest == plan.inputs_digest


def input_is_unchanged(planned: PlannedRun) -> bool:
    """Whether the plan is of the input as it is now. Raises: InputSchemaError, as `list_input`."""
    return is_planned(planned, list_input(planned.config.input.path))


def changed_input(planned: PlannedRun) -> StopReason | None:
    """The reason of a run whose input is not the one any more that it processed."""
    try:
        listing = list_input(planned.config.input.path)
    except InputSchemaError as error:
        changes = str(error)
    else:
        if is_planned(planned, listing):
            return None
        changes = _changes(planned, listing.shards)
    return StopReason(
        ExitCode.INCOMPLETE,
        f"the input changed while the run worked: {changes}; what was planned is published, and "
        "the same command does the rest",
    )


def _changes(planned: PlannedRun, now: Mapping[str, str]) -> str:
    before = {shard.name: shard.identity for shard in planned.plan.shards}
    kinds = {
        "added": now.keys() - before.keys(),
        "changed": {name for name in now.keys() & before.keys() if now[name] != before[name]},
        "removed": before.keys() - now.keys(),
    }
    return ", ".join(
        f"{counted(len(names), 'shard')} {kind} ({shown(names)})"
        for kind, names in kinds.items()
        if names
    )


def shown(names: set[str] | list[str]) -> str:
    """The first few names, sorted, for a message."""
    first = sorted(names)[:_SHOWN]
    return ", ".join(first) + (", ..." if len(names) > _SHOWN else "")
