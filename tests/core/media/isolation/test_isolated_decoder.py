"""Decoding in a child process: the same media, and the loss of no more than one part."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio, DecodedMedia
from omnitrace_core.errors import (
    DecoderError,
    InternalError,
    MediaCrashed,
    MediaEmpty,
    MediaMemory,
    MediaMissing,
    MediaTimeout,
)
from omnitrace_core.media import decode_part
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media.progress.media_times import MediaTimes, collecting_times
from omnitrace_core.options import MediaOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, Sample
from tests.core.media.isolation.decoding_children import (
    CLOCKED,
    MISBEHAVING,
    MODULE,
    PHOTO,
    RULES,
    do,
    ends,
    n_descriptors,
)
from tests.core.media_files import audio_bytes, beep, write_clip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    folder = tmp_path_factory.mktemp("media")
    sounding = write_clip(folder / "a.mp4", 20, sound=beep(2, [0.5], 44_100))
    (folder / "a.png").write_bytes(PHOTO)
    return {
        "image": Part("image", uri=str(folder / "a.png")),
        "inline": Part("image", data=PHOTO),
        "audio": Part("audio", data=audio_bytes(beep(2, [0.5], 44_100), 44_100)),
        "video": Part("video", uri=str(write_clip(folder / "b.mp4", 20))),
        "sounding": Part("video", uri=str(sounding)),
        "inline video": Part("video", data=sounding.read_bytes()),
    }


def assert_same(actual: object, expected: object) -> None:
    assert type(actual) is type(expected)
    for field in dataclasses.fields(expected):  # type: ignore[arg-type]
        found, wanted = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(wanted, np.ndarray):
            assert found.dtype == wanted.dtype
            assert found.flags.writeable
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, wanted)
        elif isinstance(wanted, DecodedAudio):
            assert_same(found, wanted)
        else:
            assert found == wanted, field.name


def test_isolated_decoding_returns_the_same_media(parts: dict[str, Part]) -> None:
    options = MediaOptions()
    pids: set[int | None] = set()
    with IsolatedDecoder(options, RULES) as isolated:
        assert isolated.pid is None, "started when needed"
        for part in parts.values():
            assert_same(isolated.decode_part(part), decode_part(part, options, RULES))
            pids.add(isolated.pid)
        silent = isolated.decode_part(parts["sounding"], want_sound=False)
        assert silent.sound is None  # type: ignore[union-attr]
        with pytest.raises(MediaMissing, match=r"none\.png: no such file"):
            isolated.decode_part(Part("image", uri="none.png"))
        pids.add(isolated.pid)
    assert len(pids) == 1, "one child for all"
    assert isolated.pid is None


def test_relative_addresses_start_at_the_parents_working_directory(
    misbehaving: IsolatedDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(misbehaving, "pid")
    monkeypatch.chdir(tmp_path)
    assert do(misbehaving, "folder").sha256 == str(tmp_path.resolve())


def test_a_crash_costs_one_part(misbehaving: IsolatedDecoder) -> None:
    do(misbehaving, "pid")
    with pytest.raises(
        MediaCrashed, match=r"^a\.png: .*\(SIGABRT: first line \| free\(\): \\x1b\[31m"
    ):
        do(misbehaving, "abort")
    assert do(misbehaving, "pid").notes == ("pid",)
    with pytest.raises(MediaCrashed, match="exit status 3"):
        do(misbehaving, "exit 3")
    with pytest.raises(MediaCrashed, match="SIGSEGV"):
        do(misbehaving, "kill SIGSEGV")


def test_a_hang_costs_one_part() -> None:
    with IsolatedDecoder(MediaOptions(decode_timeout_s=3), RULES, MISBEHAVING) as isolated:
        pid = int(do(isolated, "pid").sha256)
        started = time.monotonic()
        for order in ("sleep 600", "kill SIGSTOP"):
            with pytest.raises(MediaTimeout, match=r"a\.png: .*media\.decode_timeout_s=3,"):
                do(isolated, order)
        assert time.monotonic() - started < 60
        assert ends(pid)
        assert do(isolated, "pid").sha256 != str(pid)


def test_progress_extends_the_time_limit() -> None:
    """The limit is on time without progress: an hour of 4K video may take hours."""
    with IsolatedDecoder(MediaOptions(decode_timeout_s=5), RULES, MISBEHAVING) as isolated:
        pid = do(isolated, "pid").sha256
        started = time.monotonic()
        do(isolated, "work 12")
        assert time.monotonic() - started > 7
        assert do(isolated, "pid").sha256 == pid


def test_too_much_memory_costs_one_part(misbehaving: IsolatedDecoder) -> None:
    message = r"a\.png: decoding it took 3\d\d MiB, with media\.decode_memory_mib=300,"
    with pytest.raises(MediaMemory, match=message):
        do(misbehaving, "grow")
    with pytest.raises(MediaMemory, match=r"a\.png: .* ran out of memory"):
        do(misbehaving, "reserve 100000")
    with pytest.raises(MediaMemory, match="produced a message of 316,"):
        do(misbehaving, "large 302")
    assert len(do(misbehaving, "large 100").pixels) == 100 * (1 << 20) // 3


def test_a_child_whose_libraries_keep_much_memory_is_replaced(misbehaving: IsolatedDecoder) -> None:
    pid = do(misbehaving, "pid").sha256
    do(misbehaving, "keep 10")
    assert do(misbehaving, "pid").sha256 == pid
    for _ in range(5):
        do(misbehaving, "keep 90")
    assert do(misbehaving, "pid").sha256 != pid


def test_a_part_is_retried_when_an_earlier_part_may_be_the_cause(
    misbehaving: IsolatedDecoder, tmp_path: Path
) -> None:
    """A part that kills a used child is tried once more in a new child."""
    do(misbehaving, "pid")
    assert do(misbehaving, f"once {tmp_path / 'used'}").notes
    misbehaving.close()
    with pytest.raises(MediaCrashed):
        do(misbehaving, f"once {tmp_path / 'new'}")


def test_errors_of_the_child_are_raised_in_the_parent(misbehaving: IsolatedDecoder) -> None:
    pid = do(misbehaving, "pid").sha256
    with pytest.raises(MediaEmpty, match=r"^it: nothing in it$"):
        do(misbehaving, "refuse it")
    with pytest.raises(DecoderError, match=r"^all is lost$"):
        do(misbehaving, "break all is lost")
    with pytest.raises(InternalError, match=r"(?s)^a\.png: .*decoder\.py.*KeyError: 'it'$"):
        do(misbehaving, "raise it")
    assert do(misbehaving, "pid").sha256 == pid


def test_output_of_decoders_is_read_but_not_logged(
    misbehaving: IsolatedDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = do(misbehaving, "pid").sha256
    do(misbehaving, "noise 1000000")
    assert do(misbehaving, "pid").sha256 == pid
    assert capfd.readouterr() == ("", "")
    with pytest.raises(MediaCrashed) as caught:
        do(misbehaving, "abort")
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_killed_from_outside_while_idle(misbehaving: IsolatedDecoder) -> None:
    pid = int(do(misbehaving, "pid").sha256)
    os.kill(pid, signal.SIGKILL)
    assert do(misbehaving, "pid").sha256 != str(pid)


@pytest.mark.parametrize("used", [True, False])
def test_killed_from_outside_while_busy(misbehaving: IsolatedDecoder, used: bool) -> None:
    """After a used child is killed the part is tried again; after a new one it fails."""

    def kill_soon() -> None:
        while misbehaving.pid is None:
            time.sleep(0.02)
        # Until the child has started and is decoding.
        time.sleep(1.0)
        os.kill(misbehaving.pid, signal.SIGKILL)

    misbehaving.close()
    if used:
        do(misbehaving, "pid")
    killer = threading.Thread(target=kill_soon)
    killer.start()
    if used:
        assert do(misbehaving, "sleep 2").notes
    else:
        with pytest.raises(MediaCrashed, match="SIGKILL"):
            do(misbehaving, "sleep 60")
    killer.join()


@pytest.mark.parametrize(
    ("decoder", "why"),
    [
        ("no.such:thing", "No module named 'no'"),
        (f"{MODULE}:none", "no attribute"),
    ],
)
def test_a_child_that_does_not_start_is_fatal(decoder: str, why: str) -> None:
    before = n_descriptors()
    isolated = IsolatedDecoder(MediaOptions(), RULES, decoder)
    with pytest.raises(DecoderError, match=rf"does not start \(exit status 1: .*{why}"):
        do(isolated, "pid")
    assert n_descriptors() == before


def test_runs_decode_in_a_child_and_the_library_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`media.isolate` decides; None leaves the choice to the caller."""
    decoded: list[Part] = []

    def decode(self: IsolatedDecoder, part: Part) -> DecodedMedia:
        decoded.append(part)
        return decode_part(part, MediaOptions(), RULES)

    monkeypatch.setattr(IsolatedDecoder, "decode_part", decode)
    part = Part("image", data=PHOTO)
    sample = Sample("s", (Message("user", (Part("text", text="?"), part)),))
    for option, default, n_isolated in [
        (None, False, 0),
        (None, True, 1),
        (True, False, 1),
        (False, True, 0),
    ]:
        decoded.clear()
        reader = SampleReader(ReadingOptions(RULES, MediaOptions(isolate=option)), isolate=default)
        assert list(reader.decode(sample)) == [1]
        assert len(decoded) == n_isolated


def test_errors_of_a_sample_name_the_part() -> None:
    reader = SampleReader(ReadingOptions(RULES, MediaOptions(isolate=True)))
    parts = (Part("image", data=PHOTO), Part("image", data=b"\x89PNG\r\n\x1a\n cut"))
    with pytest.raises(Exception, match=r"^part 1: inline image: ") as isolated:
        reader.decode(Sample("s", (Message("user", parts),)))
    with pytest.raises(type(isolated.value)) as plain:
        SampleReader(ReadingOptions(RULES)).decode(Sample("s", (Message("user", parts),)))
    assert str(plain.value) == str(isolated.value)


def test_times_are_those_of_the_child() -> None:
    """Its start, its imports and the wait for it are in no time."""
    with IsolatedDecoder(MediaOptions(), RULES, CLOCKED) as isolated:
        for _ in range(2):
            with collecting_times() as times:
                do(isolated, "anything")
            assert times == MediaTimes(decode_s=2, fetch_s=30)
