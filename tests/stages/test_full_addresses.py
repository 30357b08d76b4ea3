"""Complete addresses from the input shard, and what is said when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.addresses import plain_address
from omnitrace_core.errors import NodeFault
from omnitrace_core.storage.files import identity_at
from stages.full_addresses import FullAddresses
from tests.lost_mount import lost_mount
from tests.stages.chunks import text_row, user, write_shard

SIGNED = "https://media.example.com/a.wav?sig=x"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Four rows in groups of two; the first is not a sample, the last names a signed address."""
    audio = {"type": "audio", "uri": SIGNED}
    rows = [
        {"sample_id": None, "messages": None},
        text_row("b"),
        text_row("c"),
        {"sample_id": "d", "messages": [user({"type": "text", "text": "What?"}, audio)]},
    ]
    return write_shard(tmp_path / "a.parquet", rows, row_group_size=2)


def test_complete_address(shard: Path) -> None:
    addresses = FullAddresses(str(shard), identity_at(str(shard)))
    assert addresses.find("a.parquet:3", 1, plain_address(SIGNED)) == (SIGNED, None)
    # Tables of older runs hold complete addresses.
    assert addresses.find("a.parquet:3", 1, SIGNED) == (SIGNED, None)
    assert addresses.find("a.parquet:1", 0, "") == ("", None)
    for place, published in (("a.parquet:3", "https://other/a"), ("a.parquet:0", "a.wav")):
        uri, reason = addresses.find(place, 1, published)
        assert uri == published
        assert "names other media at row" in (reason or "")


@pytest.mark.parametrize("state", ["gone", "changed", "damaged"])
def test_shard_that_is_not_the_one_that_was_traced(shard: Path, state: str) -> None:
    identity = identity_at(str(shard))
    if state == "gone":
        shard.unlink()
    else:
        shard.write_bytes(b"another file")
        identity = identity_at(str(shard)) if state == "damaged" else identity
    uri, reason = FullAddresses(str(shard), identity).find("a.parquet:3", 1, "https://h/a.wav")
    assert uri == "https://h/a.wav"
    said = {"gone": "is gone", "changed": "has changed", "damaged": "cannot be read"}[state]
    assert f"{shard}" in (reason or "")
    assert said in (reason or "")
    assert "put the shard back, or run again" in (reason or "")


@pytest.mark.parametrize("address", ["az://box/a.parquet", "unknown://box/a.parquet"])
def test_shard_on_a_store_without_a_client(address: str) -> None:
    """fsspec raises ImportError for one and ValueError for the other."""
    uri, reason = FullAddresses(address, "1-2").find("a.parquet:3", 1, "https://h/a.wav")
    assert uri == "https://h/a.wav"
    assert f"{address} cannot be read" in (reason or "")


def test_row_that_the_shard_has_not(shard: Path) -> None:
    addresses = FullAddresses(str(shard), identity_at(str(shard)))
    _, reason = addresses.find("a.parquet:4", 1, "https://h/a.wav")
    assert "cannot be read (it has no row 4)" in (reason or "")


def test_lost_mount_is_the_machines(shard: Path) -> None:
    addresses = FullAddresses(str(shard), identity_at(str(shard)))
    with lost_mount(shard.parent), pytest.raises(NodeFault, match="does not answer"):
        addresses.find("a.parquet:3", 1, plain_address(SIGNED))
