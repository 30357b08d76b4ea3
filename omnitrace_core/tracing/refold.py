"""Fold stored rows over prompt positions into other units, without the model.

Symbols: P prompt positions, n_gen response tokens, n_units source units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import TraceError
from omnitrace_core.positions import Positions
from omnitrace_core.records import Float32, Fold, SourceUnit
from omnitrace_core.units.assign import assign_units


def refold(
    positions: Positions, folds: Mapping[str, Fold], units: Sequence[SourceUnit]
) -> dict[str, Fold]:
    """Fold every signal of `positions` into `units` (paper, Algorithm 1, line 7).

    folds: the earlier folds of the same trace. Their mass on earlier response tokens (`generated`)
    does not depend on the units and is copied. `units.assign.unit_notes` says which units
    can get no mass, and which positions have no unit.

    Raises:
        TraceError: the positions, the folds and the units do not belong to one trace.
    """
    _check(positions, folds, units)
    index = assign_units(positions.prompt, units)
    column = np.where(index >= 0, index, len(units) + positions.prompt.is_media)
    return {
        name: _fold(rows, column, len(units), folds[name].generated)
        for name, rows in positions.rows.items()
    }


def _fold(rows: Float32, column: NDArray[np.int64], n_units: int, generated: Float32) -> Fold:
    """rows: [n_gen, P]; column: [P], the unit of each position.

    Positions of no unit are summed in two columns behind the last unit: markup, then media.
    """
    order = np.argsort(column, kind="stable")
    present, starts = np.unique(column[order], return_index=True)
    sums = np.zeros((len(rows), n_units + 2), dtype=np.float32)
    peaks = np.zeros((len(rows), n_units + 2), dtype=np.float32)
    if present.size:  # units without positions keep 0: reduceat has no empty groups
        by_unit = np.take(rows, order, axis=1)
        sums[:, present] = np.add.reduceat(by_unit, starts, axis=1, dtype=np.float64)
        peaks[:, present] = np.maximum.reduceat(by_unit, starts, axis=1)
    return Fold(
        mass=np.ascontiguousarray(sums[:, :n_units]),
        peak=np.ascontiguousarray(peaks[:, :n_units]),
        markup=np.ascontiguousarray(sums[:, n_units]),
        generated=np.ascontiguousarray(generated, dtype=np.float32),
        uncovered=np.ascontiguousarray(sums[:, n_units + 1]),
    )


def _check(positions: Positions, folds: Mapping[str, Fold], units: Sequence[SourceUnit]) -> None:
    n_prompt = len(positions.prompt.part)
    for name, rows in positions.rows.items():
        if name not in folds:
            raise TraceError(
                f"there are rows of {name!r} but no fold of it (there is {sorted(folds)}); take "
                "the positions and the folds from the same trace"
            )
        n_gen = len(folds[name].generated)
        if rows.shape != (n_gen, n_prompt):
            raise TraceError(
                f"the rows of {name!r} are {list(rows.shape)} (tokens x positions), but the fold "
                f"has {n_gen} tokens and the prompt {n_prompt} positions; take the positions and "
                "the folds from the same trace"
            )
    ids = [unit.unit_id for unit in units]
    if ids != list(range(len(units))):
        raise TraceError(
            f"the units' ids are {ids[:8]}, not 0, 1, 2 ...; pass all units of the sample in the "
            "order of their ids"
        )
