"""A run before its work: what it is, what it has to do, and what is already published."""

from __future__ import annotations

from dataclasses import dataclass

from omnitrace_core.media_rules import MediaRules
from pipeline.config import RunConfig
from pipeline.planning.identity import RunIdentity
from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.manifests import Manifest
from pipeline.storage.folder import Folder


@dataclass(frozen=True, slots=True)
class Job:
    """A run before its work: what it is, what it has to do, and what is already published.

    manifests: by input shard, those of shards that left the input included.
    """

    config: RunConfig
    identity: RunIdentity
    plan: Plan
    manifests: dict[str, Manifest]
    rules: MediaRules

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.identity.run_id

    @property
    def folder(self) -> Folder:
        """Where the run's files lie."""
        return self.identity.folder

    def is_published(self, shard: Shard) -> bool:
        """Whether the shard's records are final as the plan wants them."""
        manifest = self.manifests.get(shard.name)
        return manifest is not None and manifest.key == shard.key
