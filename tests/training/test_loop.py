"""The training loop against a closed form, itself interrupted, and its schedule."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from components.config import TrainingConfig
from components.training.batches import ImageBatch
from components.training.loop import FitData, evaluate_objective, fit_objective, learning_rate_at
from components.training.state import FitState, read_fit_progress


class Line(nn.Module):
    """Objective: the mean pixel of an image is `weight` times its label; dropout makes each update random."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            self.seen += len(batch.labels)
        x = nn.functional.dropout(batch.labels[:, None].float(), 0.2, self.training)
        loss = (self.model(x)[:, 0] - batch.pixels.float().mean(dim=(1, 2, 3))).square().mean()
        return loss, {"loss": loss.detach()}


class Kept:
    """An observer that keeps what it is told and saves every checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.progressed, self.losses, self.checkpoints, self.final = folder, [], {}, [], {}
        self.remarks = []

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        self.progressed.append(update)

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        self.losses[update] = metrics["loss"]

    def measured(self, update: int, name: str, metrics: dict[str, float]) -> None:
        self.final[name] = (update, metrics["loss"])

    def remark(self, line: str) -> None:
        self.remarks.append(line)

    def checkpoint(self, state: FitState) -> None:
        target = self.folder / str(state.fit_progress.update)
        target.mkdir(parents=True)
        state.save(target)
        self.checkpoints.append(state.fit_progress.update)


def batch(update: int) -> ImageBatch:
    generator = torch.Generator().manual_seed(update)
    labels = torch.randint(1, 5, (8,), generator=generator)
    return ImageBatch((labels * 10).to(torch.uint8)[:, None, None, None].expand(8, 2, 2, 1), labels)


def batches(start: int) -> Iterator[ImageBatch]:
    while True:
        yield batch(start)
        start += 1


DATA = FitData(batches=batches, held_out=lambda: [batch(10**6), batch(10**6 + 1)])


def run(folder: Path, resume: Path | None = None, **settings: object) -> tuple[Line, Kept, FitState]:
    torch.manual_seed(0)
    objective, observer = Line(), Kept(folder)
    config = TrainingConfig(
        **{
            "updates": 40,
            "batch_size": 8,
            "learning_rate": 0.1,
            "evaluate_every": 10,
            "checkpoint_every": 10,
            **settings,
        }
    )  # type: ignore[arg-type]
    return (
        objective,
        observer,
        fit_objective(objective, config=config, seed=3, data=DATA, observer=observer, resume=resume),
    )


def test_a_resumed_fit_ends_bit_for_bit_as_an_unbroken_one(tmp_path):
    whole, _, state = run(tmp_path / "whole", weight_ema=0.9, gradient_clip=1.0)
    resumed, _, again = run(tmp_path / "resumed", resume=tmp_path / "whole" / "20", weight_ema=0.9, gradient_clip=1.0)
    assert torch.equal(whole.model.weight, resumed.model.weight) and torch.equal(whole.seen, resumed.seen)
    assert all(torch.equal(state.best[name], again.best[name]) for name in state.best)
    assert state.fit_progress == again.fit_progress


def test_evaluations_checkpoints_and_progress_come_when_they_should(tmp_path):
    _, observer, state = run(tmp_path, updates=45, evaluate_every=20, checkpoint_every=30)
    assert list(observer.losses) == [20, 40, 45] and observer.checkpoints == [30, 45]
    assert observer.progressed == [20, 40, 45] and state.fit_progress.finished


def test_the_best_weights_are_kept_and_patience_stops(tmp_path):
    objective, observer, state = run(
        tmp_path, updates=400, learning_rate=2.0, patience=2, evaluate_every=5, checkpoint_every=400
    )
    assert state.fit_progress.update < 400 and state.fit_progress.worse == 2
    assert state.fit_progress.best_loss == min(observer.losses.values())
    objective.load_state_dict(state.best)
    assert evaluate_objective(objective, DATA.held_out())["loss"] == pytest.approx(state.fit_progress.best_loss)


def test_the_average_follows_its_recursion(tmp_path):
    weights = []

    class Recording(Kept):
        def checkpoint(self, state: FitState) -> None:
            weights.append(dict(state._objective.named_parameters())["model.weight"].detach().clone())

    torch.manual_seed(0)
    objective = Line()
    first = objective.model.weight.detach().clone()
    config = TrainingConfig(
        updates=12, batch_size=8, learning_rate=0.1, weight_ema=0.5, checkpoint_every=1, evaluate_every=100
    )
    state = fit_objective(objective, config=config, seed=3, data=DATA, observer=Recording(tmp_path))
    average = first
    for update, value in enumerate(weights, start=1):
        decay = min(0.5, (1 + update) / (10 + update))
        average = decay * average + (1 - decay) * value
    assert torch.allclose(state.average["model.weight"], average)


def test_the_rate_rises_then_falls_by_half_a_cosine():
    config = TrainingConfig(updates=110, batch_size=1, learning_rate=2.0, warmup_updates=10, final_rate=0.1)
    assert [learning_rate_at(config, update) for update in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate_at(config, 60) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate_at(config, 110) == pytest.approx(0.2)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    broken = FitData(
        batches=lambda start: iter([ImageBatch(batch(0).pixels, torch.full((8,), 2**62))] * 40), held_out=DATA.held_out
    )
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        torch.manual_seed(0)
        fit_objective(
            Line(),
            config=TrainingConfig(updates=40, batch_size=8, learning_rate=1e30),
            seed=0,
            data=broken,
            observer=Kept(tmp_path),
        )


def test_the_best_weights_are_measured_on_other_samples_at_the_end(tmp_path):
    torch.manual_seed(0)
    objective, observer = Line(), Kept(tmp_path)
    config = TrainingConfig(updates=9, batch_size=8, learning_rate=3.0, weight_ema=0.9, evaluate_every=3)
    data = FitData(batches=batches, held_out=DATA.held_out, final={"test": lambda: [batch(77)], "same": DATA.held_out})
    state = fit_objective(objective, config=config, seed=0, data=data, observer=observer)
    best = Line()
    best.load_state_dict(state.best)
    assert observer.final["same"] == (9, pytest.approx(state.fit_progress.best_loss))
    assert observer.final["test"] == (9, pytest.approx(best.eval()(batch(77))[0].item()))
    assert read_fit_progress(tmp_path / "9").final["test"]["loss"] == observer.final["test"][1]
    assert not torch.equal(objective.model.weight, best.model.weight)  # not the averaged ones


def test_remarks_about_the_data_reach_the_observer(tmp_path):
    waiting, observer = [["an image went bad"], ["a second one"]], Kept(tmp_path)
    data = FitData(batches=batches, held_out=DATA.held_out, remarks=lambda: waiting.pop(0) if waiting else ())
    config = TrainingConfig(updates=45, batch_size=8, evaluate_every=45)
    fit_objective(Line(), config=config, seed=0, data=data, observer=observer)
    assert observer.progressed == [20, 40, 45] and observer.remarks == ["an image went bad", "a second one"]


def test_no_held_out_samples_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"raise images\.held_out"):
        evaluate_objective(Line(), [])
