"""Fold signal rows over positions into mass and peak per source unit (paper, Algorithm 1, line 7).

Symbols: n_gen response tokens of one sample, P padded prompt positions, K cache slots.
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

    from omnitrace_core.backends.base import EncodedSample
    from omnitrace_core.tracing.replay.decoder_replay import ReplaySlice


class SampleFolds:
    """Collects one sample's folds while its response is replayed slice by slice.

    unit_index: [P] long, the unit of each prompt position, -1 for none. n_gen: response tokens.
    """

    def __init__(
        self, encoded: EncodedSample, unit_index: Tensor, n_gen: int, options: TraceOptions
    ) -> None:
        self._encoded = encoded
        self._unit_index = unit_index
        self._is_media = media_positions(encoded, len(unit_index))
        self._n_units = len(encoded.ready.units)
        self._n_gen = n_gen
        self._keeps_positions = options.keeps_positions
        self._folds: dict[str, list[Fold]] = {name: [] for name in options.signals}
        self._rows: dict[str, list[Float32]] = {name: [] for name in options.signals}
        self._logprobs: list[Float32] = []

    def add(self, replayed: ReplaySlice, index: int) -> None:
        """Fold the next slice. index: of this sample in the batch."""
        n_left = self._n_gen - replayed.start
        if n_left <= 0:
            return
        self._logprobs.append(as_numpy(replayed.logprobs[index, :n_left]))
        n_prompt = len(self._unit_index)
        for name, batch_rows in replayed.rows.items():
            rows = batch_rows[index, :n_left]
            fold = fold_rows(rows, self._unit_index, self._n_units, self._is_media)
            self._folds[name].append(fold)
            if self._keeps_positions:
                over_prompt = rows[:, n_prompt - self._encoded.n_prompt : n_prompt]
                self._rows[name].append(as_numpy(over_prompt))

    def folds(self) -> dict[str, Fold]:
        """The folds of the whole response, by signal."""
        return {name: _joined(folds, self._n_units) for name, folds in self._folds.items()}

    def logprobs(self) -> Float32:
        """Log probabilities of the response tokens, [n_gen] float32."""
        return np.concatenate([np.zeros(0, np.float32), *self._logprobs])

    def positions(self) -> Positions | None:
        """The rows over the prompt without padding; None unless `trace.store` keeps positions."""
        if not self._keeps_positions:
            return None
        empty = np.zeros((0, self._encoded.n_prompt), np.float32)
        rows = {name: np.concatenate([empty, *slices]) for name, slices in self._rows.items()}
        return Positions(self._encoded.prompt, rows)


def media_positions(encoded: EncodedSample, n_prompt: int) -> Tensor:
    """[n_prompt] bool, whether each position of the left-padded prompt is one of media."""
    import torch

    is_media = torch.from_numpy(encoded.prompt.is_media)
    return torch.cat([is_media.new_zeros(n_prompt - len(is_media)), is_media])


def fold_rows(
    rows: Tensor, unit_index: Tensor, n_units: int, is_media: Tensor | None = None
) -> Fold:
    """Fold the rows of one sample into its units (paper, Algorithm 1, line 7).

    rows: [n_gen, K] float32; the first P columns are prompt positions, the others earlier response
    tokens. unit_index: [P] long, the unit of each prompt position, -1 for none. is_media: [P] bool;
    None: all positions of no unit are counted as markup.
    """
    import torch

    n_gen, n_prompt = rows.shape[0], unit_index.shape[0]
    # Two columns behind the units: markup, and media positions of no unit.
    no_unit = n_units if is_media is None else n_units + is_media.long()
    index = torch.where(unit_index >= 0, unit_index, no_unit).to(rows.device)
    # Summed in float64: over many positions the rounding of float32 would add up.
    over_prompt = rows[:, :n_prompt].double()
    mass = over_prompt.new_zeros(n_gen, n_units + 2)
    with _deterministic(rows):
        mass.index_add_(1, index, over_prompt)
    peak = rows.new_zeros(n_gen, n_units + 2)
    peak.scatter_reduce_(1, index.expand(n_gen, -1), rows[:, :n_prompt], reduce="amax")
    return Fold(
        mass=as_numpy(mass[:, :n_units]),
        peak=as_numpy(peak[:, :n_units]),
        markup=as_numpy(mass[:, n_units]),
        generated=as_numpy(rows[:, n_prompt:].double().sum(1)),
        uncovered=as_numpy(mass[:, n_units + 1]),
    )


@contextmanager
def _deterministic(tensor: Tensor) -> Iterator[None]:
    """Inside, sums are added in a fixed order; a GPU does not guarantee that by default."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    if tensor.is_cuda:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _joined(folds: Sequence[Fold], n_units: int) -> Fold:
    """One fold from the folds of consecutive tokens."""
    no_rows = np.zeros((0, n_units), np.float32)
    no_values = np.zeros(0, np.float32)
    empty = Fold(no_rows, no_rows, no_values, no_values)
    return Fold(
        *(
            np.concatenate([getattr(fold, name) for fold in (empty, *folds)])
            for name in ("mass", "peak", "markup", "generated", "uncovered")
        )
    )


def as_numpy(tensor: Tensor) -> Float32:
    """A float32 copy in C order on the CPU."""
    array: Float32 = tensor.float().cpu().contiguous().numpy()
    return array
