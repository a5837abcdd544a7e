"""One encode job on two nodes, the second of which is killed during the job: `python node_loss.py SNAPSHOT TOKENIZER
FOLDER` prints how many nodes were alive at the end."""

import os
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster as Nodes

from components.cluster.step import Cluster
from components.codes.dataset import TokenizerFiles, tokenizer_digest
from components.config import StepResources
from tests.codes.jobs import call_when, run_encode_job, shard_write_times

FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}


def main(snapshot: str, tokenizer: str, folder: str) -> None:
    """Run the job with three encode workers, more than one node has CPUs for."""
    nodes = Nodes()
    nodes.add_node(num_cpus=2, include_dashboard=False, _system_config=FAST_HEALTH_CHECKS)
    lost = nodes.add_node(num_cpus=2)
    os.environ["RAY_ADDRESS"] = nodes.address
    files = TokenizerFiles(Path(tokenizer), tokenizer_digest(Path(tokenizer)))
    watcher = call_when(lambda: len(shard_write_times(folder)) >= 4, lost.kill_raylet)
    run_encode_job(folder, snapshot, files, Cluster(local_cpus=0), resources=StepResources(workers=3, readers=0))
    watcher.join()
    deadline = time.monotonic() + 30
    while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)  # the head may notice only after the job is done
    print("nodes alive:", alive)
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
