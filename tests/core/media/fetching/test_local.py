"""Local files that change while they are read, or cannot be read."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from omnitrace_core.errors import MediaCorrupt, MediaError, MediaMissing, NodeFault
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import is_node_fault
from tests.core.media_files import image_bytes
from tests.lost_mount import lost_mount

DEFAULTS = MediaOptions()
RED, GREEN = (image_bytes(Image.new("RGB", (64, 64), name)) for name in ("red", "lime"))


def test_a_link_changed_during_reading_gives_no_other_file(tmp_path: Path) -> None:
    """The checks are made on the opened file, so it does not matter when the link changes."""
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    inside.mkdir()
    outside.write_bytes(RED)
    (inside / "good.png").write_bytes(GREEN)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            os.link(inside / "good.png", inside / "t1")
            (inside / "t1").replace(inside / "x.png")
            (inside / "t2").symlink_to(outside)
            (inside / "t2").replace(inside / "x.png")

    changing = threading.Thread(target=change)
    changing.start()
    part, options = Part("image", uri=str(inside / "x.png")), MediaOptions(roots=(str(inside),))
    seen: list[bytes] = []
    for _ in range(3000):
        try:
            seen.append(read_media(part, options))
        except MediaError:  # denied, missing, or replaced while its path was followed
            continue
    done.set()
    changing.join()
    assert set(seen) == {GREEN}


def test_decoders_read_the_checked_descriptor(tmp_path: Path) -> None:
    """A file that replaces the opened one is not read."""
    file, other = tmp_path / "a.png", tmp_path / "b.png"
    file.write_bytes(GREEN)
    other.write_bytes(RED)
    with media_path(Part("image", uri=str(file)), DEFAULTS) as path:
        other.replace(file)
        assert path.read_bytes() == GREEN


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    with (
        pytest.raises(MediaError, match="changed while it was read"),
        media_path(Part("image", uri=str(file)), DEFAULTS),
    ):
        file.write_bytes(RED + b"more")


MISSING = ("ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG")
UNREADABLE = (
    *("EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "ENODEV", "ENXIO", "EAGAIN", "EHOSTDOWN"),
    *("EUCLEAN", "EBADMSG", "EREMOTEIO", "EINVAL"),
)
STEPS = {"stat": "pathlib.Path.stat", "open": "os.open"}


def _fails(*args: object, number: int, **kwargs: object) -> NoReturn:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [*MISSING, *UNREADABLE])
def test_only_what_is_missing_is_said_to_be_missing(
    tmp_path: Path, number: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system answers, so it is the file's own fault, whatever the number."""
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    monkeypatch.setattr(STEPS[step], partial(_fails, number=getattr(errno, number)))
    with pytest.raises(MediaError) as caught:
        read_media(Part("image", uri=str(file)), DEFAULTS)
    monkeypatch.undo()
    assert isinstance(caught.value, MediaMissing) == (number in MISSING)
    if number in UNREADABLE:
        assert os.strerror(getattr(errno, number)) in str(caught.value)
    assert not is_node_fault(caught.value)


@pytest.mark.parametrize("filename", [None, "descriptor"])
@pytest.mark.parametrize("number", UNREADABLE)
def test_a_file_that_fails_while_it_is_read_is_an_error(
    tmp_path: Path, number: str, filename: str | None
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    code = getattr(errno, number)
    with (
        pytest.raises(MediaError, match=os.strerror(code)) as caught,
        media_path(Part("image", uri=str(file)), DEFAULTS) as path,
    ):
        raise OSError(code, os.strerror(code), str(path) if filename else None)
    assert caught.value.code == "media_error"
    assert not is_node_fault(caught.value)


def test_other_errors_of_a_decoder_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    for error in (OSError("no library"), FileNotFoundError(errno.ENOENT, "No such file", "/lib")):
        with (
            pytest.raises(OSError, match=r"no library|No such file") as caught,
            media_path(Part("image", uri=str(file)), DEFAULTS),
        ):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("kind", ["path", "URL"])
def test_a_lost_mount_is_the_machines(tmp_path: Path, kind: str) -> None:
    """A real one: all its files fail, which says nothing of any of them."""
    with lost_mount(tmp_path / "lost") as folder:
        uri = f"{folder}/a.png" if kind == "path" else f"file://{folder}/deep/a%20b.png"
        match = rf"{folder}.* does not answer on this machine: .*not connected; mount it again"
        with pytest.raises(NodeFault, match=match):
            read_media(Part("image", uri=uri), DEFAULTS)


def test_a_mount_that_is_lost_while_a_decoder_reads_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the decoder says of the content."""
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    with pytest.raises(NodeFault, match="Stale file handle"):
        _corrupt_on_a_stale_mount(file, monkeypatch)


def _corrupt_on_a_stale_mount(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with media_path(Part("image", uri=str(file)), DEFAULTS):
        monkeypatch.setattr("os.statvfs", partial(_fails, number=errno.ESTALE))
        raise MediaCorrupt("truncated")
