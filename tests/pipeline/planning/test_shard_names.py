"""Shards are read under any name, refused by name, or counted; none is ignored in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omnitrace_core.errors import InputSchemaError
from pipeline.commands.inspect import inspect_sample
from pipeline.commands.summary import plan_text
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import Worker, config_for, planned_run, row_keys
from tests.pipeline.storage.test_addresses import ODD_KEYS, ODD_NAMES
from tests.stages.chunks import text_row, write_shard

# One of them stands in folders only: a file's name holds no slash.
_FILE_NAMES = [name for name in ODD_NAMES if "/" not in name] + ["a\nb", "\x1b[2J", "x" * 240]


def _write_shards(folder: Path) -> list[str]:
    """A shard of one row per odd name, a nested one, and one in upper case; their names."""
    names = [f"{name}.parquet" for name in _FILE_NAMES]
    names += [
        "[a]*/b::c/d#?.parquet",
        "upper.PARQUET",
        "mixed.Parquet",
        "spark.parquet/part-0.parquet",
    ]
    for number, name in enumerate(names):
        write_shard(folder / name, [text_row(f"s{number}")])
    return sorted(names)


def test_a_run_of_odd_names(tmp_path: Path) -> None:
    names = _write_shards(tmp_path / "in::put #?%20 [a]*")
    output = str(tmp_path / "out::put #?%20 [a]*")
    config = config_for(
        tmp_path,
        input={"path": str(tmp_path / "in::put #?%20 [a]*")},
        output={"path": output},
    )
    planned = planned_run(config)
    assert [shard.name for shard in planned.plan.shards] == names
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert row_keys(planned.folder) == sorted(f"{name}:0" for name in names)
    assert os.listdir(output)
    shown = inspect_sample(output, f"s{len(names) - 1}")
    assert any("ok" in str(block) for block in shown)


@pytest.mark.parametrize("name", [f"{name}.parquet" for name in _FILE_NAMES] + [".a", "_a.parquet"])
def test_a_single_shard_of_an_odd_name(name: str, tmp_path: Path) -> None:
    write_shard(tmp_path / name, [text_row("a")])
    write_shard(tmp_path / "other" / "a.parquet", [text_row("b"), text_row("c")])
    (scan,) = scan_input(list_input(f"{tmp_path}/{name}"))
    assert (scan.name, scan.n_rows) == (name, 1)


def test_shards_of_odd_names_on_s3(s3_folder: str, tmp_path: Path) -> None:
    folder = Folder(f"{s3_folder}/in put #?%20::[a]*")
    content = write_shard(tmp_path / "a.parquet", [text_row("a")]).read_bytes()
    names = [f"{name}.parquet" for name in ODD_KEYS]
    names += ["a.PARQUET", "_hidden/a.parquet", "readme.md"]
    for name in names:
        folder.write(name, content)
    listing = list_input(folder.root)
    assert sorted(listing.shards) == sorted(names[:-2])
    assert len(listing.left_out) == 2
    assert [scan.n_rows for scan in scan_input(listing)] == [1] * len(listing.shards)
    (scan,) = scan_input(list_input(folder.url("a?versionId=1.parquet")))
    assert scan.name == "a?versionId=1.parquet"


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    for name in ("a.parquet", "_tmp/b.parquet", "c/.d.parquet"):
        write_shard(tmp_path / "input" / name, [text_row(name)])
    for name in ("a.parq", "b.parquet.gz", "_SUCCESS", ".crc"):
        (tmp_path / "input" / name).touch()
    listing = identify_run(config).listing
    assert list(listing.shards) == ["a.parquet"]
    text = plan_text(planned_run(config), listing.left_out)
    hidden = "2 hidden shards (a name begins with _ or .), such as _tmp/b.parquet"
    assert f"note    does not read {hidden}\n" in text
    assert "note    does not read 2 files without .parquet, such as a.parq" in text


def test_a_folder_of_hidden_shards_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "_a" / "b.parquet", [text_row("a")])
    with pytest.raises(InputSchemaError, match=r"holds no \.parquet shard, but 1 hidden shard \("):
        list_input(str(tmp_path))


@pytest.mark.parametrize("place", [b"a\xff.parquet", b"a\xff/b.parquet"])
def test_a_name_that_is_not_utf8(place: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + place))
    write_shard(tmp_path / "in" / "good.parquet", [text_row("a")])
    path.parent.mkdir(exist_ok=True)
    os.rename(write_shard(tmp_path / "a.parquet", [text_row("b")]), path)
    with pytest.raises(InputSchemaError, match=r"a\\udcff.*: its name is not UTF-8") as caught:
        list_input(str(tmp_path / "in"))
    str(caught.value).encode()


def test_a_shard_in_the_root_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is `/`, and not the current one."""
    write_shard(tmp_path / "a.parquet", [text_row("a")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Folder, "is_file", lambda folder: True)
    with pytest.raises(FileNotFoundError):
        list_input("/a.parquet")


def test_names_of_the_local_file_system_that_links_have(tmp_path: Path) -> None:
    real = write_shard(tmp_path / "real" / "a.parquet", [text_row("a")])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b::c.PARQUET").symlink_to(real)
    (scan,) = scan_input(list_input(str(tmp_path / "in")))
    assert (scan.name, scan.n_rows) == ("b::c.PARQUET", 1)
