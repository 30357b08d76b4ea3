"""A separate Ray head on this machine, with its own home, folder, ports and token.

`ray stop` would stop every Ray of the machine, so the head runs in the foreground of a process
group, and that group is ended.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import ROOT

_BIN = Path(sys.executable).parent
_UP_S = 120.0


class RayHead:
    """A running head, and how to reach it."""

    def __init__(self, home: Path, n_cpus: int) -> None:
        self.home = home
        names = ("gcs", "dashboard", "agent", "client", "metrics")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.address = f"127.0.0.1:{self.ports['gcs']}"
        token = home / ".ray" / "auth_token"
        token.parent.mkdir(parents=True)
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = self._environment()
        self._n_cpus = n_cpus

    def _environment(self) -> dict[str, str]:
        """Environment of the head and its clients, without the RAY_ variables of this process."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # A job must import the code that was submitted with it.
        env.pop("PYTHONPATH", None)
        return env | {
            "HOME": str(self.home),
            "PATH": f"{_BIN}{os.pathsep}{env['PATH']}",
            "OMP_WAIT_POLICY": "passive",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.ports['dashboard']}",
            "RAY_metrics_report_interval_ms": "1000",
            # As docs/cluster.md advises: a stopped job gets more than 3 s to end.
            "RAY_JOB_STOP_WAIT_TIME_S": "30",
        }

    def command(self) -> list[str]:
        """The command that starts the head and stays in the foreground."""
        options = {
            "port": self.ports["gcs"],
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self.ports["dashboard"],
            "dashboard-agent-listen-port": self.ports["agent"],
            "ray-client-server-port": self.ports["client"],
            "metrics-export-port": self.ports["metrics"],
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": self._n_cpus,
            "object-store-memory": 200_000_000,
            "temp-dir": self.home / "ray",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return [str(_BIN / "ray"), "start", "--head", "--block", *arguments]

    def wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the head accepts jobs."""
        deadline = time.monotonic() + _UP_S
        while time.monotonic() < deadline and process.poll() is None:
            if self.ray("job", "list").returncode == 0:
                return
            time.sleep(0.5)
        raise RuntimeError((self.home / "log").read_text())

    def ray(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the `ray` command as a user of the head. env: overrides the environment."""
        return subprocess.run(
            [str(_BIN / "ray"), *arguments],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def status(self, job: str) -> str:
        """The status of a job, in capitals."""
        done = self.ray("job", "status", job)
        words = (done.stdout + done.stderr).split()
        known = ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING")
        return next((word for word in known if any(word in item.upper() for item in words)), "")

    def metrics(self, name: str) -> dict[str, float]:
        """Lines of the Prometheus endpoint that begin with a name, and their values."""
        url = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith(name)]
        return {key: float(value) for key, value in found}


@contextmanager
def ray_head(n_cpus: int) -> Iterator[RayHead]:
    """Start a head; after the block, end it and all processes that it started."""
    with ExitStack() as stack:
        yield _start_one(stack, n_cpus)


def _start_one(stack: ExitStack, n_cpus: int) -> RayHead:
    for is_last in (False, False, True):
        with ExitStack() as trial:
            # Ray puts sockets below this folder, whose paths may have 107 characters at most.
            folder = TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
            head = RayHead(Path(trial.enter_context(folder)), n_cpus)
            log = trial.enter_context((head.home / "log").open("wb"))
            process = subprocess.Popen(
                head.command(), env=head.env, stdout=log, stderr=log, start_new_session=True
            )
            trial.callback(_end, process, head.home)
            try:
                head.wait_until_up(process)
            except RuntimeError:
                # Another process may have taken one of its ports meanwhile.
                if is_last:
                    raise
                continue
            stack.enter_context(trial.pop_all())
            return head
    raise AssertionError("unreachable")


def _end(process: subprocess.Popen[bytes], home: Path) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    # Processes that left the group are found by HOME in their environment.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pid in _processes_of(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes_of(home: Path) -> list[int]:
    """Ids of processes whose environment has this HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (
                entry.name.isdigit()
                and f"HOME={home}\0".encode() in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
    return found


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def has_job_server() -> bool:
    """Whether Ray's dashboard and its job server are installed."""
    try:
        import aiohttp_cors  # noqa: F401
        import opentelemetry  # noqa: F401
    except ImportError:
        return False
    return True


needs_job_server = pytest.mark.skipif(
    not has_job_server(), reason="needs ray[default]: pip install -c constraints.txt 'ray[default]'"
)
