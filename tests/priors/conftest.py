"""Tiny priors with weights large enough that every path through the network matters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from components.config import TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.model import Prior
from tests.codes.conftest import codes as codes  # fixture: 50 rows of known codes

BuildPrior = Callable[..., Prior]


@pytest.fixture
def build_prior() -> BuildPrior:
    """Prior of 7 codes and 3 classes, in eval mode; keywords go to its config."""

    def build(
        shape: tuple[int, int] = (4, 4),
        above: tuple[MapSpec, ...] = (),
        *,
        seed: int = 0,
        classes: int = 3,
        **settings: Any,
    ) -> Prior:
        sizes: dict[str, Any] = {"hidden": 8, "residual_hidden": 6, "layers": 2, "filter_size": 3, "attention_heads": 2}
        torch.manual_seed(seed)
        config = PriorConfig(**(sizes | settings), training=TrainingConfig(updates=1, batch_size=1))
        prior = Prior(config, shape=shape, codebook_size=7, classes=classes, above=above, dropout=config.dropout).eval()
        with torch.no_grad():
            for weight in prior.parameters():
                weight.mul_(2)
        return prior

    return build
