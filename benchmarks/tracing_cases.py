"""Cases and results of the tracing benchmark. The parent process imports it, so it has no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Mode = Literal["plain", "traced", "eager", "per-token"]
# The paper's three signals (C.1), traced together.
PAPER = ("attmean", "attraw", "attgrads")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all cases of a run share.

    size: a name in tracing_model.SIZES. tokens: response tokens; generation never ends before.
    repeats: of each generation and its trace; none begins after case_s seconds. gradient_steps:
    number of response tokens for which the per-token method is measured; its time is scaled to all.
    rows_mib: as in TraceOptions.
    """

    size: str
    device: str
    dtype: str
    tokens: int
    repeats: int
    case_s: float
    gradient_steps: int
    threads: int
    rows_mib: int
    seed: int


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement. prompt: padded length. signals: the traced signals, in the mode `traced`."""

    mode: Mode
    prompt: int
    batch: int
    signals: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the table."""
        signals = "three together" if self.signals == PAPER else "+".join(self.signals)
        return f"{self.mode} {signals}".strip()


@dataclass(frozen=True, slots=True)
class Parity:
    """Comparison of our rows with the reference's.

    difference: largest absolute difference, in units of its row's maximum. same_argmax: how many of
    the `rows` rows have their maximum at the same position.
    """

    difference: float
    same_argmax: int
    rows: int


@dataclass(frozen=True, slots=True)
class Result:
    """The measurements of a case.

    skipped: why the case did not run, else empty. generate_s: seconds of each generation; added_s:
    seconds of getting the rows and folding them, beyond generation. built_bytes: memory with
    libraries, model and prompt loaded; peak_bytes: the peak, including those (CPU: resident set;
    GPU: allocated).
    """

    case: Case
    skipped: str = ""
    generate_s: tuple[float, ...] = ()
    added_s: tuple[float, ...] = ()
    built_bytes: int = 0
    peak_bytes: int = 0
    parity: Parity | None = None

    @property
    def generation(self) -> float:
        """Median seconds of generation."""
        return median(self.generate_s) if self.generate_s else 0.0

    @property
    def added(self) -> float:
        """Median seconds beyond generation."""
        return median(self.added_s) if self.added_s else 0.0

    @property
    def total(self) -> float:
        """Seconds of generation and tracing."""
        return self.generation + self.added

    @property
    def working_bytes(self) -> int:
        """The peak without libraries, model and prompt."""
        return self.peak_bytes - self.built_bytes


def job_to_json(case: Case, settings: Settings) -> str:
    """The input of a child process."""
    return json.dumps({"case": asdict(case), "settings": asdict(settings)})


def job_from_json(text: str) -> tuple[Case, Settings]:
    """The inverse of `job_to_json`."""
    content = json.loads(text)
    return _case(content["case"]), Settings(**content["settings"])


def result_from_json(text: str) -> Result:
    """The inverse of `json.dumps(asdict(result))`."""
    content = json.loads(text)
    parity = content.pop("parity")
    content |= {key: tuple(content[key]) for key in ("generate_s", "added_s")}
    case = _case(content.pop("case"))
    return Result(case, parity=Parity(**parity) if parity else None, **content)


def _case(content: dict[str, Any]) -> Case:
    return Case(**content | {"signals": tuple(content["signals"])})
