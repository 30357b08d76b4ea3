"""How published files are written: encodings, row groups, and tables that come and go."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.driver.run import run
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.tables import _content_bytes, _TableWriter, encoding
from stages.arrow.schema import SAMPLES_ROW, SPANS_ROW, TABLES
from tests.pipeline.made_runs import GOOD_ROWS, Worker, config_for, job_for, row_keys


@pytest.mark.parametrize("name", TABLES)
def test_masses_have_no_dictionary(name: str) -> None:
    schema = TABLES[name]
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file, **encoding(schema))
    written = pq.ParquetFile(file).schema
    columns = {written.column(i).path: written.column(i).physical_type for i in range(len(written))}
    assert {path for path, kind in columns.items() if kind != "FLOAT"} == set(
        encoding(schema)["use_dictionary"]
    )


def test_size_of_rows_is_that_of_their_content() -> None:
    """However they lie in memory: in slices, with or without bitmaps, read or made."""
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
        assert _content_bytes(among[3:4]) == _content_bytes(alone)
        for values in (alone, among, among[3:4]):
            batch = pa.record_batch({"rows": values})
            assert _content_bytes(values) <= 8 * pa.ipc.get_record_batch_size(batch)
        file = io.BytesIO()
        pq.write_table(pa.table({"rows": among}), file)
        read = pq.read_table(file, use_threads=False).column("rows")
        assert _content_bytes(read[3:4]) == _content_bytes(alone)
        assert _content_bytes(read) == _content_bytes(among) > 3 * _content_bytes(alone)


def test_row_groups_end_where_their_content_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = pa.schema([("text", pa.string())])
    tables = [pa.table({"text": ["x" * 1000] * n}, schema=schema) for n in (1, 3, 1, 1, 5, 1, 1)]
    monkeypatch.setattr("pipeline.run_folder.tables._ROW_GROUP_BYTES", 5 * 1004)
    with _TableWriter(tmp_path / "table.parquet", schema) as writer:
        for table in tables:
            writer.add(table)
    metadata = pq.read_metadata(tmp_path / "table.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [5, 6, 2]


def test_tables_that_a_run_no_longer_keeps_go(folder: Path) -> None:
    def again(**trace: object) -> dict[str, list[str]]:
        job = job_for(config_for(folder, run={"id": "nightly", "chunk_samples": 2}, trace=trace))
        assert run(job, Worker(job.folder)).exit_code == 0
        assert row_keys(job.folder, "spans") == sorted(GOOD_ROWS * 2)
        told = {
            name.partition("/")[0] for m in read_manifests(job.folder).values() for name in m.files
        }
        found = {table: job.folder.names(table) for table in TABLES}
        assert told == {table for table, names in found.items() if names}
        return found

    every = again(heatmaps=True)
    assert [len(names) for names in every.values()] == [3, 3, 3, 3]
    assert again(store="none")["traces"] == []
    assert again(store="none")["heatmaps"] == []
    assert again(enabled=False)["traces"] == []
    assert again() == {**every, "heatmaps": []}
