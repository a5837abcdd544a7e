"""The cluster that a driver works on: requests to the autoscaler, abandoned tasks, folders on one node."""

import contextlib
import json
import os
import time
from pathlib import Path

import pytest

from components.cluster.tasks import run_tasks
from components.config import StepResources
from components.errors import Terminated, TooFewResources
from components.stopping import request_stop, withdraw_stop

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def requested_bundles() -> list[dict[str, float]]:
    """What the autoscaler would read: the one request that the cluster keeps, largest first."""
    from ray.experimental.internal_kv import _internal_kv_get

    stored = json.loads(_internal_kv_get("autoscaler_resource_request") or b"[]")
    return sorted((each.get("resources", each) for each in stored), key=lambda each: -each["CPU"])


def test_steps_that_wait_ask_the_autoscaler_together_and_withdraw(local_ray):
    from components.cluster.autoscaler import AutoscalerRequest

    request = AutoscalerRequest()
    request.add("prior_top", StepResources(workers=2, cpus=3))
    request.add("prior_bottom", StepResources(workers=1, cpus=5))
    assert requested_bundles() == [{"CPU": 5}, {"CPU": 3}, {"CPU": 3}, {"CPU": 1}]
    request.remove("prior_bottom")
    assert requested_bundles() == [{"CPU": 3}, {"CPU": 3}, {"CPU": 1}]
    request.remove("prior_top")
    assert requested_bundles() == []


@pytest.fixture
def growing_cluster(local_ray):
    """The same Ray, joined with an hour for an autoscaler."""
    from components.cluster.step import Cluster

    return Cluster(local_cpus=4, autoscale_seconds=3600)


def test_a_step_that_waits_for_the_autoscaler_stops_when_asked_and_withdraws_its_request(growing_cluster):
    import threading

    seen = []

    def stop_when_asked_for():
        while not (bundles := requested_bundles()):
            time.sleep(0.05)
        seen.extend(bundles)
        request_stop(Terminated)

    thread = threading.Thread(target=stop_when_asked_for)
    thread.start()
    try:
        with pytest.raises(Terminated), growing_cluster.reserve("codes", StepResources(workers=50)):
            pass
    finally:
        thread.join()
        withdraw_stop()
    assert len(seen) == 51 and requested_bundles() == []


def test_workers_larger_than_every_node_are_refused_at_once(local_ray):
    with pytest.raises(TooFewResources, match="needs 9 CPUs"), local_ray.reserve("x", StepResources(cpus=8)):
        pass


def test_a_cluster_of_one_node_needs_no_shared_folder(local_ray, tmp_path):
    local_ray.check_shared(str(tmp_path / "artifacts"), "artifact_root")
    assert list(tmp_path.iterdir()) == []


def write_for_ever(folder: str, number: int) -> None:
    """Notes the worker's pid, then the time, again and again."""
    Path(folder, f"pid-{number}").write_text(str(os.getpid()))
    while number:
        Path(folder, "time").write_text(str(time.time()))
        time.sleep(0.01)


def test_tasks_that_the_caller_leaves_end_with_their_workers(local_ray, tmp_path):
    tasks = run_tasks(
        write_for_ever,
        [(str(tmp_path), number) for number in (0, 1)],
        what="x",
        resources=StepResources(workers=2),
        cluster=local_ray,
    )
    with contextlib.closing(tasks):
        assert next(tasks) == (0, None)
        while not (tmp_path / "time").exists():
            time.sleep(0.05)
    pid = (tmp_path / "pid-1").read_text()
    deadline = time.monotonic() + 20
    while is_running(pid):  # on a busy machine it takes a moment to go
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
