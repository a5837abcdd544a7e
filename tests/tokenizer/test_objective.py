"""The objective of the tokenizer's fit, and the reproducibility of a fit."""

import math

import pytest
import torch

from components.config import TrainingConfig
from components.images.tensors import to_images
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import ImageBatch


def make_objective(beta=0.25):
    torch.manual_seed(0)
    sizes = {"top": (4, 8), "bottom": (2, 16)}
    levels = tuple(LevelConfig(name=name, stride=stride, codebook_size=k) for name, (stride, k) in sizes.items())
    training = TrainingConfig(updates=1, batch_size=1)
    config = VQVAEConfig(levels=levels, hidden=8, residual_hidden=4, restart_below=0.3, decay=0.8, training=training)
    return TokenizerObjective(Tokenizer(config, channels=3, fitting=config), beta=beta)


def random_batch(seed=0):
    pixels = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return ImageBatch(pixels, torch.zeros(4, dtype=torch.int64))


def fit(objective, seeds):
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for seed in seeds:
        torch.manual_seed(seed)  # what is drawn depends on the update alone, as in components/training/loop.py
        loss, _ = objective(random_batch(seed))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return objective


def equal_states(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_loss_and_metrics_match_their_definitions():
    objective = fit(make_objective(), range(2)).eval()
    with torch.no_grad():
        loss, metrics = objective(random_batch())
        output = objective.model(to_images(random_batch().pixels))
    images = random_batch().pixels.permute(0, 3, 1, 2).double() / 255
    error = (output.reconstruction.double() - (images * 2 - 1)).square().mean()
    unit = ((output.reconstruction.double() + 1) / 2).clamp(0, 1)
    assert float(loss) == pytest.approx(float(error + 0.25 * output.commitment), rel=1e-5)
    assert float(metrics["reconstruction_error"]) == pytest.approx(float(error), rel=1e-5)
    per_image = [-10 * math.log10(each) for each in (unit - images).square().mean(dim=(1, 2, 3))]
    assert float(metrics["psnr"]) == pytest.approx(sum(per_image) / len(per_image), rel=1e-5)
    assert metrics["loss"] == loss
    assert set(metrics) == {
        "loss",
        "reconstruction_error",
        "psnr",
        "perplexity_top",
        "usage_top",
        "perplexity_bottom",
        "usage_bottom",
    }


def test_beta_scales_only_the_commitment():
    low, high = (fit(make_objective(beta), []).eval() for beta in (0.25, 1.0))
    (a, metrics), (b, others) = low(random_batch()), high(random_batch())
    commitment = low.model(to_images(random_batch().pixels)).commitment
    assert torch.equal(metrics["reconstruction_error"], others["reconstruction_error"])
    torch.testing.assert_close(b - a, 0.75 * commitment)


def test_every_parameter_has_a_gradient_at_every_update():
    objective = make_objective()
    for seed in range(2):
        objective.zero_grad()
        loss, metrics = objective(random_batch(seed))
        loss.backward()
        assert not any(value.requires_grad for value in metrics.values())
        assert all(parameter.grad is not None for parameter in objective.parameters())


def test_the_same_seed_and_data_give_the_same_bits():
    assert equal_states(fit(make_objective(), range(5)), fit(make_objective(), range(5)))


def test_a_fit_resumed_from_a_saved_state_equals_an_unbroken_fit():
    whole = fit(make_objective(), range(6))
    state = {name: value.clone() for name, value in fit(make_objective(), range(3)).state_dict().items()}
    torch.manual_seed(99)
    resumed = make_objective()
    resumed.load_state_dict(state)
    assert equal_states(fit(resumed, range(3, 6)), whole)


def test_fitting_lowers_the_loss():
    objective = make_objective()
    before = objective(random_batch())[0].item()
    assert fit(objective, 30 * [0])(random_batch())[0].item() < before
