"""Publishing: the parts of a shard become its files in the three tables, then its manifest.

Every step can be done again. The order makes a crash at any point harmless: the manifest comes
after the files it speaks of, and the parts go after the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commit import PARTS, part_name, read_part
from pipeline.io import PARTIAL, Storage
from pipeline.manifest import MANIFESTS, Manifest, manifest_name, write_manifest
from pipeline.plan import Plan, Shard, shard_label
from stages.schema import SCHEMA_VERSION, TABLES

_ROW_GROUP_BYTES = 64 * 1024**2


def publish_shard(folder: Storage, plan: Plan, shard: Shard, *, traces: bool) -> Manifest:
    """Publish a shard whose chunks all have parts; returns its manifest.

    traces: whether this run keeps traces/. Memory: one part and one row group of each table.

    Raises:
        RunError: a part does not hold its chunk's rows.
    """
    chunks = list(plan.chunks(shard))
    names = [name for name in TABLES if traces or name != "traces"]
    counts: Counter[tuple[str, str]] = Counter()
    with ExitStack() as stack:
        writers = {}
        # Opened in reverse: what an ExitStack holds appears last-in first-out, samples/ first.
        for name in reversed(names):
            path = stack.enter_context(folder.writing(table_name(name, shard.number)))
            writers[name] = stack.enter_context(_TableWriter(path, TABLES[name]))
        for chunk in chunks:
            part = read_part(folder, chunk)
            for name, table in split_part(part).items():
                if name in writers:
                    writers[name].add(table)
            counts.update(_count_errors(part))
    if not traces:
        folder.delete(table_name("traces", shard.number))
    n_rows = {name: writers[name].n_rows for name in names}
    keys = [chunk.key for chunk in chunks]
    manifest = _manifest(plan, shard, keys, counts, n_rows)
    write_manifest(folder, manifest)
    for chunk in chunks:
        folder.delete(part_name(chunk.key))
    return manifest


def _manifest(
    plan: Plan,
    shard: Shard,
    chunk_keys: list[str],
    counts: Counter[tuple[str, str]],
    n_rows: dict[str, int],
) -> Manifest:
    by_code: Counter[str] = Counter()
    by_stage: Counter[str] = Counter()
    for (stage, code), count in counts.items():
        by_code[code] += count
        by_stage[stage] += count
    return Manifest(
        number=shard.number,
        shard=shard.name,
        uri=shard.uri,
        identity=shard.identity,
        key=shard.key,
        fingerprint=plan.fingerprint,
        n_rows=n_rows["samples"],
        n_ok=n_rows["samples"] - by_code.total(),
        n_error=by_code.total(),
        n_spans=n_rows["spans"],
        by_code=dict(by_code),
        by_stage=dict(by_stage),
        chunk_keys=chunk_keys,
        files={table_name(name, shard.number): count for name, count in n_rows.items()},
        schema_version=SCHEMA_VERSION,
    )


def table_name(table: str, number: int) -> str:
    """Name of a published file within the run's folder."""
    return f"{table}/{shard_label(number)}.parquet"


def split_part(part: pa.Table) -> dict[str, pa.Table]:
    """A part's nested rows as rows of the three tables."""
    nested = {
        "samples": part.column("sample").combine_chunks(),
        "spans": part.column("spans").combine_chunks().flatten(),
        "traces": part.column("traces").combine_chunks().flatten(),
    }
    return {
        name: pa.Table.from_struct_array(rows).cast(TABLES[name]) for name, rows in nested.items()
    }


def _count_errors(part: pa.Table) -> Counter[tuple[str, str]]:
    """Error rows of a part by stage and code."""
    sample = part.column("sample").combine_chunks()
    columns = [sample.field(name).to_pylist() for name in ("status", "error_stage", "error_code")]
    return Counter(
        (stage, code) for status, stage, code in zip(*columns, strict=True) if status == "error"
    )


class _TableWriter:
    """A Parquet file whose row groups are large enough to be read fast, whatever a part's size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self.n_rows = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.n_rows += len(table)
        if sum(waiting.nbytes for waiting in self._waiting) >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting).unify_dictionaries()
        self._file.write_table(table, row_group_size=max(len(table), 1))
        self._waiting = []

    def __enter__(self) -> _TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._file.close()


# --- what is no longer part of the run ---------------------------------------------------------


def retire(folder: Storage, manifests: dict[str, Manifest], plan: Plan) -> list[str]:
    """Delete what was published for shards that left the input, and leftovers of crashed writes.

    So a plain glob over a table sees each span of the present input once. Returns the names of the
    shards that are gone.
    """
    present = {shard.name for shard in plan.shards}
    gone = [manifest for name, manifest in manifests.items() if name not in present]
    for manifest in gone:
        for table in TABLES:
            folder.delete(table_name(table, manifest.number))
        folder.delete(manifest_name(manifest.number))
    final = {shard_label(item.number) for name, item in manifests.items() if name in present}
    for name in _orphans(folder, final):
        folder.delete(name)
    return [manifest.shard for manifest in gone]


def _orphans(folder: Storage, final: set[str]) -> Iterator[str]:
    """Published files without a manifest, and temporary files that a killed writer left."""
    for table in TABLES:
        for name in folder.names(table):
            if name.endswith(PARTIAL) or name.removesuffix(".parquet") not in final:
                yield f"{table}/{name}"
    for place in (PARTS, MANIFESTS):
        for name in folder.names(place, suffix=PARTIAL):
            yield f"{place}/{name}"
