"""The last check of a run: what the plan published is there, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.plurals import counted
from pipeline.run_folder.checks.damaged_shards import only_whole
from pipeline.run_folder.manifests import manifest_name, read_manifests
from pipeline.run_folder.published_files import PublishedFiles, list_published, number_of_file
from pipeline.run_folder.verdict import ExitCode, RunState, StopReason

_SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class FinalCheck:
    """problem: why the run is not whole, None if it is. files: digest of its published files."""

    problem: StopReason | None
    files: str


def check_published(run: RunState) -> FinalCheck:
    """Compare what lies in the run's folder with what its driver published.

    Each shard needs a manifest of its present key under its number, whose files are all there, as
    long as they were written, and the tables must hold no other file. Manifests that were removed,
    and files that others changed or added, are not put right here: the next run does their shards
    again, or deletes them.

    `run.manifests` become those of the folder. Costs a read of each manifest, a listing of them
    and of each table, and a read of the footers of files that an older version wrote.
    """
    manifests = read_manifests(run.folder, with_chunks=False)
    found = list_published(run.folder)
    run.manifests.clear()
    run.manifests.update(only_whole(run.folder, manifests, found.tables))
    return FinalCheck(_problem(run, found), found.digest)


def _problem(run: RunState, found: PublishedFiles) -> StopReason | None:
    shards = run.plan.shards
    lost = [
        shard.name
        for shard in shards
        if not run.is_published(shard) or run.manifests[shard.name].number != shard.number
    ]
    if lost:
        return StopReason(
            ExitCode.INCOMPLETE,
            f"published files or manifests of {counted(len(lost), 'shard')} ({_first(lost)}) were "
            "removed, changed or added while the run worked; the same command does them again",
        )
    ours = {name for shard in shards for name in run.manifests[shard.name].files}
    ours |= {manifest_name(shard.number) for shard in shards}
    strange = (found.tables.keys() | found.manifests.keys()) - ours
    if foreign := {name for name in strange if number_of_file(name) is None}:
        return StopReason(
            ExitCode.INCOMPLETE,
            f"{counted(len(foreign), 'file')} that no run writes lie in {run.folder.root} "
            f"({_first(foreign)}): whoever reads a whole folder gets their rows, too. They are not "
            "deleted; move them elsewhere and run the same command again",
        )
    if strange:
        return StopReason(
            ExitCode.INCOMPLETE,
            f"{counted(len(strange), 'file')} that this run did not publish appeared in its folder "
            f"({_first(strange)}); the same command deletes them",
        )
    return None


def _first(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
