from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import InputSchemaError
from pipeline.commands.ingest import ingest
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.run_folder.verdict import exit_code_of
from stages.arrow.input_columns import cast_to_sample_structs, schema_problems
from stages.arrow.sample_schema import SAMPLE
from tests.stages.chunks import text_row

_TABLE = pa.Table.from_pylist([text_row("a", response="It is red.")], schema=SAMPLE)


def _with_column(name: str, like: str) -> pa.Table:
    """The table with one more column of this name, a copy of another."""
    return pa.Table.from_arrays([*_TABLE.columns, _TABLE[like]], names=[*_TABLE.column_names, name])


@pytest.mark.parametrize("name", SAMPLE.names)
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(_with_column(name, name), path)
    message = rf"a\.parquet.*column {name} is there 2 times; keep one of them"
    with pytest.raises(InputSchemaError, match=message) as caught:
        scan_input(list_input(str(path.parent)))
    assert exit_code_of(caught.value) == 2
    with pytest.raises(InputSchemaError, match=message):
        ingest(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["Messages", "MESSAGES", " messages", "Response", "Options"])
@pytest.mark.parametrize("beside", [True, False])
def test_names_that_differ_in_case_only(name: str, beside: bool, tmp_path: Path) -> None:
    plain = name.strip().lower()
    if beside:
        table = _with_column(name, plain)
    else:
        table = _TABLE.rename_columns([name if n == plain else n for n in _TABLE.column_names])
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(
        InputSchemaError, match=rf"a\.parquet.*column '{name}' is not {plain}: names are in lower"
    ):
        scan_input(list_input(str(tmp_path / "in")))
    if not beside:
        with pytest.raises(InputSchemaError, match=rf"column '{name}' is not {plain}"):
            ingest(str(tmp_path / "in"), str(tmp_path / "out"))


def test_columns_of_other_names_are_not_looked_at(tmp_path: Path) -> None:
    table = _with_column("topic", "sample_id").append_column("topic", _TABLE["response"])
    pq.write_table(table, tmp_path / "a.parquet")
    (scan,) = scan_input(list_input(str(tmp_path)))
    assert scan.n_rows == 1
    # `ingest` keeps all columns, so that it cannot leave one of them out.
    with pytest.raises(InputSchemaError, match="column topic is there 2 times"):
        ingest(str(tmp_path / "a.parquet"), str(tmp_path / "out"))


def test_two_fields_of_one_name_are_refused() -> None:
    part = pa.struct([("type", pa.string()), ("text", pa.string()), ("text", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    schema = pa.schema([("sample_id", pa.string()), ("messages", pa.list_(message))])
    assert schema_problems(schema) == ["messages.content.text is there twice"]


def test_shards_of_older_versions_lack_the_later_options() -> None:
    options = {"audio_start": 1.0, "audio_end": None}
    part = {"type": "audio", "uri": "a.wav", "options": options}
    row = {"sample_id": "a", "messages": [{"role": "user", "content": [part]}]}
    table = pa.Table.from_pylist([row])
    assert schema_problems(table.schema) == []
    samples, misfits = cast_to_sample_structs(table)
    assert not misfits
    (found,) = samples[0]["messages"][0]["content"].as_py()
    assert (found["options"]["audio_start"], found["options"]["audio_track"]) == (1.0, None)
