"""The steps of a run while this process holds its lease: begin, work, end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from omnitrace_core.errors import LeaseLost, RunError
from pipeline.cluster.loss_watch import RayLoss
from pipeline.driver.error_watch import ErrorWatch, count_committed_errors
from pipeline.driver.failure import record_stop
from pipeline.driver.present_input import changed_input
from pipeline.driver.progress import Progress
from pipeline.driver.run_description import describe_run
from pipeline.driver.schedule import Schedule
from pipeline.planning.identity import record_run_date
from pipeline.planning.plan import Chunk, Shard
from pipeline.plurals import counted
from pipeline.retrying.choice import Retry
from pipeline.retrying.state import rows_of_retry, shards_to_retry
from pipeline.retrying.work import RetriedShards
from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.checks.final_check import check_published
from pipeline.run_folder.checks.own_files import own_files
from pipeline.run_folder.checks.retired_numbers import RetiredNumbers
from pipeline.run_folder.checks.stale_files import delete_stale_files
from pipeline.run_folder.chunk_files import CHUNK_FILES, committed_chunks
from pipeline.run_folder.commit import CommittedChunk, ExecuteChunks
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.manifests import Manifest
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.publish import publish_shard
from pipeline.run_folder.stored_run import RUN_JSON, record_totals
from pipeline.run_folder.table_files import STAGED
from pipeline.run_folder.verdict import (
    ExitCode,
    StopReason,
    Verdict,
    VerdictFile,
    make_verdict,
    unfinished_verdict,
)
from stages.records.table_columns import kept_tables

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunSteps:
    """The steps of a run, in this order: `begin`, `work`, `end`.

    resources: closed at the end of the run: Ray, and the executions on it. retry: what is done
    again when every shard is published. loss: of Ray.
    """

    planned: PlannedRun
    lease: Lease
    verdict_file: VerdictFile
    resources: ExitStack
    retired: RetiredNumbers
    retry: Retry | None = None
    loss: RayLoss = field(default_factory=RayLoss)

    def begin(self) -> None:
        """Write to the run's folder that the run is going on, and delete stale files."""
        planned, lease = self.planned, self.lease
        # A date that the config sets is not recorded: it must not bind runs without one.
        if planned.config.run.date is None:
            record_run_date(planned.identity)
        lease.confirm()
        if self.retry is not None:
            self.verdict_file.retry = self.retry.number
            self.verdict_file.retry_of = self.retry.choice.names
        self.verdict_file.write(unfinished_verdict(make_verdict(planned)))
        description = json.dumps(
            describe_run(planned, self.verdict_file.started_at), indent=1
        ).encode()
        planned.folder.replace(RUN_JSON, description, lease.confirm)
        self._delete_stale_files()

    def work(self, execute: ExecuteChunks | None) -> StopReason | None:
        """Process the chunks that are left, then the retry; returns why it ended early, if so."""
        planned, plan = self.planned, self.planned.plan
        left = [shard for shard in plan.shards if not planned.is_published(shard)]
        committed = committed_chunks(planned.folder)
        errors = self._error_watch()
        # A retry does the rows again whose errors ended an earlier driver.
        if self.verdict_file.stopped_early and self.retry is None:
            count_committed_errors(errors, planned.folder, plan, left, committed)
        n_retry_chunks, n_retry_rows = self._size_of_retry()
        n_chunks = sum(plan.n_chunks_of(shard) for shard in left) + n_retry_chunks
        n_rows = sum(shard.n_rows for shard in left) + n_retry_rows
        with closing(Progress(n_chunks, n_rows, planned.config.model.replicas)) as progress:
            execute = execute or self.execute_on_ray(progress)
            schedule = Schedule(plan, left, committed, progress.skip)
            stopped = self._work_by_windows(execute, schedule, errors, progress, self._publish)
            if stopped is not None or self.retry is None:
                return stopped
            more_chunks, more_rows = self._size_of_retry()
            progress.skip(n_retry_chunks - more_chunks, n_retry_rows - more_rows)
            shards = shards_to_retry(planned, self.retry)
            retried = RetriedShards(planned, self.retry, shards)
            schedule = Schedule(retried, shards, committed, progress.skip)
            publish = partial(retried.publish, confirm=self.lease.confirm, epoch=self.lease.epoch)
            return self._work_by_windows(execute, schedule, self._error_watch(), progress, publish)

    def _error_watch(self) -> ErrorWatch:
        """Counts what is published; not the rows that the retry does again."""
        planned = self.planned
        published = [
            planned.manifests[shard.name]
            for shard in planned.plan.shards
            if planned.is_published(shard)
        ]
        errors = ErrorWatch(planned.config.run, published)
        _, n_rows = self._size_of_retry()
        errors.count(-n_rows, -n_rows)
        return errors

    def _size_of_retry(self) -> tuple[int, int]:
        """Chunks and rows of published shards that are left for the retry."""
        rows = rows_of_retry(self.planned, self.retry).values()
        return sum(-(-count // self.planned.plan.chunk_samples) for count in rows), sum(rows)

    def _work_by_windows(
        self,
        execute: ExecuteChunks,
        schedule: Schedule,
        errors: ErrorWatch,
        progress: Progress,
        publish: Callable[[Shard], Manifest],
    ) -> StopReason | None:
        while True:
            window = schedule.next_window(self.planned.config.run.window_chunks)
            self._publish_complete(schedule, publish)
            if not window:
                return None
            if reason := errors.stop_reason():
                return StopReason(ExitCode.INCOMPLETE, reason, too_many_errors=True)
            for chunk in self.resources.enter_context(closing(execute(window))):
                self.lease.check()
                progress.update(chunk)
                schedule.count_committed(chunk.shard)
                self._publish_complete(schedule, publish)
                errors.count(chunk.n_rows, chunk.n_error)
                if reason := errors.stop_reason():
                    return StopReason(ExitCode.INCOMPLETE, reason, too_many_errors=True)

    def execute_on_ray(self, progress: Progress) -> ExecuteChunks:
        """The graph on Ray, which starts only when there is work for it.

        It starts before the execution of the first window begins, and so is shut down after that
        has ended.
        """
        started: list[ExecuteChunks] = []

        def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            if not started:
                self.resources.enter_context(self._ray(progress))
                started.append(_graph(self.planned, self.lease.claim))
            return started[0](chunks)

        return execute

    def end(self, stopped: StopReason | None) -> Verdict:
        """Write and return the verdict; if the run is finished, first delete its leftover files.

        It is finished if the input is the one that was planned, and if what is published of it is
        whole and all that there is. That is checked only if all shards are published: it takes a
        while, and a process that received SIGTERM may have only seconds left.
        """
        planned, files = self.planned, ""
        problem = self._missing_chunks() or changed_input(planned)
        if problem is None:
            self._delete_stale_files()
            # Chunk files of other plans (changed shards, another chunk size), all attempts, and
            # what a retry staged that was killed, even if its verdict is gone.
            for leftover in (CHUNK_FILES, ATTEMPTS, STAGED):
                planned.folder.delete_folder(leftover, self.lease.confirm, own_files(leftover))
            check = check_published(planned)
            problem, files = check.problem, check.files
        if problem is None:
            verdict = replace(make_verdict(planned), files=files)
        else:
            stopped = stopped or problem
            verdict = unfinished_verdict(make_verdict(planned, stopped), stopped)
        verdict = self.verdict_file.completed(verdict)
        record_totals(planned.folder, verdict, self.lease.confirm)
        self.lease.confirm()
        verdict = self.verdict_file.write(verdict)
        self.loss.ended(verdict.exit_code)
        return verdict

    def end_at_loss(self) -> None:
        """Write the verdict and release the lease in another thread: the main one hangs in Ray."""
        stopped = StopReason(ExitCode.INCOMPLETE, self.loss.reason)
        # Then another driver has the run, or its files are damaged; this process ends anyway.
        with suppress(LeaseLost, RunError):
            record_stop(self.planned, self.lease, self.verdict_file, stopped)
        self.lease.release()

    @contextmanager
    def _ray(self, progress: Progress) -> Iterator[None]:
        from pipeline.driver.capacity_watch import reporting_capacity
        from pipeline.driver.ray_session import ray_session

        config = self.planned.config
        with (
            self.loss.guarding(),
            ray_session(config),
            self.loss.watching(self.end_at_loss),
            reporting_capacity(config, progress),
        ):
            yield

    def _publish_complete(self, schedule: Schedule, publish: Callable[[Shard], Manifest]) -> None:
        for shard in schedule.pop_complete():
            try:
                manifest = publish(shard)
            except FileNotFoundError as error:
                # Somebody deleted a chunk file after its commit; the next run does it again.
                log.warning("%s is not published: %s", shard.name, error)
            else:
                self.planned.manifests[shard.name] = replace(manifest, chunk_keys=[])

    def _publish(self, shard: Shard) -> Manifest:
        planned = self.planned
        return publish_shard(
            planned.folder,
            planned.plan,
            shard,
            kept_tables(planned.config.trace),
            confirm=self.lease.confirm,
            epoch=self.lease.epoch,
            republish=shard.name in planned.manifests,
        )

    def _delete_stale_files(self) -> None:
        """Delete files that do not belong to the plan; only then can the run be finished."""
        planned = self.planned
        for name in delete_stale_files(
            planned.folder, planned.manifests, planned.plan, self.lease.confirm, self.retired
        ):
            del planned.manifests[name]

    def _missing_chunks(self) -> StopReason | None:
        """The reason of a run that is incomplete though nothing stopped it: chunks were lost."""
        n_missing = sum(not self.planned.is_published(shard) for shard in self.planned.plan.shards)
        n_missing += len(shards_to_retry(self.planned, self.retry))
        if not n_missing:
            return None
        return StopReason(
            ExitCode.INCOMPLETE,
            f"chunks of {counted(n_missing, 'shard')} did not come back from the graph, or their "
            "files were deleted; run the same command again to finish the missing work",
        )


def _graph(planned: PlannedRun, claim: Claim) -> ExecuteChunks:
    from pipeline.graph import executor

    return executor(planned, claim)
