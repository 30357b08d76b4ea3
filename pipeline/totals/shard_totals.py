"""Totals of a shard's records, stored in its manifest, and of all published shards of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.from_json import from_json
from stages.arrow.columns import combined

NO_SOURCE = "none"  # the modality of a span without sources

Counts = dict[str, int]
Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class Totals:
    """What the records of one or more shards add up to. Error rows count as far as they got.

    n_prompt_tokens, n_generated_tokens: of traced rows. model_s: generating and replaying, by the
    clock of each chunk. fetch_s, decode_s, speech_s, curate_s: the same columns of `timings` in
    samples/. spans_by_outcome: number of spans. spans_by_modality: by the modality of their first
    source; `none` has no source. sources_by_modality: sources of spans. media_by_type: decoded
    images, sounds and videos. media_s: seconds of sound and video that were decoded, by type.
    """

    n_prompt_tokens: int = 0
    n_generated_tokens: int = 0
    model_s: float = 0.0
    fetch_s: float = 0.0
    decode_s: float = 0.0
    speech_s: float = 0.0
    curate_s: float = 0.0
    spans_by_outcome: Counts = field(default_factory=dict)
    spans_by_modality: Counts = field(default_factory=dict)
    sources_by_modality: Counts = field(default_factory=dict)
    media_by_type: Counts = field(default_factory=dict)
    media_s: Seconds = field(default_factory=dict)


def totals_of(records: pa.Table) -> Totals:
    """The totals of records in the schema CHUNK_FILE."""
    samples = combined(records.column("sample"))
    spans = combined(records.column("spans")).flatten()
    timings = samples.field("timings")
    seconds = {
        name: _sum(pc.struct_field(timings, name))
        for name in ("fetch_s", "decode_s", "speech_s", "curate_s")
    }
    sources = spans.field("sources")
    media = samples.field("media").flatten()
    return Totals(
        n_prompt_tokens=int(_sum(samples.field("n_prompt_tokens"))),
        n_generated_tokens=int(_sum(samples.field("n_generated_tokens"))),
        model_s=_sum(pc.struct_field(timings, "trace_s")),
        **seconds,
        spans_by_outcome=_count(spans.field("outcome")),
        spans_by_modality=_count(_first_modalities(sources)),
        sources_by_modality=_count(sources.flatten().field("modality")),
        media_by_type=_count(media.field("type")),
        media_s=_media_seconds(media),
    )


def added(totals: Iterable[Totals]) -> Totals:
    """The sum, with the keys of each count sorted."""
    numbers: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {}
    for item in totals:
        for each in fields(Totals):
            value = getattr(item, each.name)
            if isinstance(value, dict):
                counts.setdefault(each.name, Counter()).update(value)
            else:
                numbers[each.name] += value
    sorted_counts = {name: dict(sorted(count.items())) for name, count in counts.items()}
    return Totals(**numbers, **sorted_counts)  # type: ignore[arg-type]


def totals_from_json(content: object) -> Totals | None:
    """Totals as `dataclasses.asdict` stores them; None if they are missing, or another version's.

    Raises:
        ValueError: one of them, or the whole, has a wrong type.
    """
    if content is None:
        return None
    if isinstance(content, Mapping) and content.keys() != {f.name for f in fields(Totals)}:
        return None
    return from_json(Totals, content)


def _sum(column: pa.Array) -> float:
    return float(pc.sum(column).as_py() or 0)


def _count(column: pa.Array) -> Counts:
    """How often each value occurs; null is left out."""
    found = pc.value_counts(column.drop_null()).to_pylist()
    return {str(item["values"]): int(item["counts"]) for item in found}


def _first_modalities(sources: pa.ListArray) -> pa.Array:
    """The modality of each span's first source, `none` where there is none."""
    lengths = pc.fill_null(pc.list_value_length(sources), 0).to_numpy(zero_copy_only=False)
    first = np.cumsum(lengths) - lengths
    modality = sources.flatten().field("modality")
    return modality.take(pa.array(first, mask=lengths == 0)).fill_null(NO_SOURCE)


def _media_seconds(media: pa.StructArray) -> Seconds:
    """Seconds of the chosen interval of each sound and video, by type."""
    lasting = media.filter(pc.is_in(media.field("type"), value_set=pa.array(["audio", "video"])))
    lengths_s = pc.subtract(lasting.field("end_s"), lasting.field("start_s"))
    table = pa.table({"type": lasting.field("type"), "s": pc.fill_null(lengths_s, 0.0)})
    found = table.group_by("type").aggregate([("s", "sum")]).to_pylist()
    return {str(row["type"]): float(row["s_sum"]) for row in found}
