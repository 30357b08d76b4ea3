"""The Ray Data graph: read -> decode -> chunk speech -> trace -> curate -> commit.

One row is one chunk of work from the first stage to the last, and one block holds one row. So Ray
cannot split a chunk or merge two, whatever it does to blocks. The stages do not know which CPUs and
GPUs they run on; this module sets them, from the config.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.exceptions import RayError, RayTaskError

from omnitrace_core import __version__
from omnitrace_core.errors import LeaseLost, NodeFault, RunError
from omnitrace_core.options import ModelOptions
from pipeline.config import with_absolute_paths
from pipeline.counters import add_chunk_to_counters
from pipeline.node_tries import NodeTries
from pipeline.planning.plan import Chunk
from pipeline.run_folder.attempt_log import StoredAttemptLog
from pipeline.run_folder.commit import CommittedChunk, ExecuteChunks, commit_chunk
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.planned_run import PlannedRun
from stages.arrow.state_schema import CHUNK_PLAN
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.read_samples import read_samples
from stages.records.assemble import Provenance
from stages.trace_decode import TraceDecode, TraceDecodeOptions

_MIN_IO_TASKS = 2
_NODE_LABEL = "ray.io/node-id"  # Ray gives it to every node
Rows = Generator[dict[str, Any], None, None]


def build_graph(
    chunks: Sequence[Chunk], planned: PlannedRun, claim: Claim, tries: NodeTries
) -> Dataset:
    """The Ray Data graph over a window of chunks; each row of its result is a committed chunk.

    Longer than other functions on purpose: the whole chain of stages can be read on one page.

    claim: of the driver; workers check it before they begin a chunk and before they commit it.
    tries: of this driver; machines that had faults are avoided.
    """
    config = with_absolute_paths(planned.resolved_config)
    resources = config.ray
    elsewhere = away_from(tries.nodes)
    reading = config.reading_options(planned.rules)

    # One block per chunk. read_parquet would put small shards into one block, which keeps one GPU
    # busy. from_arrow would run a task of a whole CPU for each block, and wait for free CPUs.
    rows = ray.data.from_blocks([plan_row(chunk) for chunk in chunks])

    # 1:1. Mostly waits for storage. One task per decoding actor: without a bound, Ray would start a
    # process for each of the first chunks, and most of them would have nothing to do later.
    samples = rows.map_batches(
        read_samples,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.io_cpus,
        compute=_tasks(resources.decode_actors, len(chunks)),
        **elsewhere,
    )

    # 1:1. Actors, because each keeps a child process that decodes; actor and child take turns on
    # one core. Ray gives the chunks of a lost actor to another one, without limit: a stage that a
    # sample can kill counts its own attempts.
    attempts = StoredAttemptLog(planned.folder, claim, tries.n_restarts)
    decoded = samples.map_batches(
        DecodeMedia,
        fn_constructor_args=(reading, attempts),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.decode_cpus,
        compute=ActorPoolStrategy(size=resources.decode_actors),
        **elsewhere,
    )

    # 1:1. Actors, because the speech engine and the sentence pipeline are loaded once. GPUs only if
    # the speech model runs on them.
    ready = decoded.map_batches(
        ChunkSpeech,
        fn_constructor_args=(reading, attempts, resources.audio_timeout_s),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.audio_cpus,
        num_gpus=resources.audio_gpus,
        compute=ActorPoolStrategy(size=resources.audio_actors),
        **elsewhere,
    )

    # 1:1. One model per replica, which reserves whole GPUs, so that Ray never puts two models on
    # one. A pool of fixed size, because an elastic one may stay small. Two chunks in two threads:
    # one uses the device while the inputs of the other are made.
    traced = ready.map_batches(
        TraceDecode,
        fn_constructor_args=(
            TraceDecodeOptions(replica_model(config.model), config.decode, config.trace),
            attempts,
            resources.trace_timeout_s,
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.trace_cpus,
        num_gpus=config.model.gpus_per_replica,
        compute=ActorPoolStrategy(
            size=config.model.replicas,
            max_tasks_in_flight_per_actor=2,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        **elsewhere,
    )

    # 1:1. Actors, because the part-of-speech pipeline is loaded once.
    curated = traced.map_batches(
        CurateSpans,
        fn_constructor_args=(
            CurateOptions(config.spans, config.curation, config.trace, config.units),
            Provenance(planned.identity.fingerprint, __version__),
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.curate_cpus,
        compute=ActorPoolStrategy(size=resources.curate_actors),
        **elsewhere,
    )

    # 1:1. The commit: one atomic write per chunk, after which the chunk is final. A retried task
    # keeps the file that exists. Metrics are counted here, so that only committed chunks count.
    return curated.map_batches(
        partial(
            commit_chunk,
            folder=planned.folder,
            claim=claim,
            on_commit=partial(add_chunk_to_counters, run_id=planned.run_id),
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.io_cpus,
        compute=_tasks(config.model.replicas, len(chunks)),
        **elsewhere,
    )


def _tasks(n_actors: int, n_chunks: int) -> TaskPoolStrategy:
    """One task at a time per actor of the neighbouring stage, and at least two."""
    # Ray warns about more tasks than chunks.
    return TaskPoolStrategy(min(max(_MIN_IO_TASKS, n_actors), n_chunks))


def replica_model(model: ModelOptions) -> ModelOptions:
    """The model options of a replica; one that owns no GPU must not use one that it finds."""
    return model if model.gpus_per_replica else model.model_copy(update={"device": "cpu"})


def plan_row(chunk: Chunk) -> pa.Table:
    """A planned chunk as the one-row table that `read_samples` takes (CHUNK_PLAN)."""
    row = {
        "chunk_key": chunk.key,
        "shard": chunk.shard,
        "uri": chunk.uri,
        "first_row": chunk.first_row,
        "n_rows": chunk.n_rows,
        "rows": chunk.rows,
        "identity": chunk.identity,
        "duplicates": [asdict(item) for item in chunk.duplicates],
    }
    return pa.Table.from_pylist([row], schema=CHUNK_PLAN)


def away_from(nodes: Sequence[str]) -> dict[str, Any]:
    """Options of Ray that keep tasks and actors off these nodes as long as others have room."""
    if not nodes:
        return {}
    if not any(node["Alive"] and node["NodeID"] not in nodes for node in ray.nodes()):
        return {}
    listed = ", ".join(nodes)
    return {
        "label_selector": {_NODE_LABEL: f"!in({listed})"},
        "fallback_strategy": [{"label_selector": {_NODE_LABEL: f"in({listed})"}}],
    }


def executor(planned: PlannedRun, claim: Claim, tries: NodeTries | None = None) -> ExecuteChunks:
    """A function that runs the graph over a window of chunks and yields each committed one.

    It starts the graph again after a node fault. It raises LeaseLost if a worker found that another
    driver holds the lease, and RunError if a stage failed, or at the third node fault.

    tries: by default, those of production.
    """
    tries = tries or NodeTries()

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        left = {chunk.key: chunk for chunk in chunks}
        while True:
            try:
                graph = _run_graph(list(left.values()), planned, claim, tries)
                with closing(graph) as committed:
                    for chunk in committed:
                        del left[chunk.chunk_key]
                        tries.committed(chunk.chunk_key)
                        yield chunk
                return
            except NodeFault as fault:
                tries.failed(fault)

    return execute


def _run_graph(
    chunks: Sequence[Chunk], planned: PlannedRun, claim: Claim, tries: NodeTries
) -> Generator[CommittedChunk, None, None]:
    """Run the graph once. Raises: LeaseLost, NodeFault, RunError."""
    dataset = build_graph(chunks, planned, claim, tries)
    try:
        # Closed explicitly, because a dataset without references keeps running for a while.
        with closing(cast(Rows, iter(dataset.iter_rows()))) as rows:
            for row in rows:
                yield CommittedChunk(**row)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, LeaseLost):
            raise LeaseLost(_first_line(cause)) from error
        if isinstance(cause, NodeFault):
            raise _without_advice(cause) from error
        raise RunError(f"a stage failed: {root_cause(error)}") from error


def root_cause(error: RayError) -> str:
    """The line of Ray's report that names the error inside the stage."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {_first_line(error.cause)}"
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    """The message of an error, without the advice that Ray Data appends."""
    return next(iter(str(error).strip().splitlines()), "")


def _without_advice(fault: NodeFault) -> NodeFault:
    """A node fault as the stage raised it."""
    plain = NodeFault(_first_line(fault))
    plain.node, plain.chunk = fault.node, fault.chunk
    return plain
