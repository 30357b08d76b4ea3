"""The table and the targets of the tracing benchmark, from the results of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.tracing_cases import PAPER, Case, Mode, Result, Settings

# Where the targets apply: traced over plain from prompts of _LONG tokens on,
# eager over traced at _EAGER_AT, the per-token method over attgrads for _TOKENS response tokens.
_LONG, _EAGER_AT, _TOKENS = 2_000, 6_000, 64
_HEADER = (
    f"{'prompt':>6} {'batch':>5}  {'mode':23}{'generate s':>11}{'added s':>9}{'x plain':>8}"
    f"{'peak MiB':>10}{'x plain':>8}{'working MiB':>12}  notes"
)
_LEGEND = """\
generate s, added s: medians. x plain (time): generate + added over generate in the same process,
where the two alternate; for eager, over that of the plain case. peak: with libraries, model and
prompt; x plain (memory): over that of the plain case. working: the peak without them. ours within:
the largest difference from the reference's rows, in units of a row's maximum."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target and its worst measured case.

    is_met: None if this run did not measure it.
    """

    name: str
    limit: str
    measured: float | None = None
    where: str = ""
    is_met: bool | None = None

    def line(self) -> str:
        """The printed line."""
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        value = "" if self.measured is None else f"{_ratio(self.measured)}x ({self.where})"
        return f"{verdict:13}{self.name:43}{self.limit:9}{value}"


class Report:
    """The table and the targets of a run."""

    def __init__(self, settings: Settings, results: Sequence[Result]) -> None:
        self._settings = settings
        self._results = {result.case: result for result in results if not result.skipped}
        self._all = results

    def table(self) -> str:
        """The table, a line per case."""
        return "\n".join([_HEADER, *(self._row(result) for result in self._all), _LEGEND])

    def time_ratio(self, result: Result) -> float | None:
        """Time over that of plain generation of the same prompts."""
        if result.case.mode == "traced":
            return result.total / result.generation
        plain = self._plain(result)
        return result.total / plain.total if plain and result.generate_s else None

    def memory_ratio(self, result: Result) -> float | None:
        """Peak over that of plain generation of the same prompts."""
        plain = self._plain(result)
        return result.peak_bytes / plain.peak_bytes if plain else None

    def targets(self) -> list[Target]:
        """Every target, measured or not."""
        singles = {result.case.signals for result in self._of("traced")} - {PAPER}
        found: list[Target] = []
        for signals in [*sorted(s for s in singles if len(s) == 1), PAPER]:
            limit = 1.10 if signals == PAPER else 1.05
            name = f"{Case('traced', 0, 0, signals).name} / plain"
            traced = [r for r in self._of("traced") if r.case.signals == signals]
            traced = [r for r in traced if r.case.prompt >= _LONG]
            found.append(_at_most(limit, f"{name}: time", traced, self.time_ratio))
            found.append(_at_most(limit, f"{name}: peak memory", traced, self.memory_ratio))
        eager = [r for r in self._of("eager") if r.case.prompt == _EAGER_AT]
        found.append(_at_least(5, "eager / traced attmean: time", eager, self._over_total))
        name = "eager / traced attmean: working memory"
        found.append(_at_least(30, name, eager, self._over_working))
        slow = self._of("per-token") if self._settings.tokens == _TOKENS else []
        found.append(_at_least(100, "per-token / attgrads: added time", slow, self._over_added))
        return found

    def _row(self, result: Result) -> str:
        case = result.case
        start = f"{case.prompt:6} {case.batch:5}  {case.name:23}"
        if result.skipped:
            return f"{start}skipped: {result.skipped}"
        return (
            f"{start}{_seconds(result.generation):>11}{_seconds(result.added):>9}"
            f"{_ratio(self.time_ratio(result)):>8}{result.peak_bytes / 2**20:10,.0f}"
            f"{_ratio(self.memory_ratio(result)):>8}{result.working_bytes / 2**20:12,.0f}"
            f"  {'; '.join(self._notes(result))}"
        )

    def _notes(self, result: Result) -> Iterator[str]:
        settings = self._settings
        if result.case.mode == "per-token":
            steps = min(settings.gradient_steps, settings.tokens)
            yield f"{steps} of {settings.tokens} tokens measured, time scaled to all"
            over = self._over_added(result)
            if over is not None:
                yield f"{over:,.0f}x attgrads"
        if result.parity:
            parity = result.parity
            yield (
                f"ours within {parity.difference:.0e}, "
                f"same argmax in {parity.same_argmax} of {parity.rows} rows"
            )

    def _of(self, mode: Mode) -> list[Result]:
        return [result for result in self._results.values() if result.case.mode == mode]

    def _plain(self, result: Result) -> Result | None:
        return self._results.get(Case("plain", result.case.prompt, result.case.batch))

    def _ours(self, result: Result, signal: str) -> Result | None:
        case = Case("traced", result.case.prompt, result.case.batch, (signal,))
        return self._results.get(case)

    def _over_total(self, result: Result) -> float | None:
        ours = self._ours(result, "attmean")
        return result.total / ours.total if ours else None

    def _over_working(self, result: Result) -> float | None:
        ours = self._ours(result, "attmean")
        return result.working_bytes / ours.working_bytes if ours else None

    def _over_added(self, result: Result) -> float | None:
        ours = self._ours(result, "attgrads")
        return result.added / ours.added if ours else None


_Measure = Callable[[Result], float | None]


def _at_most(limit: float, name: str, results: Sequence[Result], measure: _Measure) -> Target:
    found = _values(results, measure)
    if not found:
        return Target(name, f"<= {limit:.2f}")
    worst, where = max(found)
    return Target(name, f"<= {limit:.2f}", worst, where, worst <= limit)


def _at_least(limit: float, name: str, results: Sequence[Result], measure: _Measure) -> Target:
    found = _values(results, measure)
    if not found:
        return Target(name, f">= {limit:g}")
    worst, where = min(found)
    return Target(name, f">= {limit:g}", worst, where, worst >= limit)


def _values(results: Sequence[Result], measure: _Measure) -> list[tuple[float, str]]:
    """Each measured value, and the prompt length and batch size of its case."""
    found = []
    for result in results:
        value = measure(result)
        if value is not None:
            found.append((value, f"prompt {result.case.prompt:,}, batch {result.case.batch}"))
    return found


def _seconds(value: float) -> str:
    return f"{value:,.3f}" if value else "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:,.1f}"
