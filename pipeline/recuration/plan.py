"""What `omnitrace curate` is to do: a published run, other settings, and the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omnitrace_core.errors import ConfigError
from omnitrace_core.options import CurationOptions
from pipeline.config import RunConfig, Tree, make_config
from pipeline.planning.plan import Plan, Shard
from pipeline.recuration.checks import (
    JUDGES,
    check_changes,
    check_dest,
    check_places,
    check_tools,
    check_traces,
)
from pipeline.run_folder.manifests import Manifest, read_manifests
from pipeline.run_folder.stored_run import StoredRun, find_run
from pipeline.run_folder.verdict import is_finished
from pipeline.storage.folder import Folder, absolute_path
from stages.arrow.schema import SCHEMA_VERSION
from stages.recurate import Change, Settings


@dataclass(frozen=True, slots=True)
class Recuration:
    """A published run, the settings to curate it with, and what is already published in `folder`.

    changed: by key, what the run was told and what is told now.
    """

    run: StoredRun
    folder: Folder
    config: RunConfig
    changed: Mapping[str, tuple[object, object]]
    plan: Plan
    manifests: dict[str, Manifest]

    @property
    def run_id(self) -> str:
        """Name of what comes out; the same command gives the same one."""
        return f"c{_hash(self.run.run_id, self.plan.fingerprint)[:12]}"

    @property
    def change(self) -> Change:
        """The settings that matter, before and now."""
        return Change(_settings(self.run.config), _settings(self.config))

    def is_published(self, shard: Shard) -> bool:
        """Whether the shard's records are final as the plan wants them."""
        manifest = self.manifests.get(shard.name)
        return manifest is not None and manifest.key == shard.key


def plan_recuration(run_path: str, dest: str, overrides: Sequence[str] = ()) -> Recuration:
    """Find the run, and check that it can be curated so; writes nothing.

    Raises:
        ConfigError: there is no such run, its traces do not hold what the settings need, or the
            destination cannot be used.
        RunError: a manifest of either cannot be read.
    """
    run, folder = find_run(run_path), Folder(dest)
    check_places(run_path, run, dest)
    check_traces(run)
    config = _config(run, dest, overrides)
    changed = dict(_differences(run.config, config))
    check_changes(run, config, changed)
    check_dest(run, folder)
    shaping = {key: new for key, (_, new) in changed.items() if key != JUDGES}
    fingerprint = run.fingerprint
    if shaping:
        fingerprint = _hash(run.fingerprint, sorted(shaping.items()))[:16]
    plan = _plan(run, fingerprint)
    job = Recuration(run, folder, config, changed, plan, read_manifests(folder))
    if not is_finished(job):
        check_tools(job.change)
    return job


def _plan(run: StoredRun, fingerprint: str) -> Plan:
    """The run's own shards and numbers, with keys of what is to be made of them."""
    shards = tuple(
        Shard(
            number=item.number,
            name=item.shard,
            uri=item.uri,
            identity=item.identity,
            n_rows=item.n_rows,
            key=_hash("curate", item.key, fingerprint, SCHEMA_VERSION),
            duplicates=(),
        )
        for _, item in sorted(run.manifests.items())
    )
    return Plan(shards, fingerprint, run.config.run.chunk_samples)


def _config(run: StoredRun, dest: str, overrides: Sequence[str]) -> RunConfig:
    """The run's settings with the overrides, and with `dest` as their output."""
    tree: Tree = {**run.settings, "curation": _chosen(run.config.curation)}
    if any(override.startswith("output.") for override in overrides):
        raise ConfigError("output.path is what DEST says; leave it out")
    output = f"output.path={json.dumps(absolute_path(dest))}"
    return make_config(tree, [*overrides, output], "the run's configuration with your changes")


def _chosen(curation: CurationOptions) -> Tree:
    """Without what its preset filled in, so that another preset fills it in its own way."""
    filled = CurationOptions(preset=curation.preset).model_dump(mode="json")
    told = curation.model_dump(mode="json")
    return {key: value for key, value in told.items() if key == "preset" or value != filled[key]}


def _differences(old: RunConfig, new: RunConfig) -> Iterator[tuple[str, tuple[object, object]]]:
    before, now = (dict(_flat(item.model_dump(mode="json"))) for item in (old, new))
    for key, value in now.items():
        if value != before[key] and key != "output.path":
            yield key, (before[key], value)


def _flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _settings(config: RunConfig) -> Settings:
    return Settings(
        trace=config.trace,
        units=config.units,
        spans=config.spans,
        curation=config.curation,
        asr=config.asr,
        media=config.media,
    )


def _hash(*told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
