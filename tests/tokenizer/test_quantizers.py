"""The registry of quantizers, and what every quantizer must do."""

from typing import get_args, get_type_hints

import pytest
import torch

from components.tokenizer.config import LevelConfig, VQVAEArchitecture, VQVAEFitting
from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.model import Tokenizer
from components.tokenizer.quantizers import QUANTIZERS


def features(seed, n=3, width=4, side=8):
    return torch.randn(n, width, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_config_names_every_registered_quantizer():
    assert set(get_args(get_type_hints(VQVAEArchitecture)["quantizer"])) == set(QUANTIZERS)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_encode_and_lookup_of_every_quantizer_match_its_forward(name):
    level = LevelConfig(name="top", stride=4, codebook_size=16, code_width=4)
    architecture = VQVAEArchitecture(levels=(level,), quantizer=name)
    quantizer, x = QUANTIZERS[name].for_level(level, architecture, VQVAEFitting(), seed=0), features(0)
    quantizer(x)
    result = quantizer.eval()(x)
    assert torch.equal(quantizer.encode(x), result.codes) and torch.equal(
        quantizer.lookup(result.codes), result.vectors
    )
    assert result.codes.shape == (3, 8, 8) and quantizer.mean().shape == (4,)


def test_a_tokenizer_uses_the_quantizer_of_its_architecture(monkeypatch):
    class Other(EMAQuantizer):
        """A quantizer of another class."""

    monkeypatch.setattr("components.tokenizer.model.QUANTIZERS", {"ema": Other})
    level = LevelConfig(name="top", stride=4)
    assert isinstance(Tokenizer(VQVAEArchitecture(levels=(level,)), channels=1).quantizers[0], Other)
