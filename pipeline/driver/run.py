"""Drive a run from its plan to its verdict: process what is left, publish each complete shard."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

from omnitrace_core.errors import LeaseLost
from pipeline.driver.failure import record_failure
from pipeline.driver.plan_run import check_writable
from pipeline.driver.present_input import input_is_unchanged, with_present_input
from pipeline.driver.steps import RunSteps
from pipeline.driver.stop_signals import stopping_on_signals
from pipeline.retrying.first_run import retry_of_nothing
from pipeline.retrying.replace_files import finish_replacement
from pipeline.retrying.state import next_retry, shards_to_retry
from pipeline.run_folder.checks.damaged_shards import invalidate_damaged_shards
from pipeline.run_folder.checks.linked_folders import check_subfolders
from pipeline.run_folder.checks.retired_numbers import RetiredNumbers
from pipeline.run_folder.commit import ExecuteChunks
from pipeline.run_folder.lease import Lease, hold_lease
from pipeline.run_folder.lease_file import is_held
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import (
    ExitCode,
    StopReason,
    Verdict,
    VerdictFile,
    is_finished,
    make_verdict,
    with_stored_times,
)

log = logging.getLogger(__name__)


def run(
    planned: PlannedRun, execute: ExecuteChunks | None = None, *, take_lease: bool = False
) -> Verdict:
    """Process what is left of the run, and return the verdict; does nothing if it is finished.

    With `run.retry`, it then traces the chosen error rows once more, and is finished when that is
    done.

    execute: processes a window of chunks; by default the graph on Ray. take_lease: take the run
    over at once, even if another driver works on it. In the main thread, SIGTERM ends the run as
    Ctrl-C does.

    Raises:
        ConfigError: the output cannot be written, or Ray cannot be joined or started.
        InputSchemaError: the input changed since it was planned, and cannot be used any more.
        LeaseHeld: another driver works on the run, and is alive.
        LeaseLost: another driver took the run over.
        RunError: a stage failed, or rows were lost; what was committed stays and is not redone.
    """
    check_subfolders(planned.folder, [planned.config.input.path])
    # A driver that has just taken the lease may be about to change what is published.
    nothing_left = not is_held(planned.folder) and is_finished(planned)
    nothing_left = nothing_left and not shards_to_retry(planned, next_retry(planned))
    if nothing_left and input_is_unchanged(planned):
        return with_stored_times(make_verdict(planned), planned.folder)
    check_writable(planned.identity.output)
    if warning := retry_of_nothing(planned):
        log.warning(warning)
    with (
        stopping_on_signals(),
        # Outside the lease, so that Ray shuts down after the verdict is written and the lease is
        # released: a process that received SIGTERM may have only seconds left.
        ExitStack() as resources,
        hold_lease(planned.folder, planned.config.run.lease_s, take_over=take_lease) as lease,
    ):
        # First, because the driver's time counts from then on.
        verdict_file = VerdictFile(planned.folder, lease.epoch, lease.predecessor)
        retired = RetiredNumbers(planned.folder, lease.epoch, lease.confirm)
        planned = _with_present_manifests(with_present_input(planned), lease, retired)
        retry = next_retry(planned)
        if is_finished(planned) and not shards_to_retry(planned, retry):
            return with_stored_times(make_verdict(planned), planned.folder)
        steps = RunSteps(planned, lease, verdict_file, resources, retired, retry)
        return _drive(steps, execute)


def _drive(steps: RunSteps, execute: ExecuteChunks | None) -> Verdict:
    try:
        return _drive_to_the_end(steps, execute)
    except KeyboardInterrupt as interrupt:
        cause = f"stopped by {interrupt.args[0]}" if interrupt.args else "interrupted"
        # The watch of Ray interrupts this thread too.
        reason = steps.loss.reason or f"{cause}; the same command continues the run"
        return steps.end(StopReason(ExitCode.INCOMPLETE, reason))


def _drive_to_the_end(steps: RunSteps, execute: ExecuteChunks | None) -> Verdict:
    try:
        steps.begin()
        return steps.end(steps.work(execute))
    except LeaseLost:
        # Another driver has the folder, and writes the verdict.
        raise
    except Exception as error:
        if steps.loss.found():
            return steps.end(StopReason(ExitCode.INCOMPLETE, steps.loss.reason))
        record_failure(steps.planned, steps.lease, steps.verdict_file, error)
        raise


def _with_present_manifests(
    planned: PlannedRun, lease: Lease, retired: RetiredNumbers
) -> PlannedRun:
    """The planned run with what other drivers published since it was planned.

    A manifest with a retired number does not count: its files may be deleted at any moment. If a
    driver died while it replaced a shard's files, they are replaced now.
    """
    manifests = {
        name: manifest
        for name, manifest in read_manifests(planned.folder, with_chunks=False).items()
        if manifest.number not in retired.numbers
    }
    for name, manifest in list(manifests.items()):
        if manifest.replacement:
            number = manifest.number
            whole = finish_replacement(planned.folder, number, lease.epoch, lease.confirm)
            if whole is None:
                del manifests[name]
            else:
                manifests[name] = replace(whole, chunk_keys=[])
    manifests = invalidate_damaged_shards(planned.folder, manifests, lease.confirm)
    numbers = {name: manifest.number for name, manifest in manifests.items()}
    plan = planned.plan.with_published_numbers(numbers, retired.numbers)
    return replace(planned, manifests=manifests, plan=plan)
