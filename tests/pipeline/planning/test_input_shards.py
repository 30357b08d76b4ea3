from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import InputSchemaError, NodeFault, RunError
from pipeline.planning.input_shards import Duplicate, list_input, scan_input
from pipeline.storage.folder import Folder
from stages.arrow.sample_schema import SAMPLE
from tests.file_handles import no_file_handles
from tests.lost_mount import lost_mount
from tests.pipeline.made_runs import write_input
from tests.pipeline.storage.faulty_proxy import Proxy


def _duplicates(folder: Path) -> dict[str, tuple[Duplicate, ...]]:
    scans = scan_input(list_input(str(folder)))
    return {scan.name: scan.duplicates for scan in scans if scan.duplicates}


def test_shards_are_scanned_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_input(tmp_path / "in", b=["1", "2"], a=["3"], c=[])
    (tmp_path / "in" / "notes.txt").write_text("not a shard")
    write_input(tmp_path / "in" / "sub", d=["4"])
    write_input(tmp_path / "in" / "_staging", e=["5"])
    write_input(tmp_path / "in", **{".hidden": ["6"]})
    scans = scan_input(list_input(str(tmp_path / "in")))
    assert [(scan.name, scan.n_rows) for scan in scans] == [
        ("a.parquet", 1),
        ("b.parquet", 2),
        ("c.parquet", 0),
        ("sub/d.parquet", 1),
    ]
    assert scans[3].uri == str(tmp_path / "in" / "sub" / "d.parquet")


def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    write_input(tmp_path / "real", b=["2"], c=["3"])
    write_input(tmp_path / "in", a=["1"])
    (tmp_path / "in" / "b.parquet").symlink_to("../real/b.parquet")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "real")
    # Links that form circles, in the input and in the folder behind a link.
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "real")
    listing = list_input(str(tmp_path / "in"))
    # b.parquet is also more/b.parquet, and its rows must be listed once.
    assert list(listing.shards) == ["a.parquet", "b.parquet", "more/c.parquet"]
    assert listing.shards == {name: listing.folder.identity(name) for name in listing.shards}
    assert [scan.n_rows for scan in scan_input(list_input(str(tmp_path / "in")))] == [1] * 3
    (tmp_path / "in" / "gone.parquet").symlink_to("nowhere.parquet")
    with pytest.raises(InputSchemaError, match=r"gone.parquet is not a readable Parquet file"):
        scan_input(list_input(str(tmp_path / "in")))


def test_links_between_folders_of_an_input_list_each_file_once(tmp_path: Path) -> None:
    write_input(tmp_path / "day1", a=["1"])
    write_input(tmp_path / "day2" / "below", b=["2"])
    (tmp_path / "latest").symlink_to("day2")
    (tmp_path / "below").symlink_to("day2/below")
    # Two links that form a circle.
    (tmp_path / "day1" / "next").symlink_to("../day2")
    (tmp_path / "day2" / "last").symlink_to("../day1")
    listing = list_input(str(tmp_path))
    assert list(listing.shards) == ["day1/a.parquet", "day2/below/b.parquet"]


def test_input_may_be_one_file(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1"], b=["2"])
    (scan,) = scan_input(list_input(str(tmp_path / "b.parquet")))
    assert (scan.name, scan.uri) == ("b.parquet", str(tmp_path / "b.parquet"))


def test_repeats_are_found_across_shards(tmp_path: Path) -> None:
    write_input(
        tmp_path,
        a=["x", "y", None, "", "x"],
        b=["z", None, "y", " ", " "],
        c=["x", "z"],
    )
    assert _duplicates(tmp_path) == {
        "a.parquet": (Duplicate(4, "a.parquet:0"),),
        "b.parquet": (Duplicate(2, "a.parquet:1"),),
        "c.parquet": (Duplicate(0, "a.parquet:0"), Duplicate(1, "b.parquet:0")),
    }


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_ids_that_are_not_utf_8_are_not_compared(tmp_path: Path, kind: pa.DataType) -> None:
    raw = pa.array([b"a", b"caf\xe9", b"caf\xe9", b"a", None], pa.binary())
    ids = raw if kind == pa.binary() else raw.view(pa.string()).cast(kind)
    messages = pa.nulls(5, SAMPLE.field("messages").type)
    pq.write_table(pa.table({"sample_id": ids, "messages": messages}), tmp_path / "in.parquet")
    assert _duplicates(tmp_path) == {"in.parquet": (Duplicate(3, "in.parquet:0"),)}


def test_repeats_equal_the_obvious_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shards = {
        f"s{number}": [str(rng.integers(40)) if rng.random() > 0.1 else None for _ in range(size)]
        for number, size in enumerate([30, 0, 17, 25])
    }
    write_input(tmp_path, **shards)
    seen: dict[str, str] = {}
    expected: dict[str, list[Duplicate]] = {}
    for name, ids in sorted(shards.items()):
        for row, sample_id in enumerate(ids):
            if sample_id in seen:
                expected.setdefault(f"{name}.parquet", []).append(Duplicate(row, seen[sample_id]))
            elif sample_id is not None:
                seen[sample_id] = f"{name}.parquet:{row}"
    found = _duplicates(tmp_path)
    assert found == {name: tuple(items) for name, items in expected.items()}
    # The same result from files of a few ids each.
    assert scan_input(list_input(str(tmp_path)), budget_bytes=100) == scan_input(
        list_input(str(tmp_path))
    )


def test_ids_of_a_shard_are_read_without_its_media(s3_folder: str, proxy: Proxy) -> None:
    data = np.random.default_rng(0).bytes(6 * 2**20)
    part = {"type": "image", "data": data}
    row = {"messages": [{"role": "user", "content": [part]}]}
    table = pa.Table.from_pylist([{**row, "sample_id": str(i)} for i in range(4)], SAMPLE)
    with Folder(s3_folder).writing("a.parquet") as path:
        pq.write_table(table, path, row_group_size=1, compression="none", use_dictionary=False)
    proxy.clear()
    (scan,) = scan_input(list_input(s3_folder))
    assert scan.n_rows == 4
    assert 4 <= proxy.requests["GetObject"] <= 8
    assert proxy.response_bytes["GetObject"] < 6 * 2**20 < len(data) * 4


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputSchemaError, match=r"does not exist; `omnitrace ingest"):
        scan_input(list_input(str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputSchemaError, match=r"holds no \.parquet shard; `omnitrace ingest"):
        scan_input(list_input(str(tmp_path / "empty")))


def test_file_in_another_format(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"{}")
    with pytest.raises(InputSchemaError, match=r"a\.parquet is not a readable Parquet file"):
        scan_input(list_input(str(tmp_path)))


def test_machine_without_file_handles_blames_no_shard(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1"])
    listing = list_input(str(tmp_path))
    scan_input(listing)  # what is opened once and stays open
    match = r"Too many open files: .*a\.parquet.*; raise"
    with no_file_handles(), pytest.raises(NodeFault, match=match):
        scan_input(listing)


def test_lost_mount_blames_no_shard_and_no_folder(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1"])
    listing = list_input(str(tmp_path))
    with lost_mount(tmp_path):
        with pytest.raises(NodeFault, match="does not answer on this machine"):
            scan_input(listing)
        for path in (tmp_path, tmp_path / "deep"):
            with pytest.raises(NodeFault, match="does not answer on this machine"):
                list_input(str(path))


def test_file_with_another_schema(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "messages": ["hello"]}), tmp_path / "a.parquet")
    with pytest.raises(
        InputSchemaError,
        match=r"a\.parquet cannot be read as samples: column sample_id is missing; messages is "
        r"string, .*; `omnitrace ingest",
    ):
        scan_input(list_input(str(tmp_path)))


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]] * 3
    table = pa.table({"sample_id": [7, 8, 7], "messages": messages})
    pq.write_table(table, tmp_path / "a.parquet")
    assert _duplicates(tmp_path) == {"a.parquet": (Duplicate(2, "a.parquet:0"),)}


def test_shard_that_changes_between_listing_and_scan_is_not_planned(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1"])
    listing = list_input(str(tmp_path))
    write_input(tmp_path, a=["2", "3"])
    with pytest.raises(RunError, match=r"a\.parquet changed while the run was planned"):
        scan_input(listing)
