"""Decoding children end, and leave no processes, files, threads or memory behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from omnitrace_core.errors import MediaCrashed
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.conftest import ROOT
from tests.core.media.isolation.decoding_children import (
    MISBEHAVING,
    PHOTO,
    RULES,
    alive,
    do,
    ends,
    n_descriptors,
)


@pytest.mark.slow
def test_a_killed_child_leaves_no_files_descriptors_or_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shared_memory = set(os.listdir("/dev/shm"))
    with IsolatedDecoder(MediaOptions(), RULES, MISBEHAVING) as isolated:
        do(isolated, "pid")
        before = n_descriptors(), threading.active_count()
        for order in ("fetch", "offspring"):
            with pytest.raises(MediaCrashed):
                do(isolated, order)
        do(isolated, "large 100")
        assert (n_descriptors(), threading.active_count()) == before
        assert not list(tmp_path.iterdir())
        assert set(os.listdir("/dev/shm")) <= shared_memory


def test_processes_started_by_a_decoder_are_killed_too(
    misbehaving: IsolatedDecoder, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(MediaCrashed):
        do(misbehaving, f"offspring {pid_file}")
    assert ends(int(pid_file.read_text()))


def test_the_child_outlives_the_thread_that_started_it(misbehaving: IsolatedDecoder) -> None:
    """The kernel ties a child to a thread of its parent, which must not be the caller's."""
    misbehaving.close()
    thread = threading.Thread(target=do, args=(misbehaving, "pid"))
    thread.start()
    thread.join()
    pid = misbehaving.pid
    time.sleep(0.2)
    assert int(do(misbehaving, "pid").sha256) == pid


def test_an_interrupt_stops_the_child(misbehaving: IsolatedDecoder) -> None:
    pid = int(do(misbehaving, "pid").sha256)
    # Shells start background jobs with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(1.0, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            do(misbehaving, "sleep 600")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ends(pid)
    assert do(misbehaving, "pid").notes == ("pid",)


def test_the_child_ends_when_its_decoder_is_collected() -> None:
    isolated = IsolatedDecoder(MediaOptions(), RULES, MISBEHAVING)
    pid = int(do(isolated, "pid").sha256)
    del isolated
    gc.collect()
    assert ends(pid)


PARENT = f"""
import sys
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
isolated = IsolatedDecoder(MediaOptions(), MediaRules(), {MISBEHAVING!r})
isolated.decode_part(Part("image", text="pid"))
print(isolated.pid, flush=True)
isolated.decode_part(Part("image", text=sys.argv[1]))
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
    assert ends(pid)


def test_a_thousand_images_leak_nothing() -> None:
    part = Part("image", data=PHOTO)
    with IsolatedDecoder(MediaOptions(), RULES) as isolated:
        isolated.decode_part(part)
        pid = isolated.pid
        before, memory = n_descriptors(), isolated.memory_mib
        ours = resident_mib()
        for _ in range(1000):
            isolated.decode_part(part)
        assert n_descriptors() == before
        assert isolated.pid == pid
        assert isolated.memory_mib < memory + 8
        assert resident_mib() < ours + 8
    assert n_descriptors() < before


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
