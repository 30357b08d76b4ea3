"""Which stores a run reads media from when `media.allow` is not set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.access.stores import store_of
from omnitrace_core.errors import ConfigError, InputSchemaError
from pipeline.commands.ingest import ingest
from pipeline.commands.input_files import find_files
from pipeline.commands.summary import plan_text
from pipeline.config import RunConfig, fingerprint
from pipeline.driver.present_input import with_present_input
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.planning.media_stores import (
    MEDIA_ROOTS,
    check_input_store,
    media_root_metadata,
    store_warnings,
    with_allowed_stores,
)
from stages.arrow.sample_schema import SAMPLE
from tests.pipeline.made_runs import config_for, planned_run

ALLOWS: tuple[dict[str, Any], ...] = ({}, {"allow": []}, {"allow": ["s3://b/"]})


def _config(path: str = "in", **media: Any) -> RunConfig:
    tree = {"input": {"path": path}, "output": {"path": "out"}, "model": {"path": "m"}}
    return RunConfig.model_validate({**tree, "media": media})


@pytest.mark.parametrize(
    ("path", "roots", "allow"),
    [
        ("in", [], ()),
        ("in", ["gs://b/media/"], ("gs://b/media/",)),
        ("s3://bucket/input", [], ("s3://bucket/",)),
        ("s3a://bucket/input", ["gs://b/media/"], ("gs://b/media/", "s3://bucket/")),
        ("hf://datasets/a/b/input", [], ("hf://datasets/a/b/",)),
    ],
)
def test_default(path: str, roots: list[str], allow: tuple[str, ...]) -> None:
    assert with_allowed_stores(_config(path), roots).media.allow == allow


def test_list_that_is_set_replaces_the_default() -> None:
    for allow in ([], ["s3://other/"]):
        config = _config("s3://bucket/input", allow=allow)
        assert with_allowed_stores(config, ["gs://b/media/"]).media.allow == tuple(allow)


def test_fingerprint_without_the_setting_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def dumps(content: object, **options: Any) -> str:
        hashed.append(_dumps(content, **options))
        return hashed[-1]

    _dumps = json.dumps
    monkeypatch.setattr("pipeline.config.json.dumps", dumps)
    unset, none, other = (fingerprint(_config(**media), "model") for media in ALLOWS)
    assert len({unset, none, other}) == 3
    assert ["allow" in text for text in hashed] == [False, True, True]


def test_root_that_ingest_writes_into_the_shards(folder: Path) -> None:
    chat = folder / "chat.jsonl"
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    chat.write_text(json.dumps({"id": "1", "messages": [{"role": "user", "content": content}]}))
    report = ingest(str(chat), str(folder / "input"), media_root="s3://bucket/media/x")
    assert report.media_roots == ("s3://bucket/media/x/",)
    scans = {scan.name: scan for scan in scan_input(list_input(str(folder / "input")))}
    assert scans["shard-00000.parquet"].media_roots == report.media_roots
    assert scans["a.parquet"].media_roots == ()
    assert planned_run(config_for(folder)).resolved_config.media.allow == report.media_roots
    for root in (None, str(folder), "https://media.example.com/x"):
        report = ingest(str(chat), str(folder / "other"), media_root=root, overwrite=True)
        assert report.media_roots == ()
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        ingest(str(chat), str(folder / "other"), media_root="s3://key:SECRET@b/", overwrite=True)
    assert "SECRET" not in str(caught.value)


def test_default_follows_the_input(folder: Path) -> None:
    """A shard with another root arrives between the plan and the lease."""
    planned = planned_run(config_for(folder))
    explicit = planned_run(config_for(folder, media={"allow": ["gs://set/"]}))
    schema = SAMPLE.with_metadata(media_root_metadata(["s3://late/"]))
    pq.write_table(pa.Table.from_pylist([], schema=schema), folder / "input" / "z.parquet")
    assert planned.resolved_config.media.allow == ()
    assert with_present_input(planned).resolved_config.media.allow == ("s3://late/",)
    assert with_present_input(explicit).resolved_config.media.allow == ("gs://set/",)


def test_files_of_trace_allow_the_store_that_they_lie_on(folder: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/allowed/a.jsonl", b"{}")
    (file,) = find_files("memory://allowed/a.jsonl").files
    assert file.media_roots() == (store_of(file.url),)
    schema = SAMPLE.with_metadata(media_root_metadata(["s3://bucket/"]))
    pq.write_table(pa.Table.from_pylist([], schema=schema), folder / "z.parquet")
    (file,) = find_files(str(folder / "z.parquet")).files
    assert file.media_roots() == ("s3://bucket/",)


UNUSABLE = (
    *("", "{}", "[1]", '["https://h/"]', '["/etc/"]', '["s3://"]', '["s3://b/?sig=SECRET"]'),
    # Servers, caches, archives, and more than a repository of the hub.
    *('["webhdfs://169.254.169.254:80"]', '["ftp://10.0.0.1/"]', '["sftp://internal:22"]'),
    *('["hdfs://node:8020"]', '["hdfs:///"]', '["smb://host/"]', '["github://org:repo@main/"]'),
    *('["filecache::s3://b"]', '["simplecache::s3://b"]', '["zip://::s3://b"]'),
    *('["hf://datasets"]', '["hf://datasets/a"]', '["hf://datasets/a/b@refs/pr"]'),
)


@pytest.mark.parametrize("written", UNUSABLE)
def test_metadata_that_cannot_be_used_is_refused(written: str, folder: Path) -> None:
    schema = SAMPLE.with_metadata({MEDIA_ROOTS: written})
    pq.write_table(pa.Table.from_pylist([], schema=schema), folder / "input" / "z.parquet")
    with pytest.raises(
        InputSchemaError, match=r"z\.parquet: its metadata omnitrace\.media_roots"
    ) as caught:
        scan_input(list_input(str(folder / "input")))
    assert "set media.allow to the stores that this run may read" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    # With the remedy.
    scans = scan_input(list_input(str(folder / "input")), roots=False)
    assert [scan.media_roots for scan in scans] == [()] * len(scans)


def test_stores_that_only_the_shards_name_are_said(folder: Path) -> None:
    roots = ["s3://bucket/x/", "s3://bucket-2/", "hf://datasets/a/b/"]
    said = store_warnings(_config("s3://bucket/in"), roots)
    assert ["hf://datasets/a/b/" in said[0], "s3://bucket-2/" in said[1], len(said)] == [1, 1, 2]
    assert store_warnings(_config("s3://bucket/in", allow=["s3://bucket-2/"]), roots) == []
    schema = SAMPLE.with_metadata(media_root_metadata(["s3://others/"]))
    pq.write_table(pa.Table.from_pylist([], schema=schema), folder / "input" / "z.parquet")
    text = plan_text(planned_run(config_for(folder)))
    assert "\nwarning media may be read from s3://others/, which the input's shards name" in text


@pytest.mark.parametrize("path", ["gs://_b/in", "hf://datasets/squad", "oss://-/in"])
def test_input_whose_address_gives_no_default(path: str) -> None:
    with pytest.raises(ConfigError, match=r"set media\.allow"):
        check_input_store(_config(path))
    check_input_store(_config(path, allow=[]))
    for other in ("in", "s3://_b//x/./y", "gs://b/p//x", "file:///data", "dask://x/y"):
        check_input_store(_config(other))


def test_roots_that_ingest_cannot_write(folder: Path) -> None:
    chat = folder / "chat.jsonl"
    chat.write_text(json.dumps({"id": "1", "messages": [{"role": "user", "content": "What?"}]}))
    report = ingest(str(chat), str(folder / "input"), media_root="hdfs://node:8020/x")
    assert (report.media_roots, report.unnamed_roots) == ((), ("hdfs://node:8020/x/",))
    scan_input(list_input(str(folder / "input")))
    with pytest.raises(ConfigError, match=r"must not hold \? or #") as caught:
        ingest(str(chat), str(folder / "o"), media_root="s3://b/x?X-Amz-Signature=SECRET")
    assert "SECRET" not in str(caught.value)
    # A folder that no entry can name: all of its store.
    odd = "memory://box/a?b"
    fsspec.filesystem("memory").pipe_file("/box/a?b/chat.jsonl", chat.read_bytes())
    assert ingest(f"{odd}/chat.jsonl", str(folder / "o")).media_roots == ("memory:///",)
