"""Training steps: of a prior, beside masked weights and in bfloat16; of the VQ-VAE, with the quantizer's share.

python -m benchmarks.fits
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.masked import masked
from benchmarks.sampler import CLASSES, CODES, SIZES, TRAINING
from benchmarks.timing import Figure, alternately, keep
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.model import Tokenizer, to_images
from components.tokenizer.objective import TokenizerObjective
from components.tokenizer.quantizer import Quantizer
from components.training.batches import CodeBatch, ImageBatch

PRIOR_BATCH, IMAGE_BATCH, IMAGE_SIDE = 8, 8, 128
PRIOR = "prior step, 128 channels, 10 layers, batch 8, "
TOP, BOTTOM = PRIOR + "32x32, 2 attention layers: ", PRIOR + "32x32 below 16x16, no attention: "
WIDE = PRIOR + "32x32, 2 attention layers, 512 residual units (1:4 as in the paper): "
VQVAE = f"VQ-VAE of the paper's sizes, {IMAGE_SIDE}x{IMAGE_SIDE}, batch {IMAGE_BATCH}: "
ROUNDS = 5


def main() -> None:
    """Measure, print, keep."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for name, objective in ((TOP, top()), (WIDE, top(residual_hidden=512)), (BOTTOM, bottom())):
        figures += steps(name, objective)
    keep("fits", figures + tokenizers())


def top(**changes: int) -> PriorObjective:
    """The prior of the sampler's benchmark."""
    config = PriorConfig(**(SIZES | changes), attention_layers=2)
    model = Prior(config, shape=(32, 32), codebook_size=CODES, classes=CLASSES, above=())
    return PriorObjective(model, dimensions=256 * 256 * 3)


def bottom() -> PriorObjective:
    """One without attention, conditioned on a map above."""
    config, above = PriorConfig(**SIZES, conditioning_layers=4), (MapSpec(16, 16, CODES),)
    model = Prior(config, shape=(32, 32), codebook_size=CODES, classes=CLASSES, above=above)
    return PriorObjective(model, dimensions=128 * 128 * 3)


def codes(objective: PriorObjective) -> CodeBatch:
    """A batch of noise."""
    sides = [*(spec.height for spec in objective.model.above), 32]
    maps = tuple(torch.randint(CODES, (PRIOR_BATCH, side, side)) for side in sides)
    return CodeBatch(maps, torch.arange(PRIOR_BATCH) % CLASSES)


def tokenizer() -> TokenizerObjective:
    """The VQ-VAE of the preset imagenet256."""
    levels = (LevelConfig(name="top", stride=8), LevelConfig(name="bottom", stride=4))
    return TokenizerObjective(Tokenizer(VQVAEConfig(levels=levels, training=TRAINING), channels=3))


def images() -> ImageBatch:
    """A batch of noise."""
    pixels = torch.randint(256, (IMAGE_BATCH, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=torch.uint8)
    return ImageBatch(pixels, torch.zeros(IMAGE_BATCH, dtype=torch.int64))


def step(objective: nn.Module, batch: Any, precision: str = "float32") -> Callable[[], None]:
    """One update of the training loop."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4)

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = objective(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    objective.train()
    return update


def steps(name: str, ours: PriorObjective) -> list[Figure]:
    """Ours over masked weights, bfloat16 over float32."""
    batch, other, rough = codes(ours), copy.deepcopy(ours), copy.deepcopy(ours)
    other.model = masked(ours.model)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(batch)[0], ours.eval()(batch)[0])
    works = {"ours": step(ours, batch), "masked": step(other, batch)}
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
        works["bfloat16"] = step(rough, batch, "bfloat16")
    seconds = alternately(works, ROUNDS)
    share = seconds["ours"] / seconds["masked"]
    found = [Figure(name=name + "cropped filters / masked", value=share, most=0.75, seconds=seconds)]
    if "bfloat16" in seconds:
        found.append(Figure(name=name + "bfloat16 / float32", value=seconds["bfloat16"] / seconds["ours"]))
    return [*found, Figure(name=name + "float32", value=PRIOR_BATCH / seconds["ours"], unit="images/s")]


def tokenizers() -> list[Figure]:
    """Images a second of a step, of encoding and of decoding; the quantizers' share of each."""
    objective, batch = tokenizer(), images()
    model = objective.model
    update = step(objective, batch)
    update()
    pixels, maps = to_images(batch.pixels), model.encode(to_images(batch.pixels))
    inside = Inside(Quantizer)
    found = []
    for name, work in {
        "training step": update,
        "encode": lambda: model.encode(pixels),
        "decode": lambda: model.decode(maps),
    }.items():
        inside.seconds = 0.0
        started = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        spent = time.perf_counter() - started
        found.append(Figure(name=VQVAE + name, value=ROUNDS * IMAGE_BATCH / spent, unit="images/s"))
        if name != "decode":
            share = inside.seconds / spent
            found.append(Figure(name=VQVAE + name + ", in the quantizers", value=share, unit="of it", most=0.1))
    return found


class Inside:
    """Seconds spent in forward and encode of all modules of a class, from now on."""

    def __init__(self, kind: type[nn.Module]) -> None:
        self.seconds = 0.0
        for name in ("forward", "encode"):
            setattr(kind, name, self._timed(getattr(kind, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = method(*arguments)
            self.seconds += time.perf_counter() - started
            return result

        return timed


if __name__ == "__main__":
    main()
