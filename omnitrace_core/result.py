"""The result of tracing one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnitrace_core.errors import ConfigError
from omnitrace_core.positions import Positions
from omnitrace_core.records import (
    Attribution,
    Float32,
    Fold,
    Sample,
    Segmentation,
    SourceUnit,
    TokenTrace,
)

if TYPE_CHECKING:
    from omnitrace_core.attribution.heatmaps import HeatMap


@dataclass(frozen=True, slots=True, repr=False)
class TraceResult:
    """One traced sample; `print` shows it on one screen, a notebook as spans that open.

    units: the source units, in `unit_id` order. trace: what the model did, token by token.
    segmentation: the response cut into spans. spans: each span with its curated sources; empty
    without tracing (`TraceOptions(enabled=False)`).
    """

    sample: Sample
    units: tuple[SourceUnit, ...]
    trace: TokenTrace
    segmentation: Segmentation
    spans: tuple[Attribution, ...]

    @property
    def response(self) -> str:
        """The generated or replayed response."""
        return self.trace.response

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Token ids of the response, [n_gen], without the end token."""
        return self.trace.token_ids

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text of each response token, [n_gen]; joined, they are the response."""
        return self.trace.tokens

    @property
    def logprobs(self) -> Float32:
        """Log probability of each response token, [n_gen] float32."""
        return self.trace.logprobs

    @property
    def folds(self) -> Mapping[str, Fold]:
        """By signal: its masses and peaks per source unit, [n_gen, n_units] float32."""
        return self.trace.folds

    @property
    def positions(self) -> Positions | None:
        """The rows over prompt positions, if `TraceOptions(store="positions")` kept them."""
        return self.trace.positions

    def heatmaps(self, signal: str | None = None) -> tuple[HeatMap, ...]:
        """How much each patch of each image, and of each step of a video, supports each span.

        signal: the first traced one by default.

        Raises:
            ConfigError: the rows over prompt positions were not kept, or this signal was not
                traced.
        """
        from omnitrace_core.attribution.heatmaps import span_heatmaps

        if self.positions is None:
            raise ConfigError(
                "heat maps need the rows over prompt positions; trace with "
                'TraceOptions(store="positions")'
            )
        rows = self.positions.rows
        name = signal if signal is not None else next(iter(rows))
        if name not in rows:
            raise ConfigError(f"signal {name!r} was not traced; traced: {sorted(rows)}")
        return span_heatmaps(rows[name], self.positions.prompt, self.segmentation)

    def __repr__(self) -> str:
        from omnitrace_core.display import result_line

        return result_line(self)

    def __str__(self) -> str:
        from omnitrace_core.display import result_text

        return result_text(self)

    def _repr_html_(self) -> str:
        from omnitrace_core.display import result_html

        return result_html(self)
