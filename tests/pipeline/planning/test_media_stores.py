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
from pipeline.config import RunConfig, fingerprint
from pipeline.driver.present_input import with_present_input
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.planning.media_stores import (
    MEDIA_ROOTS,
    media_root_metadata,
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


@pytest.mark.parametrize("written", ["", "{}", "[1]", '["https://h/"]', '["/etc/"]', '["s3://"]'])
def test_metadata_that_cannot_be_used_is_refused(written: str, folder: Path) -> None:
    schema = SAMPLE.with_metadata({MEDIA_ROOTS: written})
    pq.write_table(pa.Table.from_pylist([], schema=schema), folder / "input" / "z.parquet")
    with pytest.raises(InputSchemaError, match=r"z\.parquet: its metadata omnitrace\.media_roots"):
        scan_input(list_input(str(folder / "input")))
