"""Curation of a chunk's traced samples: the same for a run and for a run that is curated again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from omnitrace_core.attribution.curation import (
    CurationInput,
    CurationResult,
    curate_many,
    unit_kinds,
)
from omnitrace_core.attribution.heatmaps import HeatMap, span_heatmaps
from omnitrace_core.options import CurationOptions, TraceOptions, UnitOptions
from omnitrace_core.records import Fold, Segmentation
from stages.arrow.chunk import StateRow
from stages.guards.row_guard import RowError, guarded

Segment = Callable[[StateRow], Segmentation]
ReadAhead = Callable[[list[str]], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A sample that was curated; the sources of its spans are in `Curation.curated`."""

    segmentation: Segmentation
    heatmaps: tuple[HeatMap, ...]
    curate_s: float


# What became of a sample; None where an earlier stage recorded an error.
Outcome = Finished | RowError | None


@dataclass(frozen=True, slots=True)
class Curation:
    """What became of some samples, and the sources of all spans of those that were finished."""

    outcomes: Sequence[Outcome]
    curated: CurationResult

    @property
    def finished(self) -> dict[int, Finished]:
        """The finished samples by their place, in order."""
        return {i: item for i, item in enumerate(self.outcomes) if isinstance(item, Finished)}


@dataclass(frozen=True, slots=True)
class _Started:
    """A sample that is ready to be curated."""

    case: CurationInput
    heatmaps: tuple[HeatMap, ...]
    wall_s: float


class Curator:
    """Curates the first signal of each sample, and draws its heat maps if they are asked for.

    stage: the one in which errors are recorded. segment: cuts a sample's response into spans.
    read_ahead: is told all responses that `segment` will be asked for, if it is one that reads.
    """

    def __init__(
        self,
        stage: str,
        segment: Segment,
        curation: CurationOptions,
        trace: TraceOptions,
        units: UnitOptions,
        read_ahead: ReadAhead | None = None,
    ) -> None:
        self._stage = stage
        self._segment = segment
        self._read_ahead = read_ahead
        self._trace = trace
        self._pos_weighting = curation.pos_weighting
        self._curate = partial(
            curate_many,
            options=curation,
            projection=trace.projection,
            instructions=units.instructions,
        )

    def __call__(self, rows: Sequence[StateRow]) -> Curation:
        """Curate the samples that have no error yet; a failure costs its own sample."""
        begun = time.perf_counter()
        if self._read_ahead is not None and self._trace.enabled:
            responses = [row.response for row in rows if not row.failed]
            # What goes wrong here goes wrong again for the sample that is to blame.
            guarded(self._stage, "reading ahead", partial(self._read_ahead, responses))
        read_s = time.perf_counter() - begun
        done: dict[int, _Started | RowError] = {
            row.index: guarded(self._stage, row.row_key, partial(self._start, row))
            for row in rows
            if not row.failed
        }
        begun = time.perf_counter() - read_s
        curated = guarded(self._stage, f"{len(done)} samples", partial(self._together, done))
        if isinstance(curated, RowError):
            # One of them is to blame; the others shall not suffer.
            for i, item in list(done.items()):
                alone = guarded(self._stage, rows[i].row_key, partial(self._together, {i: item}))
                done[i] = alone if isinstance(alone, RowError) else item
            curated = self._together(done)
        share_s = (time.perf_counter() - begun) / max(len(done), 1)
        outcomes = [_outcome(done.get(row.index), share_s) for row in rows]
        return Curation(outcomes, curated)

    def _start(self, row: StateRow) -> _Started:
        """What is done sample by sample."""
        started = time.perf_counter()
        if not self._trace.enabled:
            return _Started(_NOTHING, (), 0.0)
        segmentation = self._segment(row)
        case = CurationInput(row.fold(self._trace.signals[0]), row.unit_kinds, segmentation)
        heatmaps = self._draw(row, segmentation) if self._trace.heatmaps else ()
        return _Started(case, heatmaps, time.perf_counter() - started)

    def _together(self, done: Mapping[int, _Started | RowError]) -> CurationResult:
        return self._curate([item.case for item in done.values() if isinstance(item, _Started)])

    def _draw(self, row: StateRow, segmentation: Segmentation) -> tuple[HeatMap, ...]:
        positions = row.positions
        if positions is None or not segmentation.spans:
            return ()
        return span_heatmaps(
            positions.rows[self._trace.signals[0]],
            positions.prompt,
            segmentation,
            pos_weighting=self._pos_weighting,
        )


def _outcome(item: _Started | RowError | None, share_s: float) -> Outcome:
    if not isinstance(item, _Started):
        return item
    return Finished(item.case.segmentation, item.heatmaps, item.wall_s + share_s)


def _nothing() -> CurationInput:
    """A sample without tokens."""
    none = np.zeros(0, np.float32)
    fold = Fold(none.reshape(0, 0), none.reshape(0, 0), none, none)
    return CurationInput(fold, unit_kinds((), ()), Segmentation((), ()))


_NOTHING = _nothing()
