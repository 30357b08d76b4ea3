"""A Ray cluster of two nodes on this machine, in a process of its own.

Prints the address and the process id of the second node's raylet as one line of JSON, and lives
until its standard input is closed.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start it, say where it is, wait, and stop it."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    second = cluster.add_node(num_cpus=3)
    raylets = [info.process.pid for info in second.all_processes["raylet"]]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
