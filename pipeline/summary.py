"""What the commands print about a plan and a verdict."""

from __future__ import annotations

import yaml

from pipeline.config import RunConfig
from pipeline.manifest import Manifest
from pipeline.prepare import Job
from pipeline.verdict import Verdict


def config_text(config: RunConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip()


def plan_text(job: Job) -> str:
    """What the run will read, do and write."""
    plan, identity = job.plan, job.identity
    done = sum(job.is_published(shard) for shard in plan.shards)
    repeats = sum(len(shard.duplicates) for shard in plan.shards)
    gone = job.manifests.keys() - {shard.name for shard in plan.shards}
    lines = [
        f"run     {identity.run_id} of {identity.date} (fingerprint {identity.fingerprint})",
        f"reads   {plan.n_rows} samples in {len(plan.shards)} shards under {job.config.input.path}",
        f"model   {job.config.model.path}",
        f"does    {plan.n_chunks} chunks of up to {plan.chunk_samples} samples; "
        f"{done} of {len(plan.shards)} shards are published already",
        f"writes  {identity.folder.root}",
    ]
    if repeats:
        lines.append(f"note    {repeats} rows repeat an earlier sample_id and become error rows")
    if gone:
        lines.append(f"note    removes what was published for {len(gone)} shards that are gone")
    return "\n".join(lines)


def verdict_text(job: Job, verdict: Verdict) -> str:
    """How the run ended, its error rows by code, and the files it wrote."""
    lines = [
        f"run {verdict.run_id}: {verdict.reason}",
        f"{verdict.n_rows} samples: {verdict.n_ok} ok, {verdict.n_error} errors; "
        f"{verdict.n_spans} spans; {verdict.n_published} of {verdict.n_shards} shards published",
    ]
    lines += [f"  error {code}: {count}" for code, count in verdict.by_code.items()]
    lines += [f"  errors in stage {stage}: {count}" for stage, count in verdict.by_stage.items()]
    lines += [f"  {line}" for line in _files(job)]
    return "\n".join(lines)


def _files(job: Job) -> list[str]:
    final: list[Manifest] = [
        job.manifests[shard.name] for shard in job.plan.shards if job.is_published(shard)
    ]
    rows: dict[str, list[int]] = {}
    for manifest in final:
        for name, n_rows in manifest.files.items():
            rows.setdefault(name.partition("/")[0], []).append(n_rows)
    tables = [
        f"{job.folder.url(table)}/*.parquet  ({len(counts)} files, {sum(counts)} rows)"
        for table, counts in rows.items()
    ]
    return [*tables, job.folder.url("verdict.json")]
