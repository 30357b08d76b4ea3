"""Media that do not fit on the disk of temporary files: the machine's fault, or the sample's."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from omnitrace_core.errors import MediaTooLarge, NodeFault
from omnitrace_core.media.fetching.fetch import media_path
from omnitrace_core.media.fetching.temporary import TemporaryMedia, temporary_media
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import is_node_fault
from tests.small_disk import small_disk, use

ADDRESS = "memory://omnitrace/large.mp4"
OPTIONS = MediaOptions(allow=("memory://omnitrace/",))
SIZE, CAPACITY = 3 << 20, 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty temporary disk of 1 MiB."""
    with small_disk(tmp_path / "small", "1m") as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        yield folder


def _part(kind: str, size: int) -> Part:
    content = b"x" * size
    if kind == "inline":
        return Part("video", data=content)
    fsspec.filesystem("memory").pipe_file("/omnitrace/large.mp4", content)
    return Part("video", uri=ADDRESS)


@pytest.mark.parametrize("kind", ["inline", "store"])
def test_media_larger_than_the_whole_disk_are_the_samples(disk: Path, kind: str) -> None:
    with (
        pytest.raises(MediaTooLarge, match=rf"{SIZE:,} bytes.*{CAPACITY:,} bytes") as caught,
        media_path(_part(kind, SIZE), OPTIONS),
    ):
        pass
    assert str(disk) in str(caught.value)
    assert not is_node_fault(caught.value)


@pytest.mark.parametrize("kind", ["inline", "store"])
def test_media_that_an_empty_disk_would_hold_are_the_machines(disk: Path, kind: str) -> None:
    use(disk, 512)
    size = CAPACITY * 3 // 4
    match = rf"No space.*takes {size:,} bytes.*set TMPDIR.*lower media.max_bytes=2,147,483,648"
    with pytest.raises(NodeFault, match=match), media_path(_part(kind, size), OPTIONS):
        pass


def _write_blocks(target: TemporaryMedia) -> None:
    for _ in range(SIZE // 65536):
        target.write(b"x" * 65536)


@pytest.mark.parametrize("used", [0, 512])
def test_media_of_unknown_size_are_the_samples_when_an_empty_disk_is_too_small(
    disk: Path, used: int
) -> None:
    """As from a server that does not announce the size."""
    use(disk, used)
    with (
        temporary_media(OPTIONS, "a.mp4") as target,
        pytest.raises(
            NodeFault if used else MediaTooLarge, match=r"at least [\d,]+ bytes"
        ) as caught,
    ):
        _write_blocks(target)
    assert is_node_fault(caught.value) == bool(used)


@pytest.mark.usefixtures("disk")
def test_other_media_follow_on_the_same_disk() -> None:
    with suppress(MediaTooLarge), media_path(_part("store", SIZE), OPTIONS):
        pass
    content = b"y" * (CAPACITY - 65536)
    with media_path(Part("video", data=content), OPTIONS) as path:
        assert path.read_bytes() == content


def test_media_above_the_limit_of_one_file_are_the_samples() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with (
            pytest.raises(MediaTooLarge, match=r"200,000 bytes.*ulimit -f") as caught,
            media_path(Part("video", data=b"x" * 200_000), OPTIONS),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_node_fault(caught.value)
