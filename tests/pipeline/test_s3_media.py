"""Media of samples in a real object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.errors import MediaDenied, MediaMissing, MediaUnavailable
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from pipeline.commands.ingest import ingest
from pipeline.storage.folder import Folder
from tests.pipeline.storage.faulty_proxy import Proxy, Rule

BUCKET = MediaOptions(allow=("s3://tests/",))


def test_media_are_read_on_a_bad_network(s3_folder: str, proxy: Proxy) -> None:
    content = bytes(range(256)) * 5000
    Folder(s3_folder).write("a.bin", content)
    part = Part("video", uri=f"{s3_folder}/a.bin")
    for fault in ("slow_down", "drop_before", "drop_within"):
        proxy.clear()
        proxy.rules += [Rule(fault, kind, times=2) for kind in ("HeadObject", "GetObject")]
        assert read_media(part, BUCKET) == content
        proxy.rules.append(Rule(fault, times=2))
        with media_path(part, BUCKET) as path:
            assert path.read_bytes() == content
        assert proxy.faults[fault] == 6


def test_what_is_wrong_has_a_code(
    s3_folder: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = Part("image", uri=f"{s3_folder}/a.png")
    with pytest.raises(MediaMissing, match="no such object"):
        read_media(part, BUCKET)
    with pytest.raises(MediaDenied, match="not the name of a bucket"):
        read_media(Part("image", uri="s3://not a bucket/a.png"), BUCKET)
    proxy.rules.append(Rule("slow_down"))
    with pytest.raises(MediaUnavailable, match="did not answer in 6 tries") as caught:
        read_media(part, BUCKET)
    assert caught.value.code == "media_unavailable"
    proxy.clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MediaDenied, match="AWS_ACCESS_KEY_ID"):
        read_media(part, BUCKET)


def test_denied_addresses_reach_no_store(s3_folder: str, proxy: Proxy) -> None:
    Folder(s3_folder).write("in/a.bin", b"content")
    Folder(s3_folder).write("in-2/a.bin", b"content")
    options = MediaOptions(allow=(f"{s3_folder}/in/",))
    assert read_media(Part("image", uri=f"{s3_folder}/in/a.bin"), options) == b"content"
    proxy.clear()
    outside = ("in-2/a.bin", "in/../in-2/a.bin", "in//a.bin", "in/a.bin?versionId=1", "in/./a.bin")
    for name in outside:
        with pytest.raises(MediaDenied):
            read_media(Part("image", uri=f"{s3_folder}/{name}"), options)
    for nothing in (MediaOptions(allow=()), MediaOptions()):
        with pytest.raises(MediaDenied):
            read_media(Part("image", uri=f"{s3_folder}/in/a.bin"), nothing)
    assert not proxy.requests


def test_ingest_reads_and_writes_s3(s3_folder: str, proxy: Proxy) -> None:
    line = b'{"id": "%d", "messages": [{"role": "user", "content": "Where is the lamp?"}]}\n'
    storage = Folder(s3_folder)
    storage.write("chat/a.jsonl", b"".join(line % index for index in range(3)))
    proxy.rules += [Rule("drop_within", share=0.1), Rule("slow_down", share=0.1)]
    report = ingest(f"{s3_folder}/chat", f"{s3_folder}/input", shard_rows=2)
    # Where relative addresses of media start.
    assert report.media_roots == (f"{s3_folder}/chat/",)
    proxy.clear()
    assert len((storage / "input").tree(".parquet")) == 2
