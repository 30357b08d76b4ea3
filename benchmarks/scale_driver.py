"""One driver of the scale benchmark, in a process of its own, so that its memory is its own.

`python -m benchmarks.scale_driver '{"what": "plan", ...}'` prints its courses as JSON lines.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

from benchmarks.scale_fake import FakeTraceDecode, do_chunk
from benchmarks.scale_measure import Course, Requests, counting_requests, stage
from pipeline.config import make_config
from pipeline.driver import run as run_module
from pipeline.driver.prepare import prepare
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk, CommittedChunk
from pipeline.run_folder import publish
from pipeline.run_folder.job import Job
from pipeline.run_folder.lease_file import current_claim

_LOOKS = 100  # at memory, over the chunks of a stage


@dataclass(frozen=True, slots=True)
class Order:
    """What a driver shall do.

    what: only plan, a run by worker processes, or a run by the graph. die_after: chunks, those of
    earlier drivers included, after which it is killed.
    """

    what: Literal["plan", "run", "graph"]
    config: dict[str, Any]
    workers: int = 1
    die_after: int | None = None


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    courses: list[Course] = []
    with counting_requests() as requests:
        with stage("plan", courses) as course, requests.labelled("plan"):
            job = prepare(identify_run(make_config(order.config, [], "benchmark")))
        course.look(job.plan.n_chunks)
        if order.what != "plan":
            _run(order, job, requests, courses)
    _tell(courses, requests)


def _run(order: Order, job: Job, requests: Requests, courses: list[Course]) -> None:
    """Finish the run; publishing is measured as a stage within it."""
    publishing = Course("publish")
    publishing.look(0)

    def publish_shard(*args: Any, **more: Any) -> Any:
        with publishing.timed(), requests.labelled("publish"):
            return publish.publish_shard(*args, **more)

    with stage("run", courses) as course, requests.labelled("run"):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        published = [shard for shard in job.plan.shards if job.is_published(shard)]
        before = sum(job.plan.n_chunks_of(shard) for shard in published)

        def noted(count: int) -> None:
            if count % max(job.plan.n_chunks // _LOOKS, 1) == 0:
                course.look(count)
            if order.die_after is not None and before + count >= order.die_after:
                publishing.look(count)
                course.wall_s = time.perf_counter() - begun
                course.cpu_s = time.process_time() - begun_cpu
                _tell([*courses, publishing], requests)
                os.kill(os.getpid(), signal.SIGKILL)

        with patch.object(run_module, "publish_shard", publish_shard):
            count = _by_graph(job, noted) if order.what == "graph" else _by_pool(order, job, noted)
    course.look(count)
    publishing.look(count)
    courses.append(publishing)


def _by_pool(order: Order, job: Job, noted: Any) -> int:
    """Worker processes in place of the graph; returns how many chunks they did."""
    count = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(order.workers) as pool:

        def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            nonlocal count
            # Whose the run is is not asked: it is one read per chunk, which the table adds.
            work = partial(do_chunk, folder=job.folder.root)
            for row in pool.imap_unordered(work, chunks, chunksize=8):
                yield CommittedChunk(**row)
                count += 1
                noted(count)

        run_module.run(job, execute)
    return count


def _by_graph(job: Job, noted: Any) -> int:
    """The real graph on a Ray of its own, with the fake tracer in its trace stage."""
    from pipeline import graph
    from pipeline.driver.ray_session import ray_session

    count = 0
    with ray_session(job.config), patch.object(graph, "TraceDecode", FakeTraceDecode):

        def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            nonlocal count
            inner = graph.executor(job, current_claim(job.folder))
            with closing(inner(chunks)) as coming:
                for committed in coming:
                    yield committed
                    count += 1
                    noted(count)

        run_module.run(job, execute)
    return count


def _tell(courses: Sequence[Course], requests: Requests) -> None:
    for course in courses:
        course.requests = dict(requests.counts.get(course.stage, {}))
        print(json.dumps(course.told()), flush=True)


if __name__ == "__main__":
    main()
