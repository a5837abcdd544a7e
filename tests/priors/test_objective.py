import math

import pytest
import torch

from components.priors.conditioning import MapSpec
from components.priors.objective import PriorObjective
from components.training.batches import CodeBatch

BATCH = CodeBatch((torch.arange(8).view(2, 2, 2) % 4, torch.arange(32).view(2, 4, 4) % 7), torch.tensor([0, -1]))


def test_loss_is_the_mean_negative_log_probability_of_the_levels_own_codes(build_prior):
    objective = PriorObjective(build_prior((4, 4), (MapSpec(2, 2, 4),)), dimensions=64).eval()
    loss, metrics = objective(BATCH)
    probability = objective.model(BATCH.maps[1], torch.tensor([0, 3]), BATCH.maps[:1]).softmax(-1)
    terms = [probability[n, i, j, BATCH.maps[1][n, i, j]].log() for n in range(2) for i in range(4) for j in range(4)]
    expected = -sum(term.item() for term in terms) / 32
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"].item() == metrics["nats_per_code"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["bits_per_code"].item() == pytest.approx(expected / math.log(2), rel=1e-5)
    assert metrics["bits_per_dimension"].item() == pytest.approx(expected * 16 / math.log(2) / 64, rel=1e-5)
    hits = (probability.argmax(-1) == BATCH.maps[1]).float().mean()
    assert metrics["accuracy"].item() == pytest.approx(hits.item())
    assert not any(value.requires_grad for value in metrics.values())


def seen_labels(objective: PriorObjective, count: int) -> torch.Tensor:
    """Labels that reach the model for `count` images of class 1."""
    seen: list[torch.Tensor] = []
    handle = objective.model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[1]))
    objective(CodeBatch((torch.zeros(count, 2, 2).long(),), torch.ones(count).long()))
    handle.remove()
    return seen[0]


def test_label_dropout_hides_the_configured_share_while_training_only(build_prior):
    objective = PriorObjective(build_prior((2, 2), label_dropout=0.25), dimensions=64)
    torch.manual_seed(0)
    first = seen_labels(objective.train(), 4000)
    assert set(first.tolist()) == {1, 3}
    assert (first == 3).float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.manual_seed(0)
    assert torch.equal(seen_labels(objective, 4000), first)
    assert (seen_labels(objective.eval(), 100) == 1).all()


def test_labels_of_other_data_are_refused(build_prior):
    objective = PriorObjective(build_prior((2, 2)), dimensions=64)
    codes = (torch.zeros(1, 2, 2).long(),)
    with pytest.raises(ValueError, match="labels must be below classes=3, or -1 for 'no class'; got 3"):
        objective(CodeBatch(codes, torch.tensor([3])))
    with pytest.raises(ValueError, match="labels must be integers"):
        objective(CodeBatch(codes, torch.tensor([-2])))


@pytest.mark.slow
def test_objective_compiles_whole(build_prior):
    objective = PriorObjective(build_prior((4, 4), (MapSpec(2, 2, 4),), label_dropout=0.5), dimensions=64).eval()
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(BATCH)[0], objective(BATCH)[0])


def test_bfloat16_loss_is_float32_and_close(build_prior):
    objective = PriorObjective(build_prior((4, 4), (MapSpec(2, 2, 4),)), dimensions=64).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = objective(BATCH)[0]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(objective(BATCH)[0].item(), rel=0.02)
