"""The whole chain: chunks -> read -> decode -> chunk audio -> trace -> curate -> commit.

One row is one chunk of work from end to end, and one block holds one row: nothing Ray does to
blocks can split a chunk or merge two. Stages do not know what they run on; this page does.
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
from omnitrace_core.errors import LeaseLost, RunError
from omnitrace_core.options import ModelOptions
from pipeline.config import with_absolute_paths
from pipeline.counters import count_chunk
from pipeline.planning.plan import Chunk, CommittedChunk, ExecuteChunks
from pipeline.run_folder.attempts import StoredAttempts
from pipeline.run_folder.commit import commit_chunk
from pipeline.run_folder.job import Job
from pipeline.run_folder.lease_file import Claim
from stages.arrow.schema import CHUNK_PLAN
from stages.chunk_audio import ChunkAudio
from stages.curate_spans import CurateSpans
from stages.decode_media import DecodeMedia
from stages.read_samples import read_samples
from stages.records.assemble import Provenance
from stages.trace_decode import TraceDecode

_FEWEST_IO_TASKS = 2
Rows = Generator[dict[str, Any], None, None]


def build(chunks: Sequence[Chunk], job: Job, claim: Claim) -> Dataset:
    """The Ray Data chain for a window of chunks; every row of its result is a committed chunk.

    claim: of the driver, which workers check before they begin a chunk and before they commit it.
    """
    config = with_absolute_paths(job.config)
    given = config.ray
    reading = config.reading_options(job.rules)

    # One block per chunk. read_parquet would pack small shards into one block: one busy GPU.
    # from_arrow would ask a task of a whole CPU about each: a wait, where CPUs are yet to come.
    planned = ray.data.from_blocks([plan_row(chunk) for chunk in chunks])

    # 1:1. Waits for storage, computes little. One ahead for each decoder: without a bound, Ray
    # would start a process for each of the first chunks, and then have no use for most of them.
    samples = planned.map_batches(
        read_samples,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.io_cpus,
        compute=_tasks(given.decode_actors, len(chunks)),
    )

    # 1:1. Actors, because each keeps a child process that decodes; one core, they take turns. The
    # chunks of a lost actor go to another, however often: stages count, where one can be deadly.
    attempts = StoredAttempts(job.folder, claim)
    decoded = samples.map_batches(
        DecodeMedia,
        fn_constructor_args=(reading, attempts),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.decode_cpus,
        compute=ActorPoolStrategy(size=given.decode_actors),
    )

    # 1:1. Actors, because the speech engine and the sentence pipeline are loaded once. A GPU only
    # for a speech model that runs on one.
    ready = decoded.map_batches(
        ChunkAudio,
        fn_constructor_args=(reading, attempts, given.audio_timeout_s),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.audio_cpus,
        num_gpus=given.audio_gpus,
        compute=ActorPoolStrategy(size=given.audio_actors),
    )

    # 1:1. One model per replica: with whole GPUs, Ray never packs two models on one. A fixed pool,
    # since an elastic one may stay small. Two chunks in two threads: one has the device, while the
    # inputs of the other are made.
    traced = ready.map_batches(
        TraceDecode,
        fn_constructor_args=(
            replica_model(config.model),
            config.decode,
            config.trace,
            attempts,
            given.trace_timeout_s,
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.trace_cpus,
        num_gpus=config.model.gpus_per_replica,
        compute=ActorPoolStrategy(
            size=config.model.replicas,
            max_tasks_in_flight_per_actor=2,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
    )

    # 1:1. Actors, because the part-of-speech pipeline is loaded once.
    curated = traced.map_batches(
        CurateSpans,
        fn_constructor_args=(
            config.spans,
            config.curation,
            config.trace,
            config.units,
            Provenance(job.identity.fingerprint, __version__),
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.curate_cpus,
        compute=ActorPoolStrategy(size=given.curate_actors),
    )

    # 1:1. The commit: one atomic write per chunk; a retried task leaves the file that is there.
    # Metrics are counted here, where a chunk becomes final.
    return curated.map_batches(
        partial(
            commit_chunk,
            folder=job.folder,
            claim=claim,
            count=partial(count_chunk, run_id=job.run_id),
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=given.io_cpus,
        compute=_tasks(config.model.replicas, len(chunks)),
    )


def _tasks(n_actors: int, n_chunks: int) -> TaskPoolStrategy:
    """As many tasks at a time as there are actors to feed or to serve, and a few at least."""
    # More than there are chunks would be a warning of Ray's.
    return TaskPoolStrategy(min(max(_FEWEST_IO_TASKS, n_actors), n_chunks))


def replica_model(model: ModelOptions) -> ModelOptions:
    """What a replica loads: one that owns no GPU must not find one by itself."""
    return model if model.gpus_per_replica else model.model_copy(update={"device": "cpu"})


def plan_row(chunk: Chunk) -> pa.Table:
    """A planned chunk as the one-row table that the read stage takes."""
    row = {
        "chunk_key": chunk.key,
        "shard": chunk.shard,
        "uri": chunk.uri,
        "first_row": chunk.first_row,
        "n_rows": chunk.n_rows,
        "identity": chunk.identity,
        "duplicates": [asdict(item) for item in chunk.duplicates],
    }
    return pa.Table.from_pylist([row], schema=CHUNK_PLAN)


def executor(job: Job, claim: Claim) -> ExecuteChunks:
    """A function that runs the graph over a window of chunks and yields each as it is committed."""

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        dataset = build(chunks, job, claim)
        try:
            # Closed when we are: a dataset that is only forgotten goes on for a while.
            with closing(cast(Rows, iter(dataset.iter_rows()))) as rows:
                for row in rows:
                    yield CommittedChunk(**row)
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, LeaseLost):
                raise LeaseLost(_first_line(error.cause)) from error
            raise RunError(f"a stage failed: {root_cause(error)}") from error

    return execute


def root_cause(error: RayError) -> str:
    """The one line of Ray's report that says what went wrong inside the stage."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {_first_line(error.cause)}"
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    """What was raised, without the advice that Ray Data adds to it."""
    return next(iter(str(error).strip().splitlines()), "")
