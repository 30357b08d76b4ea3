"""Sources of `ingest` under any name: read, refused by name, or counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError, InputSchemaError
from omnitrace_core.printable import printable
from pipeline.cli import main
from pipeline.commands.ingest import ingest
from pipeline.commands.input_files import find_files
from tests.pipeline.commands.input_samples import ids, read
from tests.pipeline.storage.test_addresses import ODD_NAMES

_FILE_NAMES = [name for name in ODD_NAMES if "/" not in name]
_RECORD = '{"id": "%s", "question": [{"text": "Why?", "image": "a#?%%20::.png"}]}'


@pytest.mark.parametrize("name", _FILE_NAMES)
def test_sources_and_destinations_of_odd_names(name: str, tmp_path: Path) -> None:
    source, dest = tmp_path / "in" / name, tmp_path / "out" / name
    source.mkdir(parents=True)
    (source / f"{name}.jsonl").write_text(_RECORD % "right")
    (tmp_path / "in" / "a").mkdir(exist_ok=True)
    (tmp_path / "in" / "a" / "a.jsonl").write_text(_RECORD % "wrong")
    for number, path in enumerate((source, source / f"{name}.jsonl")):
        ingest(str(path), f"{dest}/{number}")
        assert ids(dest / str(number)) == ["right"]
        (row,) = read(dest / str(number))
        assert row["messages"][0]["content"][1]["uri"] == f"{source}/a#?%20::.png"


@pytest.mark.parametrize("name", ["a.JSON", "a.Jsonl", "a.PARQUET"])
def test_extensions_in_upper_case(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    if name.endswith("PARQUET"):
        (tmp_path / "a.json").write_text(_RECORD % "x")
        (shard,) = ingest(str(tmp_path / "a.json"), str(tmp_path / "first")).shards
        os.rename(shard, tmp_path / "in" / name)
    else:
        (tmp_path / "in" / name).write_text(_RECORD % "x")
    ingest(str(tmp_path / "in"), str(tmp_path / "out"))
    assert ids(tmp_path / "out") == ["x"]


def test_what_is_not_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "images").mkdir(parents=True)
    for name in ("a.json", ".b.json", "readme.md", "x.csv"):
        (tmp_path / "in" / name).write_text(_RECORD % name)
    assert main(["ingest", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    for said in (
        "1 hidden file, such as .b.json",
        "1 folder, such as images",
        "2 other files, such",
    ):
        assert f"does not read {said}" in out
    # A file that is named is read, also if it is hidden.
    assert find_files(str(tmp_path / "in" / ".b.json")).left_out == ()
    assert len(find_files(f"{tmp_path}/in/.*.json").files) == 1


def test_a_source_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.json")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(_RECORD % "x")
    with pytest.raises(InputSchemaError, match=r"a\\udcff\.json': its name is not UTF-8"):
        ingest(str(tmp_path / "in"), str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"a\\udcff\.json': is not valid UTF-8"):
        ingest(str(tmp_path / "in" / name), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "wrong", ["", " ", "s3:/b/x", "zip::/x", "a\0b", "x" * 300, os.fsdecode(b"\xff")]
)
@pytest.mark.parametrize("verb", ["ingest", "to", "media-root", "inspect", "curate", "curate to"])
def test_addresses_end_a_command_with_code_2(
    verb: str,
    wrong: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.json").write_text(_RECORD % "x")
    arguments = {
        "ingest": ["ingest", wrong, "out"],
        "to": ["ingest", "in.json", wrong],
        "media-root": ["ingest", "in.json", "out", f"--media-root={wrong}"],
        "inspect": ["inspect", wrong, "x"],
        "curate": ["curate", wrong, "out"],
        "curate to": ["curate", "none", wrong],
    }[verb]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert printable(message, lines=True) == message
    assert "Traceback" not in message
    assert os.listdir(tmp_path) == ["in.json"]


def test_the_input_is_not_replaced_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(_RECORD % "x")
    ingest(str(tmp_path / "in.json"), str(tmp_path / "corpus"))
    (tmp_path / "link").symlink_to(tmp_path / "corpus")
    with pytest.raises(ConfigError, match="holds the input"):
        ingest(str(tmp_path / "link"), str(tmp_path / "corpus"), overwrite=True)
    assert ids(tmp_path / "corpus") == ["x"]
