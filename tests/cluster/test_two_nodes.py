"""A cluster of two nodes with three CPUs each, as a driver meets it: shared folders, and workers that fit on a node."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.endtoend.conftest import environment

pytestmark = [pytest.mark.ray, pytest.mark.services, pytest.mark.slow]

PROGRAM = """
    import sys
    from components.cluster.step import Cluster
    from components.config import StepResources
    from components.errors import TooFewResources, UsageError

    cluster = Cluster(local_cpus=1)
    cluster.check_shared(sys.argv[1], "artifact_root")
    print("shared")
    try:
        cluster.check_shared("/proc/self/cwd/artifacts", "artifact_root")  # each process sees a folder of its own
    except UsageError as error:
        print("refused:", error)
    try:
        with cluster.reserve("codes", StepResources(workers=1, cpus=4)):
            print("has room")
    except TooFewResources as error:
        print("refused:", error)
    with cluster.reserve("codes", StepResources(workers=2, cpus=2)):
        print("has room")
    cluster.close()
"""


def test_a_folder_of_one_process_and_a_worker_larger_than_a_node_are_refused(ray_cluster, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "artifacts")],
        cwd=tmp_path,
        env=environment(**ray_cluster.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    shared, local_folder, large_worker, room = result.stdout.splitlines()
    assert (shared, room) == ("shared", "has room") and result.returncode == 0
    assert "all 2 nodes" in local_folder and "s3://bucket/prefix" in local_folder
    assert "the largest with 3 CPUs" in large_worker
    assert list(Path(tmp_path).rglob(".probe*")) == []
