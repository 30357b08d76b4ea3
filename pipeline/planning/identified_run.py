"""The first step of every command on a run: identify the run and list its input."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.planning.identity import RunIdentity, Today, run_identity, utc_today
from pipeline.planning.input_shards import InputListing, list_input
from pipeline.planning.plan import digest_inputs


@dataclass(frozen=True, slots=True)
class IdentifiedRun:
    """A run that is identified and not yet planned; no shard and no manifest was opened."""

    config: RunConfig
    identity: RunIdentity
    listing: InputListing

    @property
    def inputs_digest(self) -> str:
        """Hash of the listed input and the settings; equals `Plan.inputs_digest`."""
        fingerprint, chunk_samples = self.identity.fingerprint, self.config.run.chunk_samples
        return digest_inputs(self.listing.shards, fingerprint, chunk_samples)


def identify_run(config: RunConfig, today: Today = utc_today) -> IdentifiedRun:
    """List the input once and hash the model's folder once; writes nothing.

    Raises:
        InputSchemaError: there is no input.
        ConfigError: the model is neither a directory nor a hub id with a pinned revision.
        RunError: the record of the run's date cannot be read.
    """
    listing = list_input(config.input.path)
    return IdentifiedRun(config, run_identity(config, today), listing)
