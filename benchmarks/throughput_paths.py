"""Send the same chunks through the bare core loop, the stages without Ray, and the full graph.

`benchmarks.throughput` starts a new process per measurement. The result says when each chunk was
written, and how much processor time all processes had used by then.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.throughput_cpu import TreeTime

PathName = Literal["core", "stages", "graph"]
PATHS: tuple[PathName, ...] = ("core", "stages", "graph")


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure. config: of the run, as a tree; actors: processes that hold a model."""

    path: PathName
    actors: int
    threads: int
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of a measurement; times are in seconds since its start.

    chunk_s: when each chunk was written. cpu_s: processor time of all processes by then. ready_s:
    when models were loaded (core, stages) or Ray had started (graph). stage_ms: processor time per
    sample of each stage, over all threads of the process (stages). process_ms: processor time per
    sample by name of the process, in the same period as `cpu_ms` (graph).
    """

    ready_s: float
    chunk_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    chunk_rows: int
    actors: int
    stage_ms: dict[str, float]
    process_ms: dict[str, float]

    @property
    def start_s(self) -> float:
        """When every actor had finished its first chunk."""
        return self.chunk_s[self.actors - 1]

    @property
    def rate(self) -> float:
        """Samples per second from `start_s` to the last chunk."""
        n = len(self.chunk_s) - self.actors
        return n * self.chunk_rows / (self.chunk_s[-1] - self.start_s)

    @property
    def cpu_ms(self) -> float:
        """Processor time per sample of all processes in the same period."""
        n = len(self.chunk_s) - self.actors
        return 1e3 * (self.cpu_s[-1] - self.cpu_s[self.actors - 1]) / (n * self.chunk_rows)


def measure(task: Task) -> Measurement:
    """Carry out the task in this process and its children."""
    from pipeline.config import make_config
    from pipeline.driver.plan_run import plan_run
    from pipeline.planning.identified_run import identify_run

    planned = plan_run(identify_run(make_config(task.config, [], "benchmark")))
    chunks = [chunk for shard in planned.plan.shards for chunk in planned.plan.chunks(shard)]
    begun = time.perf_counter()
    notes: list[tuple[float, float]] = []
    cpu_s = TreeTime()

    def note() -> None:
        notes.append((time.perf_counter() - begun, cpu_s()))
        if len(notes) == task.actors:
            cpu_s.begin()

    spent: Counter[str] = Counter()
    if task.path == "graph":
        ready_s = _graph(planned, begun, note)
    else:
        ready_s = _processes(task, chunks, begun, note, spent)
    times, cpu = zip(*notes, strict=True)
    stage_ms = {name: 1e3 * used_s / planned.plan.n_rows for name, used_s in spent.items()}
    n_rows = planned.plan.n_rows - task.actors * planned.config.run.chunk_samples
    process_ms = {name: 1e3 * used_s / n_rows for name, used_s in cpu_s.by_name().items()}
    return Measurement(
        ready_s, times, cpu, planned.config.run.chunk_samples, task.actors, stage_ms, process_ms
    )


def _graph(planned: Any, begun: float, note: Callable[[], None]) -> float:
    """Run as users do: plan, lease, graph and publishing."""
    from pipeline.driver.ray_session import ray_session
    from pipeline.driver.run import run
    from pipeline.graph import executor
    from pipeline.run_folder.lease_file import current_claim

    with ray_session(planned.config):
        ready_s = time.perf_counter() - begun

        def execute(chunks: Sequence[Any]) -> Generator[Any, None, None]:
            inner = executor(planned, current_claim(planned.folder))
            for committed in inner(chunks):
                note()
                yield committed

        verdict = run(planned, execute)
    if verdict.exit_code != 0 or verdict.n_error:
        raise RuntimeError(f"the run failed: {verdict}")
    return ready_s


def _processes(
    task: Task,
    chunks: Sequence[Any],
    begun: float,
    note: Callable[[], None],
    spent: Counter[str],
) -> float:
    """Run one process per actor; all take chunks from one queue."""
    context = multiprocessing.get_context("spawn")
    todo: Any = context.Queue()
    done: Any = context.Queue()
    for chunk in chunks:
        todo.put(asdict(chunk))
    for _ in range(task.actors):
        todo.put(None)
    workers = [context.Process(target=_work, args=(task, todo, done)) for _ in range(task.actors)]
    for worker in workers:
        worker.start()
    ready_s = collect(done.get, task.actors, len(chunks), begun, note, spent)
    for worker in workers:
        worker.join()
    return ready_s


_READY = None  # a worker's message when its model is loaded


def collect(
    take: Callable[[], dict[str, float] | None],
    n_workers: int,
    n_chunks: int,
    begun: float,
    note: Callable[[], None],
    spent: Counter[str],
) -> float:
    """Count the messages of all workers; return when the last worker was ready.

    take: waits for the next message: `_READY` once from each worker, and for each chunk the time
    that its stages spent. A fast worker may finish chunks before a slow one is ready.
    """
    ready_s = 0.0
    while n_workers or n_chunks:
        message = take()
        if message is _READY:
            n_workers -= 1
            ready_s = time.perf_counter() - begun
        else:
            n_chunks -= 1
            spent.update(message)
            note()
    return ready_s


def _work(task: Task, todo: Any, done: Any) -> None:
    import torch

    torch.set_num_threads(task.threads)
    step = (_core_step if task.path == "core" else _stages_step)(task)
    done.put(_READY)
    for chunk in iter(todo.get, None):
        done.put(step(chunk))


# Processes a chunk; returns the processor time of each stage.
Step = Callable[[dict[str, Any]], dict[str, float]]


def _core_step(task: Task) -> Step:
    """The bare loop: read Parquet rows, trace them with the core alone, write a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from omnitrace_core import OmniTracer
    from omnitrace_core.samples.parse import to_sample
    from pipeline.config import make_config

    config = make_config(task.config, [], "benchmark")
    tracer = OmniTracer(
        config.model,
        decode=config.decode,
        trace=config.trace,
        units=config.units,
        spans=config.spans,
        curation=config.curation,
        media=config.media,
    ).load()
    output = Path(config.output.path) / "bare"
    output.mkdir(parents=True, exist_ok=True)

    def step(chunk: dict[str, Any]) -> dict[str, float]:
        rows = _rows(pq.ParquetFile(chunk["uri"]), chunk["first_row"], chunk["n_rows"])
        samples = [to_sample(row) for row in rows]
        records = [_plain(result) for result in tracer.trace_each(samples)]
        pq.write_table(
            pa.Table.from_pylist(records), output / f"{chunk['key']}.parquet", compression="zstd"
        )
        return {}

    return step


def _rows(shard: Any, first_row: int, n_rows: int) -> list[dict[str, Any]]:
    starts = [0]
    for group in range(shard.num_row_groups):
        starts.append(starts[-1] + shard.metadata.row_group(group).num_rows)
    wanted = [
        group
        for group in range(shard.num_row_groups)
        if starts[group] < first_row + n_rows and starts[group + 1] > first_row
    ]
    table = shard.read_row_groups(wanted, use_threads=False)
    rows: list[dict[str, Any]] = table.slice(first_row - starts[wanted[0]], n_rows).to_pylist()
    return rows


def _plain(result: Any) -> dict[str, Any]:
    """The values of a result that the published tables hold, without their schema."""
    if isinstance(result, Exception):
        raise result
    spans = [
        {**asdict(span.span), "outcome": span.outcome, "confidence": span.confidence}
        | {"sources": [asdict(source) for source in span.sources]}
        for span in result.spans
    ]
    folds = [
        {"signal": name, "mass": fold.mass.reshape(-1), "peak": fold.peak.reshape(-1)}
        | {"markup": fold.markup, "uncovered": fold.uncovered, "generated": fold.generated}
        for name, fold in result.folds.items()
    ]
    return {
        "sample_id": result.sample.sample_id,
        "response": result.response,
        "token_ids": list(result.token_ids),
        "tokens": list(result.tokens),
        "logprobs": result.logprobs,
        "units": [asdict(unit) for unit in result.units],
        "spans": spans,
        "folds": folds,
    }


def _stages_step(task: Task) -> Step:
    """The stages of the graph one after another, without Ray."""
    import pyarrow as pa

    from omnitrace_core import __version__
    from pipeline.config import make_config
    from pipeline.driver.plan_run import plan_run
    from pipeline.graph import plan_row, replica_model
    from pipeline.planning.identified_run import identify_run
    from pipeline.planning.plan import Chunk
    from pipeline.run_folder.commit import commit_chunk
    from stages.chunk_speech import ChunkSpeech
    from stages.curate_spans import CurateOptions, CurateSpans
    from stages.decode_media import DecodeMedia
    from stages.read_samples import read_samples
    from stages.records.assemble import Provenance
    from stages.trace_decode import TraceDecode, TraceDecodeOptions

    config = make_config(task.config, [], "benchmark")
    planned = plan_run(identify_run(config))
    reading = config.reading_options(planned.rules)
    provenance = Provenance(planned.identity.fingerprint, __version__)
    chain: dict[str, Callable[[pa.Table], pa.Table]] = {
        "read_samples": read_samples,
        "DecodeMedia": DecodeMedia(reading),
        "ChunkSpeech": ChunkSpeech(reading),
        "TraceDecode": TraceDecode(
            TraceDecodeOptions(replica_model(config.model), config.decode, config.trace)
        ),
        "CurateSpans": CurateSpans(
            CurateOptions(config.spans, config.curation, config.trace, config.units), provenance
        ),
        "commit_chunk": partial(commit_chunk, folder=planned.folder),
    }

    def step(chunk: dict[str, Any]) -> dict[str, float]:
        table = plan_row(Chunk(**{**chunk, "duplicates": ()}))
        spent = {}
        for name, stage in chain.items():
            begun = time.process_time()
            table = stage(table)
            spent[name] = time.process_time() - begun
        return spent

    return step
