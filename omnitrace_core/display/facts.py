"""Texts about a result that the plain and the HTML display share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from omnitrace_core.addresses import media_name, shown_address
from omnitrace_core.records import Attribution, Part, Sample, Segmentation, SourceUnit, TokenTrace

_FINISHED = {
    "stop": "ended by the model",
    "length": "cut at decode.max_new_tokens",
    "given": "response given",
}
_KINDS = {"video_bin": "frames", "sound_bin": "sound", "sound_chunk": "sound"}


class ShownResult(Protocol):
    """The fields of a `TraceResult` that are shown."""

    @property
    def sample(self) -> Sample: ...
    @property
    def units(self) -> tuple[SourceUnit, ...]: ...
    @property
    def trace(self) -> TokenTrace: ...
    @property
    def segmentation(self) -> Segmentation: ...
    @property
    def spans(self) -> tuple[Attribution, ...]: ...


def count(n: int, thing: str) -> str:
    """A number with its noun: `1 span`, `1,204 tokens`."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def facts_of(result: ShownResult) -> list[str]:
    """Sizes, how the response ended, and the signals; the first signal chose the sources."""
    trace = result.trace
    facts = [
        count(len(result.spans), "span"),
        count(len(result.units), "source unit"),
        count(len(trace.token_ids), "token"),
        _FINISHED[trace.finish_reason],
    ]
    if trace.folds:
        facts.append(f"signals: {', '.join(trace.folds)}")
    return facts


def notes_of(result: ShownResult) -> tuple[str, ...]:
    """Notes of every step."""
    return result.trace.notes + result.segmentation.notes


def outcome_of(span: Attribution) -> str:
    """`supported 0.42`: the outcome and its confidence."""
    return f"{span.outcome} {span.confidence:.2f}"


def masses_of(masses: Mapping[str, float]) -> str:
    """Mean mass of the span's tokens by bucket, without those that round to nothing."""
    shown = [f"{bucket} {mass:.2f}" for bucket, mass in masses.items() if mass >= 0.005]
    return ", ".join(shown)


def place_of(unit: SourceUnit) -> str:
    """Where a unit lies in the sample: `audio part 0, 1.00-2.00 s`."""
    place = f"{unit.modality} part {unit.part_index}"
    if unit.kind in _KINDS:
        place += f", {_KINDS[unit.kind]}"
    if unit.start_s is not None and unit.end_s is not None:
        place += f", {unit.start_s:.2f}-{unit.end_s:.2f} s"
    if unit.box is not None:
        place += f", box {[round(edge) for edge in unit.box]}"
    return place


def words_of(unit: SourceUnit) -> str:
    """The unit's text, or what is said in it; empty for pictures and wordless sounds."""
    return unit.text or unit.transcript


def media_of(parts: Sequence[Part], unit: SourceUnit) -> str:
    """The address of the unit's media without secrets, or its size; empty for text."""
    if unit.modality == "text" or not 0 <= unit.part_index < len(parts):
        return ""
    part = parts[unit.part_index]
    if part.data is not None:
        return f"{len(part.data):,} bytes"
    return media_name(part) if part.frames else shown_address(part.uri)
