"""A planned run: its config and identity, its plan, and what is published so far."""

from __future__ import annotations

from dataclasses import dataclass

from omnitrace_core.media_rules import MediaRules
from pipeline.config import RunConfig
from pipeline.planning.identity import RunIdentity
from pipeline.planning.media_stores import with_allowed_stores
from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.manifests import Manifest
from pipeline.storage.folder import Folder


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A planned run: its config and identity, its plan, and what is published so far.

    manifests: by the name of the input shard, including shards that have left the input. rules: how
    the model wants its media. media_roots: addresses in stores that the input's shards name.
    """

    config: RunConfig
    identity: RunIdentity
    plan: Plan
    manifests: dict[str, Manifest]
    rules: MediaRules
    media_roots: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.identity.run_id

    @property
    def resolved_config(self) -> RunConfig:
        """The config with the stores that media may be read from listed in `media.allow`."""
        return with_allowed_stores(self.config, self.media_roots)

    @property
    def folder(self) -> Folder:
        """Folder of the run's files."""
        return self.identity.folder

    def is_published(self, shard: Shard) -> bool:
        """Whether the shard is published as the plan wants it."""
        manifest = self.manifests.get(shard.name)
        return manifest is not None and manifest.key == shard.key
