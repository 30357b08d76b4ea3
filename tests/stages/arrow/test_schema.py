from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from stages.arrow.state_schema import STATE, chunk_schema
from stages.arrow.table_schema import (
    CHUNK_FILE,
    HEATMAPS,
    RECORD,
    SAMPLES,
    SCHEMA_VERSION,
    SPANS,
    TABLES,
    TRACES,
)

# Columns that tools key on (the design's list of names that others rely on).
PROMISED = {
    "samples": "row_key sample_id status error_stage error_code message response",
    "spans": "sample_id span_index text outcome confidence sources",
}


@pytest.mark.parametrize("table", PROMISED)
def test_promised_columns_exist(table: str) -> None:
    assert set(PROMISED[table].split()) <= set(TABLES[table].names)


@pytest.mark.parametrize("table", TABLES)
def test_published_tables_carry_their_version(table: str) -> None:
    schema = TABLES[table]
    assert schema.names[-1] == "schema_version"
    assert schema.metadata == {
        b"omnitrace.table": table.encode(),
        b"omnitrace.schema_version": str(SCHEMA_VERSION).encode(),
    }


def test_a_source_is_in_coordinates_of_the_original() -> None:
    source = SPANS.field("sources").type.value_type
    wanted = "unit_id modality part_index text char_start char_end box start_s end_s transcript"
    assert set(wanted.split()) <= {field.name for field in source}
    assert {"mass", "share", "run", "score", "rank"} <= {field.name for field in source}
    assert source.field("box").type == pa.list_(pa.float32())
    assert source.field("unit_id").type == pa.int32()


def test_records_are_the_tables_nested() -> None:
    assert [field.name for field in RECORD.field("sample").type] == SAMPLES.names
    for table, schema in (("spans", SPANS), ("traces", TRACES), ("heatmaps", HEATMAPS)):
        assert [field.name for field in RECORD.field(table).type.value_type] == schema.names
    assert CHUNK_FILE.names == ["sample", "spans", "traces", "heatmaps"]


def test_pixels_may_exceed_two_gigabytes() -> None:
    decoded = STATE.field("media").type.value_type
    assert pa.types.is_large_binary(decoded.field("pixels").type)
    assert pa.types.is_large_binary(decoded.field("sound").type.field("waveform").type)


def test_rows_over_positions_may_exceed_two_billion_values() -> None:
    assert pa.types.is_large_list(STATE.field("trace").type["folds"].type.value_type["rows"].type)
    assert pa.types.is_large_list(TRACES.field("rows").type)


def test_chunk_is_one_row_with_its_expected_count() -> None:
    assert chunk_schema(STATE).names == [
        "chunk_key",
        "shard",
        "first_row",
        "n_rows",
        "rows",
        "samples",
    ]


def test_stages_import_neither_ray_nor_the_pipeline_nor_a_model() -> None:
    code = (
        "import importlib, pkgutil, sys, stages\n"
        "for module in pkgutil.iter_modules(stages.__path__):\n"
        "    importlib.import_module(f'stages.{module.name}')\n"
        "heavy = {'ray', 'pipeline', 'torch', 'transformers', 'spacy', 'decord', 'av'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
