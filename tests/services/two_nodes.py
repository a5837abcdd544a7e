"""A Ray cluster of two nodes on this machine: `python two_nodes.py <file>` writes its address into <file> once both
nodes are there, and ends them when it is told to end."""

import signal
import sys
import threading
from pathlib import Path

from ray.cluster_utils import Cluster

CPUS = 3
"""Logical CPUs of a node."""


def main(told: Path) -> None:
    """Start the nodes and wait for a signal."""
    stop = threading.Event()
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=CPUS, include_dashboard=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    written = told.with_suffix(".new")
    written.write_text(cluster.address)
    written.rename(told)
    stop.wait()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
