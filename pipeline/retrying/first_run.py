"""Say it when `run.retry` is set for a run that has published nothing that could be retried."""

from __future__ import annotations

from pipeline.retrying.choice import retry_choice
from pipeline.run_folder.planned_run import PlannedRun

_MAX_NAMED = 5


def retry_of_nothing(planned: PlannedRun) -> str:
    """A warning that this is not the run whose errors are to be done again; empty if it may be."""
    if retry_choice(planned.config.run) is None:
        return ""
    if any(planned.is_published(shard) for shard in planned.plan.shards):
        return ""
    output, run_id = planned.identity.output, planned.run_id
    others = [name.removesuffix(".json") for name in output.names("_runs", suffix=".json")]
    others = [name for name in others if name != run_id]
    nothing = (
        f"run.retry={_shown(planned)}: run {run_id} has published nothing with these settings and "
        "this input, so there are no errors to do again, and it traces all samples"
    )
    if not others:
        return nothing
    named = ", ".join(others[:_MAX_NAMED]) + ", ..." * (len(others) > _MAX_NAMED)
    return (
        f"{nothing}. If you mean the errors of an earlier run ({output.root} has {named}), then a "
        "setting, the model or the input's location differs from then: give the same again. Under "
        "one run.id, runs share a folder, and other settings do all samples again there"
    )


def _shown(planned: PlannedRun) -> str:
    retry = planned.config.run.retry
    return retry if isinstance(retry, str) else f"[{','.join(retry)}]"
