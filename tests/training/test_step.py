"""The launcher on a real Ray: two workers stay equal, a dying worker costs nothing, a broken checkpoint is noticed."""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from components.cluster.step import Cluster
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
from components.tracking.runs import RunJournal, Tracker
from components.training import step
from components.training.job import FitJob, FitResult
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


class Watched(TokenizerObjective):
    """Writes down its codebooks after every update; dies once at `dies_at`, where that is set."""

    def __init__(self, folder: str, dies_at: int) -> None:
        super().__init__(Tokenizer(VQVAE, channels=1, fitting=VQVAE), beta=VQVAE.beta)
        self.folder, self.dies_at, self.made = Path(folder), dies_at, 0

    def forward(self, batch):
        found = super().forward(batch)
        if self.training:
            self.made += 1
            rank = dist.get_rank() if dist.is_initialized() else 0
            text = "".join(
                str(value.tolist())
                for name, value in sorted(self.state_dict().items())
                if "codebook" in name or "counts" in name
            )
            with (self.folder / f"rank-{rank}.jsonl").open("a") as file:
                file.write(json.dumps([self.made, len(batch.labels), hashlib.sha256(text.encode()).hexdigest()]) + "\n")
            if self.made == self.dies_at and not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os._exit(1)
        return found


def build(folder: str, dies_at: int) -> nn.Module:
    return Watched(folder, dies_at)


@pytest.fixture(scope="module")
def cluster():
    import ray

    yield Cluster(local_cpus=4)
    ray.shutdown()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("images"))
    commit_snapshot(folder, list_images(IMAGES, folder), [], IMAGES, seed=0)
    return folder


@pytest.fixture
def fit(tmp_path, snapshot, cluster):
    """Run a fit of `Watched`; returns (fitted, notes of each rank)."""
    tracker = Tracker(uri=None, name="test", state=str(tmp_path))
    journal = tracker.run_journal("tokenizer", "f" * 64, tracker.pipeline_run("p", {}))
    lease = acquire_lease(str(tmp_path / "lease"), wait_seconds=0, report=print)
    space = Workspace(
        name="tokenizer",
        fingerprint="f",
        uri=str(tmp_path / "artifact"),
        seed=0,
        lease=lease,
        journal=journal,
        connect=lambda: cluster,
    )
    feed = ImageFeed(folder=snapshot, schedule=TRAINING, order_seed=0, readers=1)

    def run(workers: int, dies_at: int = 0) -> tuple[FitResult, list[list[list]]]:
        job = FitJob(
            build=functools.partial(build, str(tmp_path), dies_at),
            data=feed,
            config=TRAINING,
            resources=StepResources(workers=workers),
        )
        fitted = step.run_fit(job, workspace=run.workspace)
        return fitted, [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(tmp_path.glob("rank-*.jsonl"))
        ]

    with keep_alive(lease):
        run.journal, run.workspace = journal, space  # type: ignore[attr-defined]
        yield run


def test_two_workers_share_the_batch_and_hold_identical_codebooks(fit):
    fitted, notes = fit(workers=2)
    assert len(notes) == 2 and len(notes[0]) == TRAINING.updates
    assert notes[0] == notes[1]  # after every update, on both
    assert {size for _, size, _ in notes[0]} == {TRAINING.batch_size // 2}
    assert len({digest for _, _, digest in notes[0]}) == TRAINING.updates  # and they do change
    assert fitted.fit_progress.update == TRAINING.updates


def test_a_dying_worker_is_replaced_from_the_last_checkpoint_and_the_result_is_the_same(fit, tmp_path):
    fitted, (notes,) = fit(workers=1, dies_at=5)
    assert (tmp_path / "died").exists()
    digests = [digest for _, _, digest in notes]
    before, after = digests[:5], digests[5:]
    resumed_at = TRAINING.updates - len(after)
    assert resumed_at in (2, 4)  # Ray Train may lose the checkpoint that was being reported
    assert after[: 5 - resumed_at] == before[resumed_at:]  # what was made twice came out the same
    journal: RunJournal = fit.journal
    history = journal._client.get_metric_history(journal.run_id, "held_out/loss")
    assert [metric.step for metric in history] == [4, 8] and torch.isfinite(
        torch.tensor([metric.value for metric in history])
    ).all()
    assert fitted.fit_progress.best_loss == min(metric.value for metric in history)


def test_a_job_larger_than_the_cluster_is_refused_with_the_number_it_needs(fit):
    with pytest.raises(TooFewResources, match="needs 101 CPUs"):
        fit(workers=100)


def test_a_fit_in_this_process_gives_the_weights_of_a_ray_train_worker(fit, tmp_path):
    on_ray, (on_ray_notes,) = fit(workers=1)
    (tmp_path / "rank-0.jsonl").unlink()
    fit.workspace = dataclasses.replace(fit.workspace, uri=str(tmp_path / "plain"), connect=lambda: None)
    in_process, (notes,) = fit(workers=1)
    assert notes == on_ray_notes and in_process.fit_progress == on_ray.fit_progress
    assert all(torch.equal(value, in_process.weights[name]) for name, value in on_ray.weights.items())


def test_a_fit_in_this_process_has_one_worker(fit):
    fit.workspace = dataclasses.replace(fit.workspace, connect=lambda: None)
    with pytest.raises(ValueError, match=r"a fit in this process has one worker, got resources.workers=2"):
        fit(workers=2)
