"""Encoding from s3:// to s3:// on a real S3 server, through a proxy that makes requests fail."""

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.cluster.step import Cluster
from components.codes.dataset import read_dataset
from components.codes.verify import verify_dataset
from components.config import StepResources
from components.errors import StorageError
from components.store import objects
from components.store.lease import TIME_TO_LIVE
from tests.codes.jobs import commit_images, dataset_rows, run_encode_job
from tests.services.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.ray, pytest.mark.services, pytest.mark.slow]

IMAGES = 60


@pytest.fixture(scope="module")
def store(s3):
    """(proxy, root): every client of this process and of its Ray goes through the proxy."""
    proxy = FaultyProxy(s3.endpoint)
    with proxy.running() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3.environment, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own retries would hide the faults and take minutes
        root = f"s3://{s3.bucket}/encode"
        for number in range(IMAGES):
            objects.write_bytes(f"{root}/images/{number % 3}/{number:03}.png", picture(number))
        yield proxy, root


@pytest.fixture(scope="module")
def cluster(store):
    """A local Ray, started with the proxy's environment, which its workers inherit."""
    import ray

    ray.shutdown()  # a Ray that other tests left in this process has an earlier environment
    yield Cluster(local_cpus=4)
    ray.shutdown()


@pytest.fixture
def proxy(store):
    """The proxy, without faults at the start of a test and reset after it."""
    proxy, _ = store
    proxy.seen.clear()
    yield proxy
    proxy.share, proxy.broken, proxy.before = 0.0, False, lambda method, path: None


@pytest.fixture
def run(store, cluster, fitted):
    """run(name): encode the images of the bucket into the folder `name`; returns the folder."""

    def make(name: str, **more) -> str:
        _, root = store
        folder = f"{root}/{name}"
        snapshot = commit_images(f"{root}/images", f"{folder}-snapshot", source="folder", channels=1)
        run_encode_job(folder, snapshot, fitted, cluster, resources=StepResources(workers=1, readers=0), **more)
        return folder

    return make


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_transient_faults_do_not_change_the_dataset(run, proxy):
    whole = run("whole")
    assert verify_dataset(whole) == [] and len(dataset_rows(whole)) == IMAGES
    proxy.share = 0.15
    faulty = run("faulty")
    assert all(proxy.seen[fault] > 3 for fault in ("throttled", "reset", "slow", "cut")), proxy.seen
    proxy.share = 0.0
    assert read_dataset(faulty).digest == read_dataset(whole).digest and read_dataset(faulty).facts.rejects == 0


def test_planning_asks_twice_for_each_shard(run, proxy):
    folder = run("planned")
    shards = read_dataset(folder).shards
    asked: list[str] = []
    proxy.before = lambda method, path: asked.append(path) if method == "GET" and "/part-" in path else None
    assert read_dataset(run("planned")).shards == shards
    assert sorted(Counter(asked).values()) == [2] * len(shards)  # the footer and the identities


def test_an_object_deleted_during_the_job_is_rejected(run, proxy, store):
    _, root = store
    gone = f"{root}/images/2/059.png"

    def delete(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/0/000.png"):
            proxy.before = lambda method, path: None
            objects.delete(gone)

    proxy.before = delete
    try:
        folder = run("deleted", max_rejects=0.05)
        table = read_dataset(folder)
        assert (table.facts.rows, table.facts.rejects) == (IMAGES - 1, 1) and verify_dataset(folder) == []
    finally:
        objects.write_bytes(gone, picture(59))


def test_a_lasting_fault_fails_the_job_and_the_next_run_resumes_it(run, proxy):
    writes: list[str] = []

    def break_after_three(method: str, path: str) -> None:
        writes.extend([path] if is_shard(method, path) else [])
        proxy.broken = len(writes) > 3

    proxy.before = break_after_three
    with pytest.raises(StorageError, match=r"cannot access s3://.*(SlowDown|reduce your|Service Unavailable)"):
        run("broken")
    proxy.before, proxy.broken = (lambda method, path: None), False
    again: list[str] = []
    proxy.before = lambda method, path: again.append(path) if is_shard(method, path) else None
    folder = run("broken", wait=TIME_TO_LIVE + 5)  # the lease could not be released either: it has to expire
    assert verify_dataset(folder) == [] and len(dataset_rows(folder)) == IMAGES
    assert len(set(again)) <= 8 - 3 + 2  # shards that were written and recorded are not written again


def is_shard(method: str, path: str) -> bool:
    return method == "PUT" and "/part-" in path and "/.work/" not in path


def test_no_written_object_contains_a_secret(run, store, s3):
    _, root = store
    for path in objects.object_sizes(f"{root}/whole"):
        assert s3.secret.encode() not in objects.read_bytes(f"{root}/whole/{path}")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == s3.secret and Path(root).name == "encode"
