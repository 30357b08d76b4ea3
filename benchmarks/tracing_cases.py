"""What the tracing benchmark measures, and what it finds. No torch here: the parent imports it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

Mode = Literal["plain", "traced", "eager", "per-token"]
# The paper's three signals (C.1), traced together.
PAPER = ("attmean", "attraw", "attgrads")


@dataclass(frozen=True, slots=True)
class Settings:
    """What all cases of a run share.

    size: a name in tracing_model.SIZES. tokens: response tokens, always all of them. repeats: of
    each generation and its trace; none begins after case_s seconds. gradient_steps: response tokens
    for which the per-token method is measured; its time is scaled to all. rows_mib: as in
    TraceOptions.
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
    """One measurement. prompt: padded length. signals: what is traced, in the mode `traced`."""

    mode: Mode
    prompt: int
    batch: int
    signals: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As it stands in the table."""
        signals = "three together" if self.signals == PAPER else "+".join(self.signals)
        return f"{self.mode} {signals}".strip()


@dataclass(frozen=True, slots=True)
class Parity:
    """Our rows against the reference's.

    difference: largest absolute difference, in units of its row's maximum. same_argmax: of `rows`
    rows, how many have their maximum at the same position.
    """

    difference: float
    same_argmax: int
    rows: int


@dataclass(frozen=True, slots=True)
class Result:
    """What was found.

    skipped: why the case did not run, else empty. generate_s: seconds of each generation; added_s:
    of what comes on top to get the rows and fold them. built_bytes: held when the libraries, the
    model and the prompt were there; peak_bytes: the most held, with all of that (CPU: resident set;
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
        """Median seconds on top."""
        return median(self.added_s) if self.added_s else 0.0

    @property
    def total(self) -> float:
        """Seconds of generation and what is on top."""
        return self.generation + self.added

    @property
    def working_bytes(self) -> int:
        """The peak above libraries, model and prompt."""
        return self.peak_bytes - self.built_bytes


def job_to_json(case: Case, settings: Settings) -> str:
    """What a child process reads."""
    return json.dumps({"case": asdict(case), "settings": asdict(settings)})


def job_from_json(text: str) -> tuple[Case, Settings]:
    """The inverse of `job_to_json`."""
    told = json.loads(text)
    return _case(told["case"]), Settings(**told["settings"])


def result_from_json(text: str) -> Result:
    """The inverse of `json.dumps(asdict(result))`."""
    told = json.loads(text)
    parity = told.pop("parity")
    told |= {key: tuple(told[key]) for key in ("generate_s", "added_s")}
    return Result(_case(told.pop("case")), parity=Parity(**parity) if parity else None, **told)


def _case(told: dict[str, object]) -> Case:
    signals: list[str] = told["signals"]  # type: ignore[assignment]
    return Case(**told | {"signals": tuple(signals)})  # type: ignore[arg-type]
