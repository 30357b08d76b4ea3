"""The settings of a run behind the model, and what has to be done again when they change."""

from __future__ import annotations

from dataclasses import dataclass

from omnitrace_core.options import (
    AsrOptions,
    CurationOptions,
    MediaOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from stages.arrow.table_schema import HEATMAPS, SAMPLES, SPANS, TRACES
from stages.records.table_columns import kept_tables

# Columns of traces/ that are needed neither to curate stored folds nor to cut spans or units again.
_NOT_CURATED = {
    *("sample_id", "n_tokens", "n_units", "token_ids", "tokens", "char_starts", "char_ends"),
    *("logprobs", "peak", "schema_version"),
}
_OF_POSITIONS = {"n_positions", "rows", "prompt"}


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """The settings of a run that its records depend on after the model has run."""

    trace: TraceOptions
    units: UnitOptions
    spans: SpanOptions
    curation: CurationOptions
    asr: AsrOptions
    media: MediaOptions


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """The settings of a run (`old`), and those it is curated with again (`new`)."""

    old: CurationSettings
    new: CurationSettings

    @property
    def cuts_spans(self) -> bool:
        """Whether responses are cut into spans again; otherwise the stored spans are used."""
        return self.old.spans != self.new.spans

    @property
    def finds_speech(self) -> bool:
        """Whether speech is looked for again."""
        return bool(self.speech_settings)

    @property
    def speech_settings(self) -> tuple[str, ...]:
        """The changed settings because of which speech is looked for again."""
        if self.new.units.audio != "chunks":
            return ()
        if self.old.units.audio != "chunks":
            return ("units.audio",)
        old, new = self.old.asr, self.new.asr
        names = type(new).model_fields
        return tuple(f"asr.{name}" for name in names if getattr(old, name) != getattr(new, name))

    @property
    def cuts_units(self) -> bool:
        """Whether units are cut and folded again; that needs a run that stored positions."""
        same = {"instructions": "exclude"}  # it changes which units are sources, not the units
        old, new = (item.units.model_copy(update=same) for item in (self.old, self.new))
        # The pipeline that cuts responses into spans also cuts text parts into units.
        changed = old != new or self.old.spans.pipeline != self.new.spans.pipeline
        return self.old.trace.store == "positions" and (changed or self.finds_speech)

    @property
    def draws_heatmaps(self) -> bool:
        """Whether heat maps are drawn from stored positions."""
        return self.new.trace.heatmaps and self.old.trace.store == "positions"

    @property
    def copies_heatmaps(self) -> bool:
        """Whether stored heat maps are copied."""
        return self.new.trace.heatmaps and not self.draws_heatmaps

    @property
    def changes_traces(self) -> bool:
        """Whether the new run has traces/, with other content than the old one's."""
        old, new = self.old.trace, self.new.trace
        other = (old.signals, old.store) != (new.signals, new.store)
        return "traces" in kept_tables(new) and (other or self.cuts_spans or self.cuts_units)

    def columns(self, *, traces: bool) -> dict[str, list[str]]:
        """The columns to read, by table. traces: whether traces/ is written again."""
        columns = {"samples": SAMPLES.names}
        if not self.cuts_spans:
            columns["spans"] = SPANS.names
        if self.copies_heatmaps:
            columns["heatmaps"] = HEATMAPS.names
        left_out: set[str] = set()
        if not (traces or self.cuts_spans or self.cuts_units):
            left_out |= _NOT_CURATED
        keeps_positions = traces and self.new.trace.store == "positions"
        if not (self.cuts_units or self.draws_heatmaps or keeps_positions):
            left_out |= _OF_POSITIONS  # by far the largest columns of a run
        if self.new.trace.projection == "peak":
            left_out -= {"peak"}
        columns["traces"] = [name for name in TRACES.names if name not in left_out]
        return columns
