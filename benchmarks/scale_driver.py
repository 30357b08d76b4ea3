"""One driver of the scale benchmark, in a separate process, so that its memory can be measured.

`python -m benchmarks.scale_driver '{"what": "plan", ...}'` prints a JSON line per stage.
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
from benchmarks.scale_measure import Requests, StageCost, counting_requests, stage
from pipeline.config import make_config
from pipeline.driver import run as run_module
from pipeline.driver import steps
from pipeline.driver.plan_run import plan_run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder import publish
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease_file import current_claim
from pipeline.run_folder.planned_run import PlannedRun

_MEMORY_SAMPLES = 100  # over the chunks of a stage


@dataclass(frozen=True, slots=True)
class Order:
    """What the driver does.

    what: only plan, run by worker processes, or run by the graph. die_after: the driver kills
    itself after so many chunks, including those of earlier drivers.
    """

    what: Literal["plan", "run", "graph"]
    config: dict[str, Any]
    workers: int = 1
    die_after: int | None = None


def main() -> None:
    """Carry out the order in the first argument."""
    order = Order(**json.loads(sys.argv[1]))
    costs: list[StageCost] = []
    with counting_requests() as requests:
        with stage("plan", costs) as cost, requests.labelled("plan"):
            planned = plan_run(identify_run(make_config(order.config, [], "benchmark")))
        cost.record_memory(planned.plan.n_chunks)
        if order.what != "plan":
            _run(order, planned, requests, costs)
    _print_costs(costs, requests)


def _run(order: Order, planned: PlannedRun, requests: Requests, costs: list[StageCost]) -> None:
    """Finish the run; measure publishing as a separate stage within it."""
    publishing = StageCost("publish")
    publishing.record_memory(0)

    def publish_shard(*args: Any, **more: Any) -> Any:
        with publishing.timed(), requests.labelled("publish"):
            return publish.publish_shard(*args, **more)

    with stage("run", costs) as cost, requests.labelled("run"):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        published = [shard for shard in planned.plan.shards if planned.is_published(shard)]
        before = sum(planned.plan.n_chunks_of(shard) for shard in published)

        def on_commit(count: int) -> None:
            if count % max(planned.plan.n_chunks // _MEMORY_SAMPLES, 1) == 0:
                cost.record_memory(count)
            if order.die_after is not None and before + count >= order.die_after:
                publishing.record_memory(count)
                cost.wall_s = time.perf_counter() - begun
                cost.cpu_s = time.process_time() - begun_cpu
                _print_costs([*costs, publishing], requests)
                os.kill(os.getpid(), signal.SIGKILL)

        with patch.object(steps, "publish_shard", publish_shard):
            count = (
                _by_graph(planned, on_commit)
                if order.what == "graph"
                else _by_pool(order, planned, on_commit)
            )
    cost.record_memory(count)
    publishing.record_memory(count)
    costs.append(publishing)


def _by_pool(order: Order, planned: PlannedRun, on_commit: Any) -> int:
    """Run with worker processes instead of the graph; return how many chunks they did."""
    count = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(order.workers) as pool:

        def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            nonlocal count
            # The lease is not read here. That is one read per chunk, which the table adds.
            work = partial(do_chunk, folder=planned.folder.root)
            for row in pool.imap_unordered(work, chunks, chunksize=8):
                yield CommittedChunk(**row)
                count += 1
                on_commit(count)

        run_module.run(planned, execute)
    return count


def _by_graph(planned: PlannedRun, on_commit: Any) -> int:
    """Run the real graph on a local Ray, with the fake tracer in its trace stage."""
    from pipeline import graph
    from pipeline.driver.ray_session import ray_session

    count = 0
    with ray_session(planned.config), patch.object(graph, "TraceDecode", FakeTraceDecode):

        def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            nonlocal count
            inner = graph.executor(planned, current_claim(planned.folder))
            with closing(inner(chunks)) as committed_chunks:
                for committed in committed_chunks:
                    yield committed
                    count += 1
                    on_commit(count)

        run_module.run(planned, execute)
    return count


def _print_costs(costs: Sequence[StageCost], requests: Requests) -> None:
    for cost in costs:
        cost.requests = dict(requests.counts.get(cost.stage, {}))
        print(json.dumps(cost.as_json()), flush=True)


if __name__ == "__main__":
    main()
