"""Curate the shards of a run again in several worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

from omnitrace_core.errors import RunError
from pipeline.planning.plan import Shard
from pipeline.recuration.plan import Recuration
from pipeline.recuration.shard import OnChunkDone, recurate_shard
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.manifests import Manifest

_POLL_S = 0.2


def recurate_in_processes(
    recuration: Recuration,
    lease: Lease,
    shards: Sequence[Shard],
    workers: int,
    on_chunk_done: OnChunkDone,
) -> None:
    """Curate and publish shards, one per worker process at a time; adds their manifests.

    Raises:
        RunError: a worker process died, or a shard cannot be read back.
        LeaseLost: another process took the folder over.
    """
    # One core per process: threads of the maths libraries would compete for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Spawned, not forked: the threads of Arrow and of the tagger do not survive a fork.
    context = multiprocessing.get_context("spawn")
    chunks_done, stop = context.SimpleQueue(), context.Event()
    task = _Task(recuration, chunks_done, stop, lease.claim)
    with ProcessPoolExecutor(workers, context, _begin_worker, (task,)) as pool:
        running = {pool.submit(_recurate_in_worker, shard) for shard in shards}
        try:
            while running:
                done, running = wait(running, _POLL_S, FIRST_COMPLETED)
                _forward(chunks_done, on_chunk_done)
                lease.check()
                for manifest in (future.result() for future in done):
                    recuration.manifests[manifest.shard] = manifest
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, perhaps for lack of memory; run the same command "
                "again with fewer --workers to finish the missing work"
            ) from error
        finally:
            stop.set()
            for future in running:
                future.cancel()
            # A worker may be blocked because the queue is full.
            _forward(chunks_done, on_chunk_done)


def _forward(chunks_done: SimpleQueue[CommittedChunk], on_chunk_done: OnChunkDone) -> None:
    while not chunks_done.empty():
        on_chunk_done(chunks_done.get())


class _Stopped(Exception):
    """The driver stopped this worker in the middle of a shard."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What a worker process receives at its start. claim: of the driver that it works for."""

    recuration: Recuration
    chunks_done: SimpleQueue[CommittedChunk]
    stop: Event
    claim: Claim


# In a worker process: set once, by `_begin_worker`.
_task: _Task | None = None


def _begin_worker(task: _Task) -> None:
    """Keep the task, and ignore Ctrl-C: the driver receives it as well, and sets `stop`."""
    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _task = task


def _recurate_in_worker(shard: Shard) -> Manifest:
    assert _task is not None
    task = _task

    def on_chunk_done(chunk: CommittedChunk) -> None:
        if task.stop.is_set():
            raise _Stopped
        task.chunks_done.put(chunk)

    return recurate_shard(task.recuration, shard, on_chunk_done, task.claim)
