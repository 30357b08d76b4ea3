"""Plan a recuration: a published run, the settings to curate it with, and its shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from omnitrace_core.errors import ConfigError, RunError
from omnitrace_core.options import CurationOptions
from pipeline.config import RunConfig, make_config
from pipeline.planning.media_stores import with_allowed_stores
from pipeline.planning.plan import Plan, Shard
from pipeline.recuration.change_checks import (
    ERROR_LIMIT,
    Changed,
    check_changes,
    check_dest,
    check_places,
    check_tools,
    check_traces,
)
from pipeline.run_folder.manifests import Manifest, read_manifests
from pipeline.run_folder.stored_run import StoredRun, find_run
from pipeline.run_folder.verdict import is_finished
from pipeline.settings_yaml import Tree
from pipeline.storage.addresses import absolute_path
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import SCHEMA_VERSION
from stages.settings_change import CurationSettings, SettingsChange


@dataclass(frozen=True, slots=True)
class Recuration:
    """A published run, the settings to curate it with, and what is published of it so far.

    run: the source. folder: the destination. changed: value in the run's settings and new value, by
    key. manifests: of the destination, by the name of the input shard.
    """

    run: StoredRun
    folder: Folder
    config: RunConfig
    changed: Changed
    plan: Plan
    manifests: dict[str, Manifest]

    @property
    def run_id(self) -> str:
        """Id of the resulting run; the same command gives the same id."""
        return f"c{_hash(self.run.run_id, self.plan.fingerprint)[:12]}"

    @property
    def change(self) -> SettingsChange:
        """The settings that affect curation, of the run and new."""
        return SettingsChange(_settings(self.run.config), _settings(self.config))

    def is_published(self, shard: Shard) -> bool:
        """Whether the shard is published as the plan wants it."""
        manifest = self.manifests.get(shard.name)
        return manifest is not None and manifest.key == shard.key


def plan_recuration(run_path: str, dest: str, overrides: Sequence[str] = ()) -> Recuration:
    """Find the run, and check that it can be curated with these settings; writes nothing.

    run_path: the run's folder, or one above it. dest: folder of the resulting run. overrides:
    `key=value` changes of the run's settings.

    Raises:
        ConfigError: there is no such run, its traces do not hold what the settings need, or the
            destination cannot be used.
        RunError: a manifest of the run or of the destination cannot be read.
    """
    run, folder = find_run(run_path), Folder(dest)
    check_places(run_path, run, dest)
    check_traces(run)
    config = _config(run, dest, overrides)
    changed = dict(_differences(run.config, config))
    check_changes(run, config, changed)
    check_dest(run, folder)
    plan = _plan(run, _fingerprint(run, changed))
    recuration = Recuration(run, folder, config, changed, plan, read_manifests(folder))
    if not is_finished(recuration):
        check_tools(recuration.change)
    return recuration


def with_present_source(recuration: Recuration) -> Recuration:
    """The recuration of the source run as it is now; the same one if that did not change.

    For a process that has just taken the lease of the destination: since it planned, another one
    may have curated what the run has published meanwhile.

    Raises:
        ConfigError: there is no such run any more.
        RunError: the run has other settings by now.
    """
    run = find_run(recuration.run.folder.root)
    if run.settings != recuration.run.settings or run.fingerprint != recuration.run.fingerprint:
        raise RunError(
            f"{run.folder.root} was run again with other settings since this command read it; "
            "run the same command again"
        )
    if source_is_unchanged(recuration, run):
        return recuration
    return replace(recuration, run=run, plan=_plan(run, recuration.plan.fingerprint))


def source_is_unchanged(recuration: Recuration, now: StoredRun | None = None) -> bool:
    """Whether the source run has published nothing since it was planned, and is as finished.

    now: the run as it is now; by default it is read. Costs a read of each of its manifests.

    Raises:
        ConfigError: there is no such run any more.
    """
    run = recuration.run
    now = now or find_run(run.folder.root)
    return (now.manifests, now.finished, now.fingerprint, now.settings) == (
        run.manifests,
        run.finished,
        run.fingerprint,
        run.settings,
    )


def _fingerprint(run: StoredRun, changed: Changed) -> str:
    """Hash of all that affects the records: as of the run, and the changes to it."""
    affecting = {key: new for key, (_, new) in changed.items() if key != ERROR_LIMIT}
    if not affecting:
        return run.fingerprint
    return _hash(run.fingerprint, sorted(affecting.items()))[:16]


def _plan(run: StoredRun, fingerprint: str) -> Plan:
    """The shards of the run under their numbers, with the keys of the new records."""
    shards = tuple(
        Shard(
            number=manifest.number,
            name=manifest.shard,
            uri=manifest.uri,
            identity=manifest.identity,
            n_rows=manifest.n_rows,
            key=_hash("curate", *_content(manifest), fingerprint, SCHEMA_VERSION),
            duplicates=(),
        )
        for _, manifest in sorted(run.manifests.items())
    )
    return Plan(shards, fingerprint, run.config.run.chunk_samples)


def _content(manifest: Manifest) -> list[object]:
    """Identifies what is published of a shard: a retry of its error rows keeps the key."""
    return [manifest.key, manifest.retry] if manifest.retry else [manifest.key]


def _config(run: StoredRun, dest: str, overrides: Sequence[str]) -> RunConfig:
    """The run's settings with the overrides, and with `dest` as `output.path`."""
    tree: Tree = {**run.settings, "curation": _without_preset_values(run.config.curation)}
    if any(override.startswith("output.") for override in overrides):
        raise ConfigError("output.path is set by DEST; leave the override out")
    output = f"output.path={json.dumps(absolute_path(dest))}"
    return make_config(tree, [*overrides, output], "the run's configuration with your changes")


def _without_preset_values(curation: CurationOptions) -> Tree:
    """The settings without those that the preset set, so that another preset can set them."""
    preset = CurationOptions(preset=curation.preset).model_dump(mode="json")
    values = curation.model_dump(mode="json")
    return {key: value for key, value in values.items() if key == "preset" or value != preset[key]}


def _differences(old: RunConfig, new: RunConfig) -> Iterator[tuple[str, tuple[object, object]]]:
    """Keys whose values differ, with the old and the new value."""
    old_values, new_values = (
        dict(_flattened(config.model_dump(mode="json"))) for config in (old, new)
    )
    for key, value in new_values.items():
        if value != old_values[key] and key != "output.path":
            yield key, (old_values[key], value)


def _flattened(tree: Tree, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values of a tree of settings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _settings(config: RunConfig) -> CurationSettings:
    return CurationSettings(
        trace=config.trace,
        units=config.units,
        spans=config.spans,
        curation=config.curation,
        asr=config.asr,
        # Runs of older versions name no stores.
        media=with_allowed_stores(config, ()).media,
    )


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
