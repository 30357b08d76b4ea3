"""Describe a plan and a verdict for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import yaml

from omnitrace_core.addresses import shown_address
from omnitrace_core.options import MediaOptions
from omnitrace_core.printable import printable_message
from pipeline.commands.terminal import Block, Table
from pipeline.config import RunConfig
from pipeline.planning.input_damage import ShardDamage
from pipeline.planning.media_stores import store_warnings
from pipeline.plurals import counted
from pipeline.recuration.plan import Recuration
from pipeline.retrying.first_run import retry_of_nothing
from pipeline.retrying.state import Retry, chosen_rows, next_retry, rows_left_out
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import Verdict
from pipeline.storage.folder import Folder
from stages.records.table_columns import kept_tables
from stages.settings_change import SettingsChange

_MAX_SHOWN = 20  # damaged row groups
_LIMITS = (
    "; where a limit of the reader is named, the file may be intact: write it with smaller values, "
    "in another codec or without encryption"
)


def config_text(config: RunConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip()


def nothing_to_do_text(config: RunConfig) -> str:
    """What to say of a finished run."""
    text = "this run is finished: nothing to do"
    return text if config.run.retry == "none" else f"{text}; run.retry chooses none of its rows"


def plan_text(planned: PlannedRun, left_out: Sequence[str] = ()) -> str:
    """What the run will read, do and write. left_out: of the input, as its listing says it."""
    plan, identity = planned.plan, planned.identity
    done = sum(planned.is_published(shard) for shard in plan.shards)
    repeats = sum(len(shard.duplicates) for shard in plan.shards)
    removed = planned.manifests.keys() - {shard.name for shard in plan.shards}
    lines = [
        f"run     {identity.run_id} of {identity.date} (fingerprint {identity.fingerprint})",
        f"reads   {counted(plan.n_rows, 'sample')} in {counted(len(plan.shards), 'shard')} "
        f"under {planned.config.input.path}",
        f"media   {_media_places(planned.resolved_config.media)}",
        f"model   {planned.config.model.path}",
        f"does    {counted(plan.n_chunks, 'chunk')} of up to "
        f"{counted(plan.chunk_samples, 'sample')}; {_published(done, len(plan.shards))} already",
        f"writes  {identity.folder.root}",
    ]
    lines += [f"note    does not read {kind}" for kind in left_out]
    lines += [f"warning {text}" for text in store_warnings(planned.config, planned.media_roots)]
    if repeats:
        lines.append(f"note    error rows for {counted(repeats, 'repeat')} of an earlier sample_id")
    unread = [item.group for shard in plan.shards for item in shard.unread_ids]
    if unread:
        n_rows = sum(group.n_rows for group in unread)
        lines.append(
            f"note    error rows for {counted(n_rows, 'sample')} in "
            f"{counted(len(unread), 'row group')} whose sample_ids cannot be decoded; repeats of "
            "these ids are not found"
        )
    if removed:
        lines.append(
            f"note    deletes the published files of {counted(len(removed), 'shard')} "
            "that left the input"
        )
    if retry := next_retry(planned):
        lines[4:4] = _retry_lines(planned, retry)
    if warning := retry_of_nothing(planned):
        lines.append(f"warning {warning}")
    replaced = sum(manifest.replacement is not None for manifest in planned.manifests.values())
    if replaced:
        lines.append(
            f"note    first replaces the files of {counted(replaced, 'shard')}, as a driver that "
            "ended in between had begun to"
        )
    return _text(lines)


def damage_text(damaged: Sequence[ShardDamage]) -> str:
    """The row groups of the input that cannot be decoded, and how many rows are lost."""
    found = [(shard.uri, item) for shard in damaged for item in shard.groups]
    n_rows = sum(item.group.n_rows for _, item in found)
    lines = [
        f"damage  {counted(n_rows, 'sample')} in {counted(len(found), 'row group')} of "
        f"{counted(len(damaged), 'shard')} cannot be decoded; a run makes error rows of them. "
        "Restore these files, or write them again"
        f"{_LIMITS if any(item.is_unsupported for _, item in found) else ''}:"
    ]
    lines += [
        f"        {shown_address(uri)}, {item.group}, {counted(item.group.n_rows, 'sample')} lost: "
        f"{item.reason}{' (a limit of the reader)' if item.is_unsupported else ''}"
        for uri, item in found[:_MAX_SHOWN]
    ]
    if len(found) > _MAX_SHOWN:
        lines.append(f"        and {counted(len(found) - _MAX_SHOWN, 'more row group')}")
    return _text(lines)


def _retry_lines(planned: PlannedRun, retry: Retry) -> list[str]:
    chosen, left_out = chosen_rows(planned, retry), rows_left_out(planned, retry)
    lines = [
        f"retries {counted(chosen.total(), 'published error row')} "
        f"(retry {retry.number} of this run){_by_code(chosen)}"
    ]
    if left_out:
        lines.append(
            f"        not {counted(left_out.total(), 'row')} whose input decides on the error"
            f"{_by_code(left_out)}"
        )
    return lines


def _by_code(counts: Mapping[str, int]) -> str:
    """Such as `: internal 2, media_missing 3`."""
    shown = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
    return f": {shown}" if shown else ""


def _media_places(media: MediaOptions) -> str:
    """Where media may be read from."""
    places = (
        ("local", media.roots or ("every path",)),
        ("stores", media.allow or ("none",)),
        ("web", media.web_hosts or ("none",)),
    )
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in places)


def media_warnings(media: MediaOptions) -> list[str]:
    """What `validate` warns of."""
    if media.roots:
        return []
    return [
        "media.roots is empty, so that samples may name every local path of the workers; if others "
        "wrote them, set media.roots to the folders of their media"
    ]


def recuration_text(recuration: Recuration) -> str:
    """What curating a run again reads, changes and writes."""
    run, plan, change = recuration.run, recuration.plan, recuration.change
    n_chunks = sum(len(manifest.chunk_keys) for manifest in run.manifests.values())
    done = sum(recuration.is_published(shard) for shard in plan.shards)
    lines = [
        f"curates {run.folder.root}",
        f"        run {run.run_id} of {run.run_date} (fingerprint {run.fingerprint})",
        f"reads   {counted(plan.n_rows, 'sample')} in {counted(len(plan.shards), 'shard')}: "
        f"{', '.join(_read(change))}",
        *(f"changes {key}: {old} -> {new}" for key, (old, new) in recuration.changed.items()),
        f"does    {counted(n_chunks, 'chunk')}; {_published(done, len(plan.shards))} already",
        f"writes  {', '.join(kept_tables(recuration.config.trace))} to {recuration.folder.root}",
    ]
    if not recuration.changed:
        lines.insert(3, "changes nothing: the spans will be those of the run, byte for byte")
    if change.old.spans.pipeline != change.new.spans.pipeline and not change.cuts_units:
        lines.append("note    units are not cut again; they are those of the old spans.pipeline")
    if not run.finished:
        lines.append("note    the run is not finished; what it has published is curated")
    return _text(lines)


def _read(change: SettingsChange) -> list[str]:
    columns = change.columns(traces=change.changes_traces)
    positions = " with positions" if "rows" in columns["traces"] else ""
    return [name + positions * (name == "traces") for name in columns]


def verdict_blocks(folder: Folder, verdict: Verdict) -> list[Block]:
    """How the run ended, its errors by code and by stage, and the tables it published."""
    blocks: list[Block] = [
        _text(
            [
                f"run {verdict.run_id}: {verdict.reason}",
                f"{counted(verdict.n_rows, 'sample')}: {verdict.n_ok} ok, "
                f"{counted(verdict.n_error, 'error')}; {counted(verdict.n_spans, 'span')}; "
                f"{_published(verdict.n_published, verdict.n_shards)}",
                *_retried(verdict),
            ]
        )
    ]
    blocks += _totals_lines(verdict)
    totals = verdict.totals
    for name, counted_rows, counts in (
        ("error code", "errors", verdict.by_code),
        ("stage", "errors", verdict.by_stage),
        ("outcome", "spans", totals.spans_by_outcome),
        ("first source", "spans", totals.spans_by_modality),
    ):
        if counts:
            blocks += ["", _count_table(name, counted_rows, counts)]
    if verdict.tables:
        rows = [(name, str(n["files"]), str(n["rows"])) for name, n in verdict.tables.items()]
        columns = ("table", "files", "rows")
        blocks += ["", Table(columns, rows, right=frozenset(columns[1:]))]
    return [*blocks, "", _text([f"written to {folder.root}"])]


def _retried(verdict: Verdict) -> list[str]:
    """What the last retry did, if there was one."""
    if not verdict.retry:
        return []
    choice = f" ({', '.join(verdict.retry_of)})" if verdict.retry_of else ""
    return [
        f"retry {verdict.retry}{choice}: {counted(verdict.n_retried, 'error row')} done again, "
        f"{verdict.n_mended} of them ok now"
    ]


def _published(number: int, total: int) -> str:
    return f"{number} of {counted(total, 'shard')} published"


def _totals_lines(verdict: Verdict) -> list[Block]:
    """How long the run took, and what its models did."""
    times, totals, lines = verdict.times, verdict.totals, []
    if times.started_at:
        lines.append(f"{times.wall_s:.1f} s by the clock, of {counted(times.n_drivers, 'driver')}")
    if totals.model_s:
        lines.append(
            f"{totals.model_s:.1f} s of models: {totals.n_prompt_tokens} tokens of prompts, "
            f"{counted(totals.n_generated_tokens, 'generated token')}"
        )
    if verdict.n_shards_with_totals < verdict.n_published:
        lines.append(
            f"note: an older version published {verdict.n_published - verdict.n_shards_with_totals}"
            f" of {counted(verdict.n_published, 'shard')}, whose tokens, seconds, outcomes and "
            "sources are not counted"
        )
    return [_text(lines)] if lines else []


def _count_table(name: str, counted_rows: str, counts: Mapping[str, int]) -> Table:
    rows = [(key, str(count)) for key, count in counts.items()]
    return Table((name, counted_rows), rows, right=frozenset({counted_rows}))


def _text(lines: Iterable[str]) -> str:
    return "\n".join(map(printable_message, lines))
