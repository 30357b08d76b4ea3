"""Units and part-of-speech tags for the tests of curation."""

from __future__ import annotations

from omnitrace_core.attribution.curation import POS_WEIGHTS
from omnitrace_core.records import Attribution, Modality, SourceUnit, UnitKind

KINDS: tuple[tuple[UnitKind, Modality], ...] = (
    ("sentence", "text"),
    ("option", "text"),
    ("instruction", "text"),
    ("image", "image"),
    ("audio_bin", "audio"),
    ("audio_chunk", "audio"),
    ("video_bin", "video"),
    ("sound_bin", "video"),
    ("sound_chunk", "video"),
)
TAGS = (*POS_WEIGHTS, "X", "INTJ", "SYM", "")


def make_units(*kinds: UnitKind) -> tuple[SourceUnit, ...]:
    modality = dict(KINDS)
    return tuple(SourceUnit(j, kind, modality[kind], 0) for j, kind in enumerate(kinds))


def names(attribution: Attribution) -> list[int]:
    return [source.unit.unit_id for source in attribution.sources]
