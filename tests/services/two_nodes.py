"""A Ray cluster of two nodes on this machine: `python two_nodes.py <file>` writes its address into <file> when both
nodes run, and stops them on SIGTERM or SIGINT."""

import signal
import sys
import threading
from pathlib import Path

from ray.cluster_utils import Cluster

CPUS = 3
"""Logical CPUs per node."""


def main(address_file: Path) -> None:
    """Start the nodes and wait for a signal."""
    stop = threading.Event()
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=CPUS, include_dashboard=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    new_file = address_file.with_suffix(".new")
    new_file.write_text(cluster.address)
    new_file.rename(address_file)
    stop.wait()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
