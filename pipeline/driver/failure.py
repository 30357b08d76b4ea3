"""Record in the verdict why a run failed."""

from __future__ import annotations

from contextlib import suppress

from omnitrace_core.errors import LeaseLost, RunError, StoreCredentials
from pipeline.run_folder.lease import Lease
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
    # A store that fails here may be the cause of `error`, which the caller raises.
    with suppress(OSError):
        if _still_held(lease):
            stopped = StopReason(code, str(error))
            verdict_file.write(unfinished_verdict(make_verdict(run), stopped))
    if code != exit_code_of(error):
        raise RunError(str(error)) from error


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
