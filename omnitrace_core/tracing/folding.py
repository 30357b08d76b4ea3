"""From rows over positions to masses per source unit (paper, Algorithm 1, line 7).

Symbols: n_gen tokens of one sample, P padded prompt positions, K cache slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from omnitrace_core.options import TraceOptions
from omnitrace_core.positions import Positions
from omnitrace_core.records import Float32, Fold

if TYPE_CHECKING:
    from torch import Tensor

    from omnitrace_core.backends.base import Encoded
    from omnitrace_core.tracing.replay import Slice


class SampleFolds:
    """Collects one sample's folds, slice by slice of its response.

    unit_index: [P] long, the unit of each prompt position, -1 for none.
    """

    def __init__(
        self, item: Encoded, unit_index: Tensor, n_gen: int, options: TraceOptions
    ) -> None:
        self._item = item
        self._unit_index = unit_index
        self._n_units = len(item.ready.units)
        self._n_gen = n_gen
        self._keep = options.keeps_positions
        self._folds: dict[str, list[Fold]] = {name: [] for name in options.signals}
        self._rows: dict[str, list[Float32]] = {name: [] for name in options.signals}
        self._logprobs: list[Float32] = []

    def add(self, part: Slice, row: int) -> None:
        """Take the next slice. row: this sample's in the batch."""
        left = self._n_gen - part.start
        if left <= 0:
            return
        self._logprobs.append(as_numpy(part.logprobs[row, :left]))
        n_prompt = len(self._unit_index)
        for name, rows in part.rows.items():
            mine = rows[row, :left]
            self._folds[name].append(fold_rows(mine, self._unit_index, self._n_units))
            if self._keep:
                prompt = mine[:, n_prompt - self._item.n_prompt : n_prompt]
                self._rows[name].append(as_numpy(prompt))

    def folds(self) -> dict[str, Fold]:
        """By signal, over the whole response."""
        return {name: _joined(parts, self._n_units) for name, parts in self._folds.items()}

    def logprobs(self) -> Float32:
        """[n_gen] float32."""
        return np.concatenate([np.zeros(0, np.float32), *self._logprobs])

    def positions(self) -> Positions | None:
        """The rows over the prompt, padding apart, if they are kept."""
        if not self._keep:
            return None
        empty = np.zeros((0, self._item.n_prompt), np.float32)
        rows = {name: np.concatenate([empty, *parts]) for name, parts in self._rows.items()}
        return Positions(self._item.prompt, rows)


def fold_rows(rows: Tensor, unit_index: Tensor, n_units: int) -> Fold:
    """Fold the rows of one sample into its units (paper, Algorithm 1, line 7).

    rows: [n_gen, K] float32; the first P columns are the prompt's, the others earlier tokens'.
    unit_index: [P] long, the unit of each prompt position, -1 for none.
    """
    import torch

    n_gen, n_prompt = rows.shape[0], unit_index.shape[0]
    index = torch.where(unit_index >= 0, unit_index, n_units).to(rows.device)
    # Summed in float64: a unit of many positions would add up float32's rounding with them.
    of_prompt = rows[:, :n_prompt].double()
    mass = of_prompt.new_zeros(n_gen, n_units + 1)
    with _in_order(rows):
        mass.index_add_(1, index, of_prompt)
    peak = rows.new_zeros(n_gen, n_units + 1)
    peak.scatter_reduce_(1, index.expand(n_gen, -1), rows[:, :n_prompt], reduce="amax")
    return Fold(
        mass=as_numpy(mass[:, :n_units]),
        peak=as_numpy(peak[:, :n_units]),
        markup=as_numpy(mass[:, n_units]),
        generated=as_numpy(rows[:, n_prompt:].double().sum(1)),
    )


@contextmanager
def _in_order(tensor: Tensor) -> Iterator[None]:
    """Additions in a fixed order, which a GPU does not promise by itself."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    if tensor.is_cuda:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _joined(parts: Sequence[Fold], n_units: int) -> Fold:
    """Folds of consecutive tokens as one."""
    nothing = np.zeros((0, n_units), np.float32)
    none = np.zeros(0, np.float32)
    empty = Fold(nothing, nothing, none, none)
    return Fold(
        *(
            np.concatenate([getattr(part, name) for part in (empty, *parts)])
            for name in ("mass", "peak", "markup", "generated")
        )
    )


def as_numpy(tensor: Tensor) -> Float32:
    """A float32 copy in C order on the CPU."""
    array: Float32 = tensor.float().cpu().contiguous().numpy()
    return array
