"""A Ray cluster on this machine, in a separate process, whose nodes can be added and killed.

`python local_cluster.py N` starts a head of N CPUs and prints `{"address": ...}`. Then it reads
lines: `add N {...}` starts a node of N CPUs, with these variables in its environment, and prints
`{"raylet": process id}`; `kill ID` ends such a raylet as `kill -9` does, and prints it again. It
lives until its standard input is closed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

_ANSWERS_S = 120.0


@dataclass(frozen=True)
class LocalCluster:
    """The cluster as seen from the process that started it."""

    process: subprocess.Popen[str]
    address: str

    def add_node(self, n_cpus: float, **env: str) -> psutil.Process:
        """Start a node; returns its raylet, whose children are the node's workers.

        env: what the node's environment has besides the cluster's.
        """
        return psutil.Process(_ask(self.process, f"add {n_cpus} {json.dumps(env)}")["raylet"])

    def kill_node(self, raylet: psutil.Process) -> None:
        """kill -9 of its raylet; the workers end when they see that it is gone."""
        _ask(self.process, f"kill {raylet.pid}")


@contextmanager
def local_cluster(head_cpus: float, env: Mapping[str, str]) -> Iterator[LocalCluster]:
    """Start a cluster, and end it after the block. env: of all its processes."""
    with subprocess.Popen(
        [sys.executable, __file__, str(head_cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdin is not None
        try:
            yield LocalCluster(process, _answer(process)["address"])
        finally:
            process.stdin.close()
            process.wait(60)


def _ask(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    stop = threading.Timer(_ANSWERS_S, process.kill)
    stop.start()
    try:
        answer: dict[str, Any] = json.loads(next(li for li in process.stdout if li.startswith("{")))
    finally:
        stop.cancel()
    return answer


def main() -> None:
    """Start the cluster, carry out the lines of standard input, and stop it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": float(sys.argv[1])})
    raylets = {}
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        verb, number, *more = line.split(maxsplit=2)
        if verb == "add":
            node = cluster.add_node(num_cpus=float(number), env_vars=json.loads(more[0]))
            (info,) = node.all_processes["raylet"]
            raylets[info.process.pid] = info.process
            pid = info.process.pid
        else:
            pid = int(number)
            raylets[pid].kill()
            # Workers take a killed raylet for alive until its parent has waited for it.
            raylets[pid].wait()
        print(json.dumps({"raylet": pid}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
