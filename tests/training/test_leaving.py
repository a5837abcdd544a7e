"""A fit that is left: its workers end before the lease is given back, and no error that lasts is tried again."""

import functools
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from components.config import StepResources, TrainingConfig
from components.errors import LeaseLost, Terminated
from components.stopping import request_stop, withdraw_stop
from components.store import lease as leases
from components.store.lease import acquire_lease, keep_alive
from components.training.batches import ImageBatch
from components.training.job import FitJob
from components.training.loop import FitData
from components.training.step import run_fit
from components.workspace import SilentJournal, Workspace

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRAINING = TrainingConfig(updates=5000, batch_size=1, learning_rate=1e-3, evaluate_every=5000, checkpoint_every=5000)


class SlowObjective(nn.Module):
    """Notes the process of every update; raises ValueError at update `fails_at`, if that is not 0."""

    def __init__(self, folder: str, fails_at: int) -> None:
        super().__init__()
        self.model, self.folder, self.fails_at, self.update = nn.Linear(1, 1), Path(folder), fails_at, 0

    def forward(self, batch):
        import os

        self.update += 1
        with (self.folder / "updates").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.update == self.fails_at:
            raise ValueError("this input is wrong")
        time.sleep(0.01)
        loss = self.model(batch.labels[:, None].float()).square().mean()
        return loss, {"loss": loss.detach()}


def one_image(first_update: int = 0):
    while True:
        yield ImageBatch(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))


def feed(rank: int, workers: int) -> FitData:
    return FitData(batches=one_image, held_out=lambda: [next(one_image())])


class Fit:
    """One fit in a folder of its own, and what its workers did."""

    def __init__(self, folder: Path, cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.lease = acquire_lease(str(folder / "lease"), wait_seconds=0, report=print)

    def run(self, fails_at: int = 0, journal=None) -> None:
        build = functools.partial(SlowObjective, str(self.folder), fails_at)
        job = FitJob(build=build, data=feed, config=TRAINING, resources=StepResources())
        workspace = Workspace(
            name="tokenizer",
            fingerprint="f",
            uri=str(self.folder / "artifact"),
            seed=0,
            lease=self.lease,
            journal=journal or SilentJournal(),
            connect=lambda: self.cluster,
        )
        run_fit(job, workspace=workspace)

    def updates(self) -> list[int]:
        """The process that made each update."""
        path = self.folder / "updates"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def when_fitting(self, action) -> threading.Thread:
        """Call `action` in another thread once the fit has made some updates."""

        def run() -> None:
            while len(self.updates()) < 50:
                time.sleep(0.05)
            action()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def take_over(self) -> None:
        """As a newer run that found the lease silent."""
        assert leases._create(self.lease.folder, self.lease.number + 1, False)


@pytest.fixture
def fit(tmp_path, local_ray):
    return Fit(tmp_path, local_ray)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


class BrokenJournal(SilentJournal):
    """A tracker that is away."""

    def metrics(self, step, values) -> None:
        raise OSError("no tracker")


def test_a_driver_that_fails_ends_the_workers_while_it_still_holds_the_lease(fit):
    with keep_alive(fit.lease):
        with pytest.raises(OSError, match="no tracker"):
            fit.run(journal=BrokenJournal())
        assert fit.lease.held() and not any(map(is_alive, set(fit.updates())))


def test_a_driver_that_is_asked_to_stop_ends_the_workers(fit):
    thread = fit.when_fitting(lambda: request_stop(Terminated))
    try:
        with pytest.raises(Terminated):
            fit.run()
    finally:
        thread.join()
        withdraw_stop()
    assert not any(map(is_alive, set(fit.updates())))


def test_a_worker_whose_lease_was_taken_over_ends_by_itself_and_is_not_replaced(fit):
    """The driver has no heartbeat here, as if it were stalled: the worker must find out, and repeat nothing."""
    thread = fit.when_fitting(fit.take_over)
    with pytest.raises(LeaseLost, match="newer run"):
        fit.run()
    thread.join()
    assert len(set(fit.updates())) == 1 and len(fit.updates()) < TRAINING.updates


def test_a_driver_whose_lease_was_taken_over_leaves_nothing_at_work(fit):
    thread = fit.when_fitting(fit.take_over)
    with pytest.raises(LeaseLost), keep_alive(fit.lease):
        fit.run()
    thread.join()
    made = len(fit.updates())  # the worker may have found out first: then it has ended its fit, and ends with Ray Train
    time.sleep(1)
    assert len(fit.updates()) == made < TRAINING.updates and len(set(fit.updates())) == 1


def test_an_error_that_the_same_input_would_repeat_ends_the_fit_at_once(fit):
    with pytest.raises(ValueError, match="this input is wrong"):
        fit.run(fails_at=3)
    assert len(fit.updates()) == 3
