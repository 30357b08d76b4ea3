"""Describe a run for run.json: its settings, its plan in numbers, and the versions in use."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from omnitrace_core import __version__
from pipeline.run_folder.planned_run import PlannedRun
from stages.arrow.table_schema import SCHEMA_VERSION

# Other versions of these may change the records.
_PACKAGES = ("ray", "pyarrow", "torch", "transformers", "spacy", "av", "decord")


def describe_run(planned: PlannedRun, started_at: str) -> dict[str, object]:
    """The content of run.json. started_at: when the run's first driver took the lease."""
    return {
        "run_id": planned.identity.run_id,
        "run_date": planned.identity.date.isoformat(),
        "started_at": started_at,
        "fingerprint": planned.identity.fingerprint,
        "schema_version": SCHEMA_VERSION,
        "plan": {
            "digest": planned.plan.digest,
            "n_shards": len(planned.plan.shards),
            "n_chunks": planned.plan.n_chunks,
            "n_rows": planned.plan.n_rows,
            "n_duplicate_ids": sum(len(shard.duplicates) for shard in planned.plan.shards),
        },
        "config": planned.resolved_config.model_dump(mode="json"),
        "media_rules": asdict(planned.rules),
        "versions": installed_versions(),
    }


def installed_versions() -> dict[str, str]:
    """Versions of Python, of omnitrace, and of the packages that affect the records."""
    versions = {"python": platform.python_version(), "omnitrace": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
