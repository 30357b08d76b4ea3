"""Sources of `ingest` under any name: read, refused by name, or counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError, InputSchemaError, NodeFault
from omnitrace_core.printable import printable
from pipeline.cli import main
from pipeline.commands.ingest import ingest
from pipeline.commands.input_files import find_files
from pipeline.planning.input_shards import list_input
from tests.lost_mount import lost_mount
from tests.pipeline.commands.input_samples import ids, read
from tests.pipeline.made_runs import write_input
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
        "1 hidden file (a name begins with _ or .), such as .b.json",
        "1 folder, such as images",
        "2 other files, such",
    ):
        assert f"does not read {said}" in out


_TREE = (
    "a.jsonl",
    "_u.jsonl",
    ".h.jsonl",
    "sub/b.jsonl",
    "_tmp/c.jsonl",
    ".git/d.jsonl",
    "_tmp/_e.jsonl",
)


@pytest.mark.parametrize("root", ["in", "_in", "[in]", ".in/_x"])
@pytest.mark.parametrize(
    ("source", "read_names", "n_hidden"),
    [
        ("", {"a.jsonl"}, 2),
        ("/*", {"a.jsonl"}, 2),
        ("/*.jsonl", {"a.jsonl"}, 2),
        ("/?*.jsonl", {"a.jsonl"}, 2),
        ("/[._a]*.jsonl", {"a.jsonl"}, 2),
        ("/_*.jsonl", {"_u.jsonl"}, 0),
        ("/.*", {".h.jsonl"}, 0),
        ("/_u.jsonl", {"_u.jsonl"}, 0),
        ("/.h.jsonl", {".h.jsonl"}, 0),
        ("/_tmp", {"_tmp/c.jsonl"}, 1),
        ("/_tmp/*", {"_tmp/c.jsonl"}, 1),
        ("/_*/*.jsonl", {"_tmp/c.jsonl"}, 1),
        ("/*/_*.jsonl", set(), 1),
        ("/_*/_*.jsonl", {"_tmp/_e.jsonl"}, 0),
        ("/*/*.jsonl", {"sub/b.jsonl"}, 3),
        ("/**/*.jsonl", {"a.jsonl", "sub/b.jsonl"}, 5),
        ("/**", {"a.jsonl", "sub/b.jsonl"}, 5),
    ],
)
def test_hidden_files_are_read_only_if_they_are_named(
    root: str, source: str, read_names: set[str], n_hidden: int, tmp_path: Path
) -> None:
    folder = tmp_path / root
    for name in _TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(_RECORD % name)
    # As shells and fsspec do, for a folder whose own name holds wildcards.
    start = str(folder).replace("[", "[[]") if "*" in source else str(folder)
    if not read_names:
        with pytest.raises(InputSchemaError, match=r"only 1 hidden file \(a name .*_tmp/_e\.jsonl"):
            find_files(f"{start}{source}")
        return
    found = find_files(f"{start}{source}")
    assert {os.path.relpath(file.path, folder) for file in found.files} == read_names
    hidden = [text for text in found.left_out if "hidden" in text]
    assert [int(text.split()[0]) for text in hidden] == [n_hidden] * bool(n_hidden)


@pytest.mark.parametrize("source", ["", "/*", "/*.parquet"])
def test_run_and_ingest_leave_out_the_same_names(source: str, tmp_path: Path) -> None:
    write_input(tmp_path / "in", a=["1"], _u=["2"], **{".h": ["3"]})
    listing = list_input(str(tmp_path / "in"))
    found = find_files(f"{tmp_path}/in{source}")
    assert {os.path.basename(file.path) for file in found.files} == set(listing.shards)
    for said in (found.left_out, listing.left_out):
        assert len(said) == 1
        assert said[0].startswith("2 hidden ")
        assert "(a name begins with _ or .), such as .h.parquet" in said[0]


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


def test_lost_mount_blames_no_source(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(_RECORD % "x")
    (file,) = find_files(str(source)).files
    with lost_mount(tmp_path):
        with pytest.raises(NodeFault, match="does not answer on this machine"):
            list(file.records())
        for path in (source, tmp_path):
            with pytest.raises(NodeFault, match="does not answer on this machine"):
                find_files(str(path))
