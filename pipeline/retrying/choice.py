"""Which published error rows a command traces once more, and in which retry of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omnitrace_core.errors import (
    DuplicateSampleId,
    InvalidSample,
    MissingSampleId,
    UnknownPartType,
)
from pipeline.config import RunOptions

# `errors` leaves these out: the rows of the input alone decide on them, and a shard that changes is
# done anew.
DECIDED_BY_INPUT = frozenset(
    error.code for error in (DuplicateSampleId, InvalidSample, MissingSampleId, UnknownPartType)
)


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """The error rows that `run.retry` chooses. codes: None for all whose outcome can change."""

    codes: frozenset[str] | None

    def includes(self, code: str) -> bool:
        """Whether rows with this error code are chosen."""
        return code not in DECIDED_BY_INPUT if self.codes is None else code in self.codes

    def of(self, by_code: Mapping[str, int]) -> dict[str, int]:
        """The chosen ones of these counts of error rows by code."""
        return {code: count for code, count in by_code.items() if count and self.includes(code)}

    @property
    def names(self) -> list[str]:
        """The choice as the verdict records it."""
        return ["errors"] if self.codes is None else sorted(self.codes)


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry of a run: it traces each chosen row once, in as many commands as that takes.

    number: 1 for the first retry of the run. A shard whose manifest has this number is done.
    """

    number: int
    choice: RetryChoice

    def left(self, last_retry: int, by_code: Mapping[str, int]) -> dict[str, int]:
        """Rows of a published shard that are left to do, by code.

        last_retry, by_code: of the shard's manifest.
        """
        return {} if last_retry >= self.number else self.choice.of(by_code)


def retry_choice(options: RunOptions) -> RetryChoice | None:
    """What `run.retry` chooses; None for none."""
    if options.retry == "none":
        return None
    return RetryChoice(None if options.retry == "errors" else frozenset(options.retry))
