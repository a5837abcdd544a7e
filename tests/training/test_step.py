"""Fits on a real Ray and in this process: equal workers, the loss of a worker, too few resources."""

import functools
import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from components.config import StepResources, TrainingConfig
from components.errors import TooFewResources
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.feed import ImageFeed
from components.images.sources.registry import list_images
from components.store.lease import acquire_lease, keep_alive
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.tracking.journal import RunJournal
from components.tracking.runs import Tracker
from components.training import step
from components.training.loop import FitData
from components.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.slow]

IMAGES = ImagesConfig(source="digits", image_size=16, channels=1, upscale=True)
TRAINING = TrainingConfig(
    updates=8, batch_size=16, learning_rate=1e-3, evaluate_every=4, checkpoint_every=2, held_out_samples=40
)
LEVELS = (
    LevelConfig(name="top", stride=4, codebook_size=16, code_width=4),
    LevelConfig(name="bottom", stride=2, codebook_size=16, code_width=4),
)
VQVAE = VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=8, residual_layers=1, restart_below=0.5, training=TRAINING)


class RecordingObjective(TokenizerObjective):
    """Records its codebooks after every update; ends its process once at update `dies_at`, if that is not 0."""

    def __init__(self, folder: str, dies_at: int) -> None:
        super().__init__(Tokenizer(VQVAE, channels=1, fitting=VQVAE), beta=VQVAE.beta)
        self.folder, self.dies_at, self.update = Path(folder), dies_at, 0

    def forward(self, batch):
        result = super().forward(batch)
        if self.training:
            self.update += 1
            self._record(len(batch.labels))
            if self.update == self.dies_at and not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os._exit(1)
        return result

    def _record(self, images: int) -> None:
        """One line per update: [images, digest of the codebooks and their counts]."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        state = sorted(self.state_dict().items())
        text = "".join(str(value.tolist()) for name, value in state if "codebook" in name or "counts" in name)
        with (self.folder / f"rank-{rank}.jsonl").open("a") as file:
            file.write(json.dumps([images, hashlib.sha256(text.encode()).hexdigest()]) + "\n")


def measured_again(feed: ImageFeed, rank: int, workers: int) -> FitData:
    """The feed's data with a remark; the best weights are measured once more on the held-out samples."""
    data = feed(rank, workers)
    remarks = [f"worker {rank} of {workers}"]
    return replace(data, final={"again": data.held_out}, remarks=lambda: [remarks.pop()] if remarks else [])


def build(folder: str, dies_at: int) -> nn.Module:
    return RecordingObjective(folder, dies_at)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("images"))
    commit_snapshot(folder, list_images(IMAGES, folder), [], IMAGES, seed=0)
    return folder


@pytest.fixture
def tracker(tmp_path) -> Tracker:
    """MLflow, in a database of the test's own."""
    return Tracker(uri=None, name="test", state=str(tmp_path))


@pytest.fixture
def journal(tracker) -> RunJournal:
    """The MLflow run of the fit."""
    return tracker.run_journal("tokenizer", "f" * 64, tracker.pipeline_run("p", {}))


@pytest.fixture
def fit(tmp_path, snapshot, journal):
    """fit(cluster, workers=1, dies_at=0): (result, records of each rank); cluster None works in this process."""
    lease = acquire_lease(str(tmp_path / "lease"), wait_seconds=0, report=print)
    feed = ImageFeed(folder=snapshot, schedule=TRAINING, order_seed=0, readers=1)

    def run(cluster, workers: int = 1, dies_at: int = 0) -> tuple[step.FitResult, list[list[list]]]:
        folder = tmp_path / ("in_process" if cluster is None else "on_ray")
        folder.mkdir()
        workspace = Workspace(
            name="tokenizer",
            fingerprint="f",
            uri=str(folder / "artifact"),
            seed=0,
            lease=lease,
            journal=journal,
            connect=lambda: cluster,
        )
        objective = functools.partial(build, str(folder), dies_at)
        data = functools.partial(measured_again, feed)
        job = step.FitJob(build=objective, data=data, config=TRAINING, resources=StepResources(workers=workers))
        result = step.run_fit(job, workspace=workspace)
        files = sorted(folder.glob("rank-*.jsonl"))
        return result, [[json.loads(line) for line in path.read_text().splitlines()] for path in files]

    with keep_alive(lease):
        yield run


def test_two_workers_share_the_batch_and_hold_identical_codebooks(fit, local_ray, capsys):
    result, records = fit(local_ray, workers=2)
    assert len(records) == 2 and len(records[0]) == TRAINING.updates
    assert records[0] == records[1]  # after every update, in both workers
    assert {images for images, _ in records[0]} == {TRAINING.batch_size // 2}
    assert len({digest for _, digest in records[0]}) == TRAINING.updates  # and they do change
    assert result.fit_progress.update == TRAINING.updates
    assert result.fit_progress.final["again"] == pytest.approx(result.fit_progress.held_out)
    said = capsys.readouterr().out
    assert said.count("tokenizer: worker 0 of 2") == said.count("tokenizer: worker 1 of 2") == 1


def test_a_dying_worker_is_replaced_from_the_last_checkpoint_and_the_weights_are_those_of_one_process(
    fit, local_ray, tracker, journal, tmp_path
):
    result, (records,) = fit(local_ray, dies_at=5)
    assert (tmp_path / "on_ray" / "died").exists()
    before, after = records[:5], records[5:]
    resumed_at = TRAINING.updates - len(after)
    assert resumed_at in (2, 4)  # Ray Train may lose the checkpoint that was being reported
    assert after[: 5 - resumed_at] == before[resumed_at:]  # the updates that were made twice gave the same
    journal.flush()
    history = tracker.client.get_metric_history(journal.run_id, "held_out/loss")
    assert [metric.step for metric in history] == [4, 8]
    assert all(math.isfinite(metric.value) for metric in history)
    assert result.fit_progress.best_loss == min(metric.value for metric in history)

    (again,) = tracker.client.get_metric_history(journal.run_id, "final_again/loss")
    assert (again.step, again.value) == (TRAINING.updates, pytest.approx(result.fit_progress.best_loss))

    in_process, (in_process_records,) = fit(None)
    assert in_process_records == before[:resumed_at] + after
    assert in_process.fit_progress == result.fit_progress
    assert all(torch.equal(value, in_process.weights[name]) for name, value in result.weights.items())


def test_a_job_larger_than_the_cluster_is_refused_with_the_number_it_needs(fit, local_ray):
    with pytest.raises(TooFewResources, match="needs 101 CPUs"):
        fit(local_ray, workers=100)


def test_a_fit_in_this_process_has_one_worker(fit):
    with pytest.raises(ValueError, match=r"a fit in this process has one worker, got resources.workers=2"):
        fit(None, workers=2)
