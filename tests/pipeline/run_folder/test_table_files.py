"""How published files are written: encodings, row groups, and tables that are not kept any more."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.driver.run import run
from pipeline.run_folder import table_files
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.table_files import TableWriter, content_bytes, parquet_options
from stages.arrow.table_schema import SAMPLES_ROW, SPANS_ROW, TABLES
from tests.pipeline.made_runs import GOOD_ROWS, Worker, config_for, planned_run, row_keys


@pytest.mark.parametrize("name", TABLES)
def test_masses_have_no_dictionary(name: str) -> None:
    schema = TABLES[name]
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file, **parquet_options(schema))
    written = pq.ParquetFile(file).schema
    columns = {written.column(i).path: written.column(i).physical_type for i in range(len(written))}
    assert {path for path, kind in columns.items() if kind != "FLOAT"} == set(
        parquet_options(schema)["use_dictionary"]
    )


def test_content_bytes_do_not_depend_on_the_memory_layout() -> None:
    """In slices, with or without null bitmaps, read from a file or built."""
    sample = {
        "row_key": "a:1",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}],
        "metadata": [("site", "x"), ("page", "12")],
        "options": None,
        "response_token_ids": [1, 2, 3],
    }
    span = {"text": "Here.", "sources": [{"unit_id": 1, "box": [0.0, 1.0, 2.0, 3.0]}]}
    for value, kind in ((sample, SAMPLES_ROW), (span, SPANS_ROW)):
        alone = pa.array([value], kind)
        among = pa.array([value, {}, None, value, value], kind)
        assert among[3:4].equals(alone)
        assert content_bytes(among[3:4]) == content_bytes(alone)
        for values in (alone, among, among[3:4]):
            batch = pa.record_batch({"rows": values})
            assert content_bytes(values) <= 8 * pa.ipc.get_record_batch_size(batch)
        file = io.BytesIO()
        pq.write_table(pa.table({"rows": among}), file)
        read = pq.read_table(file, use_threads=False).column("rows")
        assert content_bytes(read[3:4]) == content_bytes(alone)
        assert content_bytes(read) == content_bytes(among) > 3 * content_bytes(alone)


def test_row_groups_end_by_the_size_of_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = pa.schema([("text", pa.string())])
    chunks = [pa.table({"text": ["x" * 1000] * n}, schema=schema) for n in (1, 3, 1, 1, 5, 1, 1)]
    monkeypatch.setattr(table_files, "ROW_GROUP_BYTES", 5 * 1004)
    with TableWriter(tmp_path / "table.parquet", schema) as writer:
        for table in chunks:
            writer.add(table)
    metadata = pq.read_metadata(tmp_path / "table.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [5, 6, 2]


def test_tables_that_a_run_no_longer_keeps_are_deleted(folder: Path) -> None:
    def tables_after_run(**trace: object) -> dict[str, list[str]]:
        planned = planned_run(
            config_for(folder, run={"id": "nightly", "chunk_samples": 2}, trace=trace)
        )
        assert run(planned, Worker(planned.folder)).exit_code == 0
        assert row_keys(planned.folder, "spans") == sorted(GOOD_ROWS * 2)
        named = {
            name.partition("/")[0]
            for m in read_manifests(planned.folder).values()
            for name in m.files
        }
        found = {table: planned.folder.names(table) for table in TABLES}
        assert named == {table for table, names in found.items() if names}
        return found

    every = tables_after_run(heatmaps=True)
    assert [len(names) for names in every.values()] == [3, 3, 3, 3]
    assert tables_after_run(store="none")["traces"] == []
    assert tables_after_run(store="none")["heatmaps"] == []
    assert tables_after_run(enabled=False)["traces"] == []
    assert tables_after_run() == {**every, "heatmaps": []}
