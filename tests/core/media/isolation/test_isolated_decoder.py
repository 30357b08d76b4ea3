"""Decoding in a child process: the same media, and the loss of no more than one part."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.errors import (
    DecoderError,
    InternalError,
    MediaCrashed,
    MediaEmpty,
    MediaMemory,
    MediaMissing,
    MediaTimeout,
)
from omnitrace_core.media import Supervisor, decode_part
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import DecodedAudio, DecodedImage, DecodedMedia, Message, Part, Sample
from tests.conftest import ROOT
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip

ODD = "tests.core.media.isolation.misbehaving_decoder:decode"
RULES = MediaRules()
PHOTO = image_bytes(Image.effect_noise((112, 84), 50).convert("RGB"))


@pytest.fixture(scope="module")
def odd() -> Iterator[Supervisor]:
    """One supervisor for most tests: what one of them does to its child must not hurt the next."""
    options = MediaOptions(decode_timeout_s=20, decode_memory_mib=300)
    with Supervisor(options, RULES, ODD) as supervisor:
        yield supervisor


def do(supervisor: Supervisor, order: str) -> DecodedImage:
    """Hand the odd decoder an order; what it says is in `sha256`."""
    decoded = supervisor.decode_part(Part("image", text=order, uri="a.png"))
    assert isinstance(decoded, DecodedImage)
    return decoded


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    """Whether a process of this id runs; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(pid: int) -> bool:
    """Whether it is gone within some seconds."""
    patience = time.monotonic() + 10
    while alive(pid) and time.monotonic() < patience:
        time.sleep(0.02)
    return not alive(pid)


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


def assert_same(ours: object, theirs: object) -> None:
    assert type(ours) is type(theirs)
    for field in dataclasses.fields(theirs):  # type: ignore[arg-type]
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(other, np.ndarray):
            assert mine.dtype == other.dtype
            assert mine.flags.writeable
            assert mine.flags.c_contiguous
            np.testing.assert_array_equal(mine, other)
        elif isinstance(other, DecodedAudio):
            assert_same(mine, other)
        else:
            assert mine == other, field.name


def test_the_same_media_as_in_this_process(parts: dict[str, Part]) -> None:
    options = MediaOptions()
    pids = set()
    with Supervisor(options, RULES) as supervisor:
        assert supervisor.pid is None, "started when needed"
        for part in parts.values():
            assert_same(supervisor.decode_part(part), decode_part(part, options, RULES))
            pids.add(supervisor.pid)
        silent = supervisor.decode_part(parts["sounding"], want_sound=False)
        assert silent.sound is None  # type: ignore[union-attr]
        with pytest.raises(MediaMissing, match=r"none\.png: no such file"):
            supervisor.decode_part(Part("image", uri="none.png"))
        pids.add(supervisor.pid)
    assert len(pids) == 1, "one child for all"
    assert supervisor.pid is None


def test_relative_addresses_follow_the_parents_folder(
    odd: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(odd, "pid")
    monkeypatch.chdir(tmp_path)
    assert do(odd, "folder").sha256 == str(tmp_path.resolve())


def test_a_crash_costs_one_part(odd: Supervisor) -> None:
    do(odd, "pid")
    with pytest.raises(
        MediaCrashed, match=r"^a\.png: .*\(SIGABRT: first line \| free\(\): \?\[31m"
    ):
        do(odd, "abort")
    assert do(odd, "pid").notes == ("pid",)
    with pytest.raises(MediaCrashed, match="exit status 3"):
        do(odd, "exit 3")
    with pytest.raises(MediaCrashed, match="SIGSEGV"):
        do(odd, "kill SIGSEGV")


def test_a_hang_costs_one_part_and_its_time() -> None:
    with Supervisor(MediaOptions(decode_timeout_s=3), RULES, ODD) as supervisor:
        pid = int(do(supervisor, "pid").sha256)
        started = time.monotonic()
        for order in ("sleep 600", "kill SIGSTOP"):
            with pytest.raises(MediaTimeout, match=r"a\.png: .*media\.decode_timeout_s=3,"):
                do(supervisor, order)
        assert time.monotonic() - started < 60
        assert gone(pid)
        assert do(supervisor, "pid").sha256 != str(pid)


def test_who_gets_on_has_all_the_time_it_needs() -> None:
    """The deadline is on silence: an hour of 4K video may take hours."""
    with Supervisor(MediaOptions(decode_timeout_s=5), RULES, ODD) as supervisor:
        pid = do(supervisor, "pid").sha256
        started = time.monotonic()
        do(supervisor, "work 12")
        assert time.monotonic() - started > 7
        assert do(supervisor, "pid").sha256 == pid


def test_too_much_memory_costs_one_part(odd: Supervisor) -> None:
    message = r"a\.png: decoding it took 3\d\d MiB, above media\.decode_memory_mib=300"
    with pytest.raises(MediaMemory, match=message):
        do(odd, "grow")
    with pytest.raises(MediaMemory, match=r"a\.png: .* asked for more memory than there is"):
        do(odd, "reserve 100000")
    with pytest.raises(MediaMemory, match="came to a message of 316,"):
        do(odd, "large 302")
    assert len(do(odd, "large 100").pixels) == 100 * (1 << 20) // 3


def test_what_libraries_keep_is_given_back_between_parts(odd: Supervisor) -> None:
    pid = do(odd, "pid").sha256
    do(odd, "keep 10")
    assert do(odd, "pid").sha256 == pid
    for _ in range(5):
        do(odd, "keep 90")
    assert do(odd, "pid").sha256 != pid


def test_no_part_pays_for_an_earlier_one(odd: Supervisor, tmp_path: Path) -> None:
    """A part on which a used child dies is tried once more in a new one."""
    do(odd, "pid")
    assert do(odd, f"once {tmp_path / 'used'}").notes
    odd.close()
    with pytest.raises(MediaCrashed):
        do(odd, f"once {tmp_path / 'new'}")


def test_errors_arrive_as_they_were(odd: Supervisor) -> None:
    pid = do(odd, "pid").sha256
    with pytest.raises(MediaEmpty, match=r"^it: nothing in it$"):
        do(odd, "refuse it")
    with pytest.raises(DecoderError, match=r"^all is lost$"):
        do(odd, "break all is lost")
    with pytest.raises(
        InternalError, match=r"(?s)^a\.png: .*misbehaving_decoder\.py.*KeyError: 'it'$"
    ):
        do(odd, "raise it")
    assert do(odd, "pid").sha256 == pid


def test_noise_is_read_and_kept_from_the_logs(
    odd: Supervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = do(odd, "pid").sha256
    do(odd, "noise 1000000")
    assert do(odd, "pid").sha256 == pid
    assert capfd.readouterr() == ("", "")
    with pytest.raises(MediaCrashed) as caught:
        do(odd, "abort")
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_killed_from_outside_while_idle(odd: Supervisor) -> None:
    pid = int(do(odd, "pid").sha256)
    os.kill(pid, signal.SIGKILL)
    assert do(odd, "pid").sha256 != str(pid)


@pytest.mark.parametrize("used", [True, False])
def test_killed_from_outside_while_busy(odd: Supervisor, used: bool) -> None:
    """A used child is replaced and the part tried once more; a new one that is killed costs it."""

    def kill_soon() -> None:
        while odd.pid is None:
            time.sleep(0.02)
        # Until it has started and is at work.
        time.sleep(1.0)
        os.kill(odd.pid, signal.SIGKILL)

    odd.close()
    if used:
        do(odd, "pid")
    killer = threading.Thread(target=kill_soon)
    killer.start()
    if used:
        assert do(odd, "sleep 2").notes
    else:
        with pytest.raises(MediaCrashed, match="SIGKILL"):
            do(odd, "sleep 60")
    killer.join()


def test_nothing_is_left_of_a_killed_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shared_memory = set(os.listdir("/dev/shm"))
    with Supervisor(MediaOptions(), RULES, ODD) as supervisor:
        do(supervisor, "pid")
        before = n_descriptors(), threading.active_count()
        for order in ("fetch", "offspring"):
            with pytest.raises(MediaCrashed):
                do(supervisor, order)
        do(supervisor, "large 100")
        assert (n_descriptors(), threading.active_count()) == before
        assert not list(tmp_path.iterdir())
        assert set(os.listdir("/dev/shm")) <= shared_memory


def test_what_a_decoder_started_is_killed_too(odd: Supervisor, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with pytest.raises(MediaCrashed):
        do(odd, f"offspring {told}")
    assert gone(int(told.read_text()))


def test_the_child_outlives_the_thread_that_started_it(odd: Supervisor) -> None:
    """The kernel ties a child to a thread of its parent; ours must not be the caller's."""
    odd.close()
    thread = threading.Thread(target=do, args=(odd, "pid"))
    thread.start()
    thread.join()
    pid = odd.pid
    time.sleep(0.2)
    assert int(do(odd, "pid").sha256) == pid


def test_an_interrupt_leaves_nothing_half_done(odd: Supervisor) -> None:
    pid = int(do(odd, "pid").sha256)
    # A shell starts what it runs in the background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(1.0, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            do(odd, "sleep 600")
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(pid)
    assert do(odd, "pid").notes == ("pid",)


def test_the_child_goes_with_its_supervisor() -> None:
    supervisor = Supervisor(MediaOptions(), RULES, ODD)
    pid = int(do(supervisor, "pid").sha256)
    del supervisor
    gc.collect()
    assert gone(pid)


PARENT = f"""
import sys
from omnitrace_core.media import Supervisor
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
supervisor = Supervisor(MediaOptions(), MediaRules(), {ODD!r})
supervisor.decode_part(Part("image", text="pid"))
print(supervisor.pid, flush=True)
supervisor.decode_part(Part("image", text=sys.argv[1]))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("order", ["pid", "sleep 600"], ids=["idle", "busy"])
def test_the_child_dies_with_a_parent_that_is_killed(order: str) -> None:
    command = [sys.executable, "-c", PARENT, order]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, **pipes) as parent:  # type: ignore[call-overload]
        pid = int(parent.stdout.readline())
        if order == "pid":
            assert parent.stdout.readline() == "done\n"
        assert alive(pid)
        parent.kill()
    assert gone(pid)


def test_a_thousand_images_leak_nothing() -> None:
    part = Part("image", data=PHOTO)
    with Supervisor(MediaOptions(), RULES) as supervisor:
        supervisor.decode_part(part)
        pid = supervisor.pid
        assert supervisor._child is not None
        before, memory = n_descriptors(), supervisor._child.memory_mib
        ours = resident_mib()
        for _ in range(1000):
            supervisor.decode_part(part)
        assert n_descriptors() == before
        assert supervisor.pid == pid
        assert supervisor._child.memory_mib < memory + 8
        assert resident_mib() < ours + 8
    assert n_descriptors() < before


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.parametrize(
    ("decoder", "why"),
    [
        ("no.such:thing", "No module named 'no'"),
        ("tests.core.media.isolation.misbehaving_decoder:none", "no attribute"),
    ],
)
def test_a_child_that_does_not_start_is_fatal(decoder: str, why: str) -> None:
    before = n_descriptors()
    supervisor = Supervisor(MediaOptions(), RULES, decoder)
    with pytest.raises(DecoderError, match=rf"does not start \(exit status 1: .*{why}"):
        do(supervisor, "pid")
    assert n_descriptors() == before


def test_who_decodes_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library decodes in its own process unless it is told otherwise; runs do not."""
    asked: list[Part] = []

    def decode(self: Supervisor, part: Part) -> DecodedMedia:
        asked.append(part)
        return decode_part(part, MediaOptions(), RULES)

    monkeypatch.setattr(Supervisor, "decode_part", decode)
    part = Part("image", data=PHOTO)
    sample = Sample("s", (Message("user", (Part("text", text="?"), part)),))
    for said, default, isolated in [
        (None, False, 0),
        (None, True, 1),
        (True, False, 1),
        (False, True, 0),
    ]:
        asked.clear()
        reader = SampleReader(ReadingOptions(RULES, MediaOptions(isolate=said)), isolate=default)
        assert list(reader.decode(sample)) == [1]
        assert len(asked) == isolated


def test_errors_of_a_sample_name_the_part() -> None:
    reader = SampleReader(ReadingOptions(RULES, MediaOptions(isolate=True)))
    parts = (Part("image", data=PHOTO), Part("image", data=b"\x89PNG\r\n\x1a\n cut"))
    with pytest.raises(Exception, match=r"^part 1: inline image: ") as isolated:
        reader.decode(Sample("s", (Message("user", parts),)))
    with pytest.raises(type(isolated.value)) as plain:
        SampleReader(ReadingOptions(RULES)).decode(Sample("s", (Message("user", parts),)))
    assert str(plain.value) == str(isolated.value)
