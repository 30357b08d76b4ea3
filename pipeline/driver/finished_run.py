"""Recognise a finished run without opening shards or manifests."""

from __future__ import annotations

from dataclasses import replace

from pipeline.planning.identified_run import IdentifiedRun
from pipeline.retrying.choice import retry_choice
from pipeline.run_folder.checks.linked_folders import check_subfolders
from pipeline.run_folder.lease_file import is_held
from pipeline.run_folder.published_files import list_published
from pipeline.run_folder.verdict import Verdict, exit_code_and_reason, read_verdict, verdict_of
from pipeline.storage.folder import Folder


def finished_verdict(run: IdentifiedRun) -> Verdict | None:
    """The run's verdict, if the run is finished and its input is still the same; else None.

    None too if `run.retry` chooses some of its error rows, or if a driver holds the lease.

    Costs a read of verdict.json and of the lease, and a listing of the manifests and of each table:
    files that were deleted or replaced since are noticed. The exit code follows
    `run.max_error_fraction` of the present config, which may differ from that of the earlier run.

    Raises:
        ConfigError: a subfolder of the run is a file, or a link that cannot be used.
        RunError: verdict.json is not valid, or the lease file is not a lease.
    """
    folder = run.identity.folder
    check_subfolders(folder, [run.config.input.path])
    verdict = _stored_verdict(folder)
    if verdict is None or not verdict.finished or verdict.inputs != run.inputs_digest:
        return None
    # A driver that has just taken the lease may be about to change what is published.
    if is_held(folder) or verdict.files != list_published(folder).digest:
        return None
    choice = retry_choice(run.config.run)
    if choice is not None and choice.of(verdict.by_code):
        return None
    limit = run.config.run.max_error_fraction
    exit_code, reason = exit_code_and_reason(True, verdict.n_error, verdict.n_rows, limit)
    return replace(verdict, exit_code=exit_code, reason=reason)


def _stored_verdict(folder: Folder) -> Verdict | None:
    content = read_verdict(folder)
    # A verdict of an older version lacks fields, and is not trusted.
    return verdict_of(content) if content is not None else None
