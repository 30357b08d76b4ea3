"""The retry that a command makes of a run, from its config and what the run's folder records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.planning.plan import Shard
from pipeline.retrying.choice import DECIDED_BY_INPUT, Retry, retry_choice
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import read_verdict


def next_retry(run: PlannedRun) -> Retry | None:
    """The retry that `run.retry` asks for; None for none.

    A retry of the same choice that the verdict calls unfinished is continued: it keeps its number.
    Any other is a new one, with a number above all earlier ones.

    Raises:
        RunError: verdict.json is not valid.
    """
    choice = retry_choice(run.config.run)
    if choice is None:
        return None
    verdict = read_verdict(run.folder) or {}
    last = int(verdict.get("retry") or 0)
    if last and not verdict.get("finished") and verdict.get("retry_of") == choice.names:
        return Retry(last, choice)
    published = (manifest.retry for manifest in run.manifests.values())
    return Retry(max([last, *published]) + 1, choice)


def retry_by_code(run: PlannedRun, retry: Retry | None, shard: Shard) -> dict[str, int]:
    """Rows of a shard that are left for the retry, by error code; none if it is not published."""
    if retry is None or not run.is_published(shard):
        return {}
    manifest = run.manifests[shard.name]
    return retry.left(manifest.retry, manifest.by_code)


def rows_of_retry(run: PlannedRun, retry: Retry | None) -> dict[str, int]:
    """Number of rows that are left for the retry, by the name of the published shard."""
    counts = {
        shard.name: sum(retry_by_code(run, retry, shard).values()) for shard in run.plan.shards
    }
    return {name: count for name, count in counts.items() if count}


def shards_to_retry(run: PlannedRun, retry: Retry | None) -> list[Shard]:
    """The published shards that have rows left for the retry."""
    return [shard for shard in run.plan.shards if retry_by_code(run, retry, shard)]


def chosen_rows(run: PlannedRun, retry: Retry) -> Counter[str]:
    """Rows of the published shards that are left for the retry, by error code."""
    return _total(retry_by_code(run, retry, shard) for shard in run.plan.shards)


def rows_left_out(run: PlannedRun, retry: Retry) -> Counter[str]:
    """Published error rows that a retry of all errors leaves out, by error code."""
    if retry.choice.codes is not None:
        return Counter()
    published = (run.manifests[item.name] for item in run.plan.shards if run.is_published(item))
    total = _total(manifest.by_code for manifest in published)
    return Counter({code: total[code] for code in DECIDED_BY_INPUT if total[code]})


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for by_code in counts:
        total.update(by_code)
    return total
