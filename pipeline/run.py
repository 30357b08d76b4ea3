"""A run from plan to verdict: do what is left of the plan, publish each shard as it completes."""

from __future__ import annotations

import datetime
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import islice

from omnitrace_core import __version__
from pipeline.commit import PARTS, Execute
from pipeline.identity import remember
from pipeline.plan import Chunk, Shard
from pipeline.prepare import Job, check_writable
from pipeline.progress import Progress
from pipeline.publish import publish_shard, retire
from pipeline.verdict import (
    Exit,
    Stop,
    Verdict,
    exit_code_of,
    is_finished,
    judge,
    write_verdict,
)
from stages.assemble import Provenance
from stages.record_columns import kept_tables
from stages.schema import SCHEMA_VERSION

_VERSIONS = ("omnitrace", "ray", "pyarrow", "torch", "transformers", "spacy", "decord")


def run(job: Job, execute: Execute | None = None) -> Verdict:
    """Finish the job: a finished one is left alone, an interrupted one is continued.

    execute: does the work of a window of chunks; by default the graph on Ray.

    Raises:
        ConfigError: the output cannot be written, or Ray cannot be had.
        RunError: a stage broke, or rows were lost; what was committed stays and is not redone.
    """
    if is_finished(job):
        return judge(job)
    _begin(job)
    stopped = None
    try:
        _work(job, execute)
    except KeyboardInterrupt:
        stopped = Stop(Exit.INCOMPLETE, "interrupted; the same command continues the run")
    except Exception as error:
        write_verdict(job.folder, judge(job, Stop(exit_code_of(error), str(error))))
        raise
    verdict = judge(job, stopped or _lost(job))
    if verdict.finished:
        # Parts of other plans: shards that changed, chunks of another size.
        job.folder.delete_folder(PARTS)
    write_verdict(job.folder, verdict)
    return verdict


def _begin(job: Job) -> None:
    """From here on the run's folder says that it is going on, and holds nothing stale."""
    check_writable(job.identity.output)
    # A date given in the config needs no remembering, and must not bind runs without one.
    if job.config.run.date is None:
        remember(job.identity)
    write_verdict(job.folder, judge(job))
    job.folder.write("run.json", json.dumps(describe(job), indent=1).encode())
    for name in retire(job.folder, job.manifests, job.plan):
        del job.manifests[name]


def _work(job: Job, execute: Execute | None) -> None:
    parts = set(job.folder.names(PARTS, suffix=".parquet"))
    unfinished = {shard.name: shard for shard in job.plan.shards if not job.is_published(shard)}
    left: Counter[str] = Counter()
    n_rows = 0
    for chunk in _pending(job, unfinished.values(), parts):
        left[chunk.shard] += 1
        n_rows += chunk.n_rows
    for shard in unfinished.values():
        if left[shard.name] == 0:
            _publish(job, shard)
    if not left.total():
        return
    pending = _pending(job, unfinished.values(), parts)
    ray = _ray(job) if execute is None else nullcontext()
    with closing(Progress(left.total(), n_rows)) as progress, ray:
        execute = execute or _graph(job)
        while window := list(islice(pending, job.config.run.window_chunks)):
            for committed in execute(window):
                progress.update(committed)
                left[committed.shard] -= 1
                if left[committed.shard] == 0:
                    _publish(job, unfinished[committed.shard])


def _pending(job: Job, shards: Iterable[Shard], parts: set[str]) -> Iterator[Chunk]:
    """Chunks that have no part yet, in the order of the plan."""
    for shard in shards:
        for chunk in job.plan.chunks(shard):
            if f"{chunk.key}.parquet" not in parts:
                yield chunk


def _publish(job: Job, shard: Shard) -> None:
    tables = kept_tables(job.config.trace)
    job.manifests[shard.name] = publish_shard(job.folder, job.plan, shard, tables)


def _lost(job: Job) -> Stop | None:
    """Chunks that went into the graph and did not come out are never passed over in silence."""
    missing = sum(not job.is_published(shard) for shard in job.plan.shards)
    if not missing:
        return None
    return Stop(
        Exit.INCOMPLETE,
        f"{missing} shards are not complete: chunks did not come back from the graph; "
        "the same command does what is missing",
    )


def _graph(job: Job) -> Execute:
    from pipeline.graph import executor

    provenance = Provenance(job.identity.fingerprint, __version__)
    return executor(job.config, job.rules, provenance, job.folder)


def _ray(job: Job) -> AbstractContextManager[None]:
    from pipeline.ray_session import ray_session

    return ray_session(job.config)


def describe(job: Job) -> dict[str, object]:
    """What run.json says: the resolved settings, the versions at work, and the plan in numbers."""
    return {
        "run_id": job.identity.run_id,
        "run_date": job.identity.date.isoformat(),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": job.identity.fingerprint,
        "schema_version": SCHEMA_VERSION,
        "plan": {
            "digest": job.plan.digest,
            "n_shards": len(job.plan.shards),
            "n_chunks": job.plan.n_chunks,
            "n_rows": job.plan.n_rows,
            "n_duplicate_ids": sum(len(shard.duplicates) for shard in job.plan.shards),
        },
        "config": job.config.model_dump(mode="json"),
        "media_rules": asdict(job.rules),
        "versions": {"python": platform.python_version(), **dict(installed_versions())},
    }


def installed_versions() -> Iterator[tuple[str, str]]:
    """Versions of what shapes the records."""
    for name in _VERSIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
