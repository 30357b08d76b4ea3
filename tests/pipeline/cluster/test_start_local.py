"""A local Ray that does not come up is tried again, without what the last try left running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private import services

from omnitrace_core.errors import RunError
from pipeline.cluster import start_local as module
from pipeline.cluster.ray_processes import ray_processes_of
from pipeline.cluster.start_local import start_local
from tests.conftest import ROOT

# As Ray raises it.
TIMED_OUT = Exception("The current node timed out during startup.")
# No process has this id; other tests may have a real Ray of this process.
STARTER = os.getpid() + 10_000_000
PORT_WAIT = "RAY_gcs_server_port_wait_time_s"


class Init:
    """In place of `ray.init`: fails with these errors, one after another, then succeeds.

    Each try leaves a process of our session, as a start does that Ray gives up.
    """

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.n_tries = 0
        self.n_left: list[int] = []
        self.patience: list[str | None] = []
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self) -> None:
        self.n_tries += 1
        self.n_left.append(len(ray_processes_of(STARTER)))
        self.patience.append(os.environ.get(PORT_WAIT))
        session = f"--session-dir=/tmp/ray/session_2026-01-31_10-00-00_123456_{STARTER}"
        code = "import time; print('ready', flush=True); time.sleep(600)"
        command = [sys.executable, "-c", code, session]
        self.started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        # Linux shows no command line for a moment.
        assert (output := self.started[-1].stdout) is not None
        assert output.readline() == b"ready\n"
        if self.errors:
            raise self.errors.pop(0)

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture(autouse=True)
def without_real_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORT_WAIT, raising=False)
    monkeypatch.setattr(module, "ray", SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setattr(module, "ray_processes_of", lambda pid: ray_processes_of(STARTER))


@pytest.mark.parametrize("error", [TIMED_OUT, ConnectionError("no"), RuntimeError("no port")])
def test_start_that_fails_twice(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    init, slept = Init(error, error), list[float]()
    get_node = services.get_node
    start_local(init, slept.append)
    try:
        assert (init.n_tries, len(slept)) == (3, 2)
        assert init.n_left == [0, 0, 0]
        assert init.patience == ["30", "90", "180"]
        assert len(ray_processes_of(STARTER)) == 1  # that of the start that succeeded
        messages = [record.getMessage() for record in caplog.records]
        assert [text.partition("; ")[2] for text in messages] == [
            "trying again, 2 of 3, with up to 90 s for it",
            "trying again, 3 of 3, with up to 180 s for it",
        ]
        assert services.get_node is get_node
        assert PORT_WAIT not in os.environ
    finally:
        init.end()


def test_start_that_always_fails() -> None:
    init = Init(*[TIMED_OUT] * 9)
    with pytest.raises(RunError, match=r"did not start, at try 3 of 3: The current node timed out"):
        start_local(init, lambda seconds: None)
    assert (init.n_tries, ray_processes_of(STARTER)) == (3, [])
    init.end()


@pytest.mark.parametrize(
    "error", [PermissionError("/tmp/ray"), ValueError("num_cpus"), FileNotFoundError("/x")]
)
def test_errors_that_another_try_cannot_mend(error: Exception) -> None:
    init = Init(error)
    with pytest.raises(RunError, match="at try 1 of 3"):
        start_local(init, lambda seconds: None)
    assert (init.n_tries, ray_processes_of(STARTER)) == (1, [])
    init.end()


def test_patience_with_the_node_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray asks for its node, and gives up 30 s after the first answer that it is not there."""
    clock = [0.0]

    def no_node(gcs_address: str, node_id: str) -> dict[str, object]:
        clock[0] += 7
        raise RuntimeError("no node")

    def init() -> None:
        began = clock[0]
        try:
            services.get_node("127.0.0.1:1", "node")
        except RuntimeError:
            asked_s.append(clock[0] - began)
            raise

    asked_s: list[float] = []
    monkeypatch.setattr(services, "get_node", no_node)
    time = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None)
    monkeypatch.setattr(module, "time", time)
    with pytest.raises(RunError):
        start_local(init, lambda seconds: None)
    assert asked_s == [35, 91, 182]


# Ray starts its processes, and gives up waiting for its node as it does after 30 s.
REAL_LEFTOVERS = """
import os

import ray
from ray._private import services
from pipeline.cluster.ray_processes import processes_with, ray_processes_of
from pipeline.cluster.start_local import start_local

get_node, left = services.get_node, []


def give_up_once(gcs_address, node_id):
    if not left:
        left.extend(ray_processes_of(os.getpid()))
        programs = processes_with("/gcs_server |/raylet ")
        assert {process for process, _ in programs} & set(left), "nothing to end"
        raise Exception("The current node timed out during startup.")
    return get_node(gcs_address, node_id)


services.get_node = give_up_once
start_local(
    lambda: ray.init(address="local", num_cpus=1, include_dashboard=False),
    sleep=lambda seconds: print(len([process for process in left if process.alive]), "alive"),
)
assert len(left) >= 2, left
assert ray.get(ray.remote(lambda: 7).remote()) == 7
started = ray_processes_of(os.getpid())
ray.shutdown()
assert started and not set(started) & set(left)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_real_leftovers_are_ended_before_the_next_try(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(REAL_LEFTOVERS)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[0] == "0 alive"
