"""Record in the verdict why a run failed."""

from __future__ import annotations

from contextlib import suppress

from omnitrace_core.addresses import scrub
from omnitrace_core.errors import LeaseLost, RunError, StoreCredentials
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.stored_run import record_totals
from pipeline.run_folder.verdict import (
    ExitCode,
    RunState,
    StopReason,
    VerdictFile,
    exit_code_of,
    make_verdict,
    unfinished_verdict,
)


def record_failure(
    run: RunState, lease: Lease, verdict_file: VerdictFile, error: Exception
) -> None:
    """Write the error that ended a run into its verdict, if this driver still holds the run.

    Raises:
        LeaseLost: another driver has the run.
        RunError: in place of StoreCredentials. The credentials were valid when the run began, so
            their failure is a crash and not an error in the config.
    """
    code = ExitCode.CRASH if isinstance(error, StoreCredentials) else exit_code_of(error)
    record_stop(run, lease, verdict_file, StopReason(code, scrub(str(error))))
    if code != exit_code_of(error):
        raise RunError(str(error)) from error


def record_stop(
    run: RunState, lease: Lease, verdict_file: VerdictFile, stopped: StopReason
) -> None:
    """Write why a run ended early into its verdict, if this driver still holds the run.

    Raises:
        LeaseLost: another driver has the run.
    """
    # A store that fails here may be the cause of the end, which the caller reports.
    with suppress(OSError):
        if _still_held(lease):
            verdict = verdict_file.completed(unfinished_verdict(make_verdict(run), stopped))
            record_totals(run.folder, verdict, lease.confirm)
            verdict_file.write(verdict)


def _still_held(lease: Lease) -> bool:
    """Whether the store confirms the lease; false if it did not answer for too long.

    Raises:
        LeaseLost: another driver holds the lease.
        OSError: the store does not answer.
    """
    try:
        lease.confirm()
    except LeaseLost as lost:
        if not isinstance(lost.__cause__, OSError):
            raise
        return False
    return True
