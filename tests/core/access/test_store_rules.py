"""Which addresses of stores are valid, and which entries of `media.allow` cover them."""

from __future__ import annotations

import random

import pytest

from omnitrace_core.access.stores import (
    STORES,
    is_covered,
    parse_store_address,
    store_of,
    store_prefix,
)
from omnitrace_core.options import MediaOptions

ALLOWED = ("s3://bucket/folder/",)


def _covered(address: str, *entries: str) -> bool:
    return is_covered(parse_store_address(address), map(store_prefix, entries))


@pytest.mark.parametrize(
    ("address", "entry"),
    [
        ("s3://bucket/folder/a.png", "s3://bucket/folder/"),
        ("s3://bucket/folder/a.png", "s3://bucket/folder"),
        ("S3A://bucket/folder/b/a.png", "s3://bucket"),
        ("s3://bucket/folder/a.png", "s3a://bucket/folder/a.png"),
        ("s3://bucket/100%/a b#1?.png", "s3://bucket/100%/"),
        ("gcs://bucket/a.png", "gs://bucket/"),
        ("az://box/a.png", "abfss://box/"),
        ("abfs://box@acc.dfs.core.windows.net/a", "abfs://box@acc.dfs.core.windows.net/"),
        ("hf://datasets/a/b@main/c.png", "hf://datasets/a/b@main/"),
        ("hdfs://node:8020/a/b", "hdfs://node:8020/a"),
        ("hdfs:///a/b", "hdfs:///a"),
        ("github://org:repo@main/a.png", "github://org:repo@main/"),
        ("zip://in/a.png::s3://bucket/folder/a.zip", "zip://::s3://bucket/folder/"),
        ("zip://in/a.png::s3://bucket/folder/a.zip", "zip://in::s3://bucket/folder/a.zip"),
        ("simplecache::s3://bucket/a.png", "simplecache::s3://bucket/"),
        (
            "s3://arn:aws:s3:us-east-1:1:accesspoint/x/k",
            "s3://arn:aws:s3:us-east-1:1:accesspoint/x/",
        ),
    ],
)
def test_covered(address: str, entry: str) -> None:
    assert _covered(address, "s3://other/", entry)
    assert not _covered(address, "s3://other/")
    assert store_prefix(store_prefix(entry)) == store_prefix(entry)


@pytest.mark.parametrize(
    ("address", "entry"),
    [
        ("s3://bucket-evil/folder/a.png", "s3://bucket"),
        ("s3://bucket/folder-2/a.png", "s3://bucket/folder"),
        ("s3://bucket/folder", "s3://bucket/folder/a"),
        ("s3://Bucket/a.png", "s3://bucket/"),
        ("s3://bucket/%66older/a.png", "s3://bucket/folder/"),
        ("gs://bucket/folder/a.png", "s3://bucket/folder/"),
        ("abfs://box@evil.dfs.core.windows.net/a", "abfs://box/"),
        ("abfs://evil.dfs.core.windows.net/box/a", "abfs://box/"),
        ("hf://datasets/a/b@evil/c.png", "hf://datasets/a/b/"),
        ("hf://datasets/evil/b/c.png", "hf://datasets/a/"),
        ("hf://a/b/c.png", "hf://datasets/a/b/"),
        ("hdfs://evil/a/b", "hdfs:///a/"),
        ("github://org:repo@evil/a.png", "github://org:repo@main/"),
        ("zip://in/a.png::s3://bucket/a.zip", "s3://bucket/"),
        ("zip://in/a.png::s3://evil/a.zip", "zip://::s3://bucket/"),
        ("zip://out/a.png::s3://bucket/a.zip", "zip://in/::s3://bucket/"),
        ("s3://bucket/a.zip", "zip://::s3://bucket/"),
        ("simplecache::s3://bucket/a.png", "filecache::s3://bucket/"),
        ("tar://a::zip://b::s3://bucket/c", "zip://::s3://bucket/"),
    ],
)
def test_not_covered(address: str, entry: str) -> None:
    assert not _covered(address, entry)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3:///bucket/a",
            "s3://bucket//a",
            "://bucket/a",
        ),
        *("s3://bucket/../other/a", "s3://bucket/./a", "s3://bucket/a/..", "s3://bucket/a/"),
        *("s3://bucket\\@evil/a", "s3://bucket/a\\..\\b", "s3://bucket/\0", "s3://bucket/a\nb"),
        *(
            "s3://bucket/\u2028",
            "s3://bucket/\ud800",
            "s3://buc ket/a",
            "s3://bücket/a",
            " s3://b/a",
        ),
        *("s3://me:word@bucket/a", "s3://me@bucket/a", "s3://bucket:9000/a", "s3://@bucket/a"),
        *("s3://bucket?x/a", "s3://bucket#x/a", "gs://bucket/a#123", "gs://bucket/a?generation=1"),
        "s3://arn:aws:s3:us-east-1:1:accesspoint/mine/x:s3::999999999999:accesspoint/evil/k",
        *("s3://bucket/a?versionId=x", "abfs://box/a?versionid=1", "hdfs:///a?replication=1"),
        *("sftp://me:word@host/a", "ftp://me@host/a", "hf://", "hf://x", "hf://datasets"),
        *("file://::s3://bucket/a", "s3://bucket/a::file:///etc/passwd", "s3://b/a::s3://b/c"),
        *(
            "zip://a::https://host/b",
            "zip://a",
            "simplecache::zip://a",
            "simplecache://x::s3://b/a",
        ),
        *("reference://::s3://b/a", "data://x/y", "dask://x/y", "jupyter://x/y", "git://x/y"),
        *(
            "local:///etc/passwd",
            "unknown://x/y",
            "::s3://b/a",
            "s3://b/a::",
            "s3://b/" + "k" * 5000,
        ),
    ],
)
def test_invalid_addresses(address: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_store_address(address)
    assert "word" not in str(caught.value).replace("passwords", "")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("https://host/folder/", "media.web_hosts"),
        ("HTTP://host/", "media.web_hosts"),
        ("/data/media", "media.roots"),
        ("file:///data/media", "media.roots"),
        ("s3", "media.roots"),
        ("zip://::https://host/a.zip", "never read"),
        ("reference://x/", "never read"),
        ("s3://", "name of a bucket"),
        ("s3://key:SECRET@bucket/", "name of a bucket"),
        ("s3://bucket//folder/", "empty steps"),
        ("s3://bucket/../other/", r"\.\."),
        ("s3://*/", "name of a bucket"),
        ("s3://b/x?X-Amz-Signature=SECRET", r"must not hold \? or #"),
        ("s3://b/x#SECRET", r"must not hold \? or #"),
        ("zip://in#SECRET::s3://b/", r"must not hold \? or #"),
    ],
)
def test_entries_that_are_refused(entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MediaOptions(allow=(entry,))
    # pydantic adds the value that it met; ours does not.
    (error,) = caught.value.errors()  # type: ignore[attr-defined]
    assert "SECRET" not in error["msg"]


def test_entries_in_normal_form() -> None:
    entries = ("s3a://b/x", "gs://a/", "s3://b/x/")
    assert MediaOptions(allow=entries).allow == ("gs://a/", "s3://b/x/")
    assert MediaOptions().allow is None
    assert MediaOptions(allow=()).allow == ()


@pytest.mark.parametrize(
    ("address", "store"),
    [
        ("s3://bucket/a/b", "s3://bucket/"),
        ("s3://bucket", "s3://bucket/"),
        ("s3a://bucket/", "s3://bucket/"),
        ("hf://datasets/a/b@main/c/d.parquet", "hf://datasets/a/b@main/"),
        ("hf://a/b/c", "hf://a/b/"),
        ("hf://datasets/a", None),
        ("hf://models/a/b/c", "hf://models/a/b/"),
        ("hf://datasets/a/b@refs/pr/3/c", "hf://datasets/a/b@refs/pr/3/"),
        ("hf://a/b@refs/convert/parquet", "hf://a/b@refs/convert/parquet/"),
        ("hf://datasets/a/b@refs/pr", None),
        ("hf://datasets//b/c", None),
        # Of the path only that matters which names the store.
        ("s3://bucket/a//b", "s3://bucket/"),
        ("gs://bucket/./a/../b", "gs://bucket/"),
        ("s3://bucket/a?versionId=1", "s3://bucket/"),
        ("s3://_bucket/a", "s3://_bucket/"),
        ("hdfs:///a//b", "hdfs:///"),
        ("s3://bucket?x/a", None),
        ("s3://../a", None),
        ("s3:///a", None),
        ("abfs://box@acc/a", "abfs://box@acc/"),
        (
            "s3://arn:aws:s3:us-east-1:1:accesspoint/x/k",
            "s3://arn:aws:s3:us-east-1:1:accesspoint/x/",
        ),
        ("/data/input", None),
        ("file:///data", None),
        ("https://host/a", None),
        ("zip://a::s3://bucket/b", None),
        ("-", None),
    ],
)
def test_the_store_that_an_address_lies_on(address: str, store: str | None) -> None:
    assert store_of(address) == store


def test_no_made_up_address_gets_past_an_entry() -> None:
    """Whatever is pasted together: what is covered lies in the folder that the entry names."""
    draw = random.Random(20)
    schemes = [
        *sorted(STORES),
        "s3a",
        "S3",
        "zip",
        "simplecache",
        "file",
        "https",
        "x+y",
        "",
        "data",
    ]
    pieces = [
        *("bucket", "folder", "evil", "bucket-evil", "folder-2", "..", ".", "", "a.png", "%2e%2e"),
        *("me:word@bucket", "bucket@evil", "bucket:80", "\\", "\0", "?x=s3://bucket/folder/a", "#"),
        *("::", "s3://bucket", "::s3://bucket", "\u2215", "\ud800", " ", "k" * 300, "~", "*"),
    ]
    n_covered = 0
    for _ in range(20_000):
        text = "/".join(draw.choices(pieces, k=draw.randint(1, 5)))
        address = f"{draw.choice(schemes)}{draw.choice(('://', ':/', ':', '::', ''))}{text}"
        if draw.random() < 0.2:
            address = f"s3://bucket/folder/{text}"
        try:
            links = parse_store_address(address)
        except ValueError:
            continue
        if is_covered(links, ALLOWED):
            n_covered += 1
            scheme, _, path = address.partition("://")
            assert scheme.lower() in ("s3", "s3a")
            assert path.startswith("bucket/folder/")
            assert not {"..", ".", ""}.intersection(path.split("/"))
    assert n_covered > 100
