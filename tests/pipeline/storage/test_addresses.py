from __future__ import annotations

import os
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from omnitrace_core.storage.files import connect, open_file
from pipeline.config import Location
from pipeline.storage.addresses import absolute_path, address_problem, name_problem
from pipeline.storage.folder import Folder

# Names that something on the way might read as more than a name.
ODD_NAMES = [
    *("a::b", "zip::b", "a#b", "a?b", "a%20b", "a b", " a ", "it's", 'a"b', "[a]*", "{a,b}", "a&b"),
    *("a+b", "a\\b", "a:b", "a://b", "~a", "-a", "$HOME", "ä 日本", "a?versionId=1", "x.PARQUET"),
]


@pytest.mark.parametrize("name", [*ODD_NAMES, "a\nb", "\x1b[2J"])
def test_local_names_are_read_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"another")
    monkeypatch.chdir(tmp_path)
    for root in (f"{tmp_path}/{name}", f"./{name}", f"file://{tmp_path}/{name}"):
        folder = Folder(root)
        folder.write("x", b"content")
        assert Path(os.path.normpath(f"{tmp_path}/{name}"), "x").read_bytes() == b"content"
        assert folder.names() == ["x"]
        assert folder.tree("") == ["x"]
        with open_file(folder.url("x")) as file:
            assert file.read() == b"content"
        nested = folder / name
        nested.write(f"{name}.json", b"nested")
        assert Folder(nested.root).read(f"{name}.json") == b"nested"
        folder.delete_folder("")
    assert (tmp_path / "a" / "x").read_bytes() == b"another"


# The test's server normalizes these two, as Amazon's does not.
ODD_KEYS = [name for name in ODD_NAMES if "\\" not in name and "//" not in name]


@pytest.mark.parametrize("name", ODD_KEYS)
def test_names_on_s3_are_read_as_they_are(name: str, s3_folder: str) -> None:
    folder = Folder(f"{s3_folder}/{name}")
    folder.write(name, b"content")
    assert folder.tree("") == [name]
    assert Folder(s3_folder).tree("") == [f"{name}/{name}"]
    assert folder.read(name) == b"content"
    with open_file(folder.url(name)) as file:
        assert file.read() == b"content"
    assert folder.identity(name) == folder.tree_listing("")[name]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "is blank"),
        (" ", "is blank"),
        ("a\0b", "holds a NUL character"),
        ("a\udcffb", "is not valid UTF-8"),
        ("x" * 256, "a name of 256 bytes"),
        ("ä" * 128, "a name of 256 bytes"),
        ("x/" * 2047 + "x", "a path of"),
        ("x" * 5000, "has 5,000 characters"),
        ("~nobody-of-this-name/x", "no such user's home"),
        ("s3:/b/x", "looks like a URL without its `//`"),
        ("S3:b/x", "looks like a URL without its `//`"),
        ("file:/x", "looks like a URL without its `//`"),
        ("file://x", "must be absolute"),
        ("s3://", "names no place"),
        ("s3:///x", "is not the name of a bucket"),
        ("s3://a b/x", "is not the name of a bucket"),
        ("s3://me:secret@b/x", "must not hold credentials"),
        ("https://me:secret@host/x", "must not hold credentials"),
        ("s3://b/" + "x" * 1025, "a key of 1,025 bytes"),
        ("s3://b/in//", "ends with more than one slash"),
        ("simplecache::s3://b/x", "`::` chains file systems"),
        ("zip::file:///x.zip", "`::` chains file systems"),
        ("zip::/tmp/x.zip", "`::` chains file systems"),
        ("Zip::x.zip", "`::` chains file systems"),
        ("simplecache::zip::/tmp/x.zip", "`::` chains file systems"),
        ("s3::b/x", "`::` chains file systems"),
        ("file::/x", "`::` chains file systems"),
        ("zip://a::/x.zip", "`::` chains file systems"),
        ("memory://a::b", "`::` chains file systems"),
    ],
)
def test_addresses_that_are_refused(path: str, problem: str) -> None:
    assert problem in str(address_problem(path))
    with pytest.raises(ConfigError) as caught:
        absolute_path(path)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="path"):
        Location(path=path)


@pytest.mark.parametrize("name", ["a::b", "a::zip::b", "./zip::b", "zip:b", "::b", "zip ::b"])
def test_colons_of_a_name_are_no_chain(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_path(name) == os.path.normpath(tmp_path / name)
    assert Location(path=name).path == name


def test_home_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert absolute_path("~") == str(tmp_path)
    assert absolute_path("~/a/") == str(tmp_path / "a")
    assert absolute_path("./~/a") == str(tmp_path / "~" / "a")
    assert absolute_path("a~") == str(tmp_path / "a~")


def test_the_root_is_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of-the-current-folder").touch()
    monkeypatch.chdir(tmp_path)
    assert "of-the-current-folder" not in Folder("/").names()
    assert Folder("/").exists("etc")
    assert connect("/")[1] == "/"


@pytest.mark.parametrize(
    ("root", "name", "problem"),
    [
        ("/in", "a\udcff.parquet", "not UTF-8"),
        ("s3://b/in", "a\udcff.parquet", "not UTF-8"),
        ("memory://in", "a::b.parquet", "holds ::"),
        ("memory://in", "a#b.parquet", "holds #"),
        ("memory://in", "a?b.parquet", "holds ?"),
        ("/in", "a::b#c?d.parquet", None),
        ("s3://b/in", "a::b#c?d.parquet", None),
        ("memory://in", "a b%20.parquet", None),
    ],
)
def test_names_in_a_folder(root: str, name: str, problem: str | None) -> None:
    found = name_problem(root, name)
    assert (problem in str(found)) if problem else found is None
