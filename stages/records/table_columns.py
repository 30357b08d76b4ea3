"""Build the columns `spans`, `traces` and `heatmaps` of RECORD from a chunk's curation.

They are built for all samples at once. Each row of a table has an owner, the index of its sample.
Values that a row repeats of its sample, units or trace are copied within Arrow, not in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.attribution.curation import BUCKETS, CurationResult
from omnitrace_core.attribution.heatmaps import HeatMap, pack
from omnitrace_core.attribution.votes import ChosenSources
from omnitrace_core.options import TraceOptions
from stages.arrow.columns import Columns, IntArray, list_array, offsets, owners, struct_array, take
from stages.arrow.state_schema import UNIT
from stages.arrow.table_schema import (
    HEATMAPS_ROW,
    MASS_BUCKETS,
    SCHEMA_VERSION,
    SOURCE,
    SPANS_ROW,
    TRACES_ROW,
)
from stages.records.curator import ChunkCuration, CuratedSample


def kept_tables(trace: TraceOptions) -> tuple[str, ...]:
    """The names of the tables that a run with these settings publishes."""
    tables = ["samples", "spans"]
    if trace.enabled and trace.store != "none":
        tables.append("traces")
    if trace.enabled and trace.heatmaps:
        tables.append("heatmaps")
    return tuple(tables)


def record_columns(
    rows: pa.StructArray, curation: ChunkCuration, trace: TraceOptions
) -> dict[str, pa.ListArray]:
    """The columns of RECORD beside `sample`, a list for each STATE row.

    Only curated samples have rows in these tables.
    """
    curated = curation.curated
    traced = curated if "traces" in kept_tables(trace) else {}
    return {
        "spans": _span_column(rows, curated, curation.spans, trace.signals[0]),
        "traces": _trace_column(rows, traced, trace),
        "heatmaps": _heatmap_column(rows, curated, trace.signals[0]),
    }


def _span_column(
    rows: pa.StructArray,
    samples: Mapping[int, CuratedSample],
    curation: CurationResult,
    signal: str,
) -> pa.ListArray:
    counts = {i: len(item.segmentation.spans) for i, item in samples.items()}
    owner = owners(counts)
    spans = list(chain.from_iterable(item.segmentation.spans for item in samples.values()))
    columns: Columns = {
        **_identity(rows, owner),
        "span_index": [span.index for span in spans],
        "text": [span.text for span in spans],
        "char_start": [span.char_start for span in spans],
        "char_end": [span.char_end for span in spans],
        "token_start": [span.token_start for span in spans],
        "token_end": [span.token_end for span in spans],
        "outcome": np.where(curation.supported, "supported", "unsupported").tolist(),
        "confidence": curation.confidence,
        **{f"mass_{name}": _mass(curation, name) for name in MASS_BUCKETS},
        "signal": [signal] * len(spans),
        "sources": _source_column(rows.field("units"), owner, curation.chosen),
    }
    return list_array(counts, len(rows), struct_array(SPANS_ROW, columns, len(spans)))


def _mass(curation: CurationResult, bucket: str) -> pa.Array:
    """The mass of each span in a bucket; null where it is unknown (NaN)."""
    return pa.array(curation.masses[:, BUCKETS.index(bucket)], from_pandas=True).cast(pa.float32())


def _source_column(units: pa.ListArray, owner: IntArray, chosen: ChosenSources) -> pa.ListArray:
    """The sources of each span as SOURCE structs; `owner` is the sample of each span."""
    n_sources = chosen.n_sources
    first = units.offsets.to_numpy()[np.repeat(owner, n_sources)]
    unit = units.values.take(pa.array(first + chosen.unit))
    begin = np.cumsum(n_sources) - n_sources
    columns: Columns = {
        **{field.name: unit.field(field.name) for field in UNIT},
        "mass": chosen.mass,
        "share": chosen.share,
        "run": chosen.run,
        "score": chosen.score,
        "rank": np.arange(1, len(chosen.unit) + 1) - np.repeat(begin, n_sources),
    }
    source = struct_array(SOURCE, columns, len(chosen.unit))
    return pa.ListArray.from_arrays(offsets(n_sources), source)


def _trace_column(
    rows: pa.StructArray, samples: Mapping[int, CuratedSample], trace: TraceOptions
) -> pa.ListArray:
    """A row for each traced signal of each sample, in the order of `trace.signals`."""
    counts = {i: len(trace.signals) for i in samples}
    owner, sample = owners(counts), np.fromiter(samples, np.int64)
    stored = rows.field("trace")
    fold = folds_of(stored.field("folds"), sample, trace.signals)
    within = np.repeat(np.arange(len(sample)), len(trace.signals))
    tags = pa.array([item.segmentation.pos for item in samples.values()], pa.list_(pa.string()))
    notes = pa.array([item.segmentation.notes for item in samples.values()], tags.type)
    shared = ("token_ids", "tokens", "char_starts", "char_ends", "logprobs")
    per_fold = ("signal", "mass", "peak", "markup", "uncovered", "generated")
    columns: dict[str, object] = {
        **_identity(rows, owner),
        **{name: take(stored.field(name), owner) for name in shared},
        **{name: fold.field(name) for name in per_fold},
        "n_tokens": take(pc.list_value_length(stored.field("token_ids")), owner),
        "n_units": take(pc.list_value_length(rows.field("units")), owner),
        "pos": take(tags, within),
        "notes": take(notes, within),
    }
    if trace.store == "positions":
        prompt = take(stored.field("prompt"), owner)
        n_positions = pc.list_value_length(pc.struct_field(prompt, "stream"))
        columns |= {"rows": fold.field("rows"), "prompt": prompt, "n_positions": n_positions}
    return list_array(counts, len(rows), struct_array(TRACES_ROW, columns, len(owner)))


def folds_of(folds: pa.ListArray, sample: IntArray, signals: Sequence[str]) -> pa.StructArray:
    """The FOLD structs of these samples (by index), for each sample in the order of `signals`."""
    bounds = folds.offsets.to_pylist()
    names = folds.values.field("signal").to_pylist()
    indices = [names.index(name, bounds[i], bounds[i + 1]) for i in sample for name in signals]
    return take(folds.values, np.array(indices, np.int64))


def _heatmap_column(
    rows: pa.StructArray, samples: Mapping[int, CuratedSample], signal: str
) -> pa.ListArray:
    counts = {i: len(item.heatmaps) for i, item in samples.items()}
    maps: list[HeatMap] = list(chain.from_iterable(item.heatmaps for item in samples.values()))
    packed = [pack(item.values) for item in maps]
    columns: Columns = {
        **_identity(rows, owners(counts)),
        "span_index": [item.span_index for item in maps],
        "signal": [signal] * len(maps),
        "part_index": [item.part_index for item in maps],
        "modality": [item.modality for item in maps],
        "step": [item.step for item in maps],
        "start_s": [item.start_s for item in maps],
        "end_s": [item.end_s for item in maps],
        "width": [item.width for item in maps],
        "height": [item.height for item in maps],
        "n_rows": [item.values.shape[0] for item in maps],
        "n_columns": [item.values.shape[1] for item in maps],
        "scale": [scale for _, scale in packed],
        "patches": [patches for patches, _ in packed],
    }
    return list_array(counts, len(rows), struct_array(HEATMAPS_ROW, columns, len(maps)))


def _identity(rows: pa.StructArray, owner: IntArray) -> Columns:
    return {
        "sample_id": take(rows.field("sample").field("sample_id"), owner),
        "row_key": take(rows.field("row_key"), owner),
        "schema_version": pa.repeat(pa.scalar(SCHEMA_VERSION, pa.int32()), len(owner)),
    }
