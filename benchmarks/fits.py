"""Time of an update: of a prior, beside masked weights and in bfloat16; of the VQ-VAE, with the quantizers' fraction.

python -m benchmarks.fits
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.masked import with_masked_filters
from benchmarks.sampler import CLASSES, CODES, SIZES
from benchmarks.timing import Figure, report_figures, time_alternately
from components.config import TrainingConfig
from components.images.tensors import to_images
from components.priors.conditioning import MapSpec
from components.priors.config import PriorArchitecture
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import CodeBatch, ImageBatch

PRIOR_BATCH, IMAGE_BATCH, IMAGE_SIDE = 8, 8, 128
PRIOR = "prior step, 128 channels, 10 layers, batch 8, "
TOP, BOTTOM = PRIOR + "32x32, 2 attention layers: ", PRIOR + "32x32 below 16x16, no attention: "
WIDE = PRIOR + "32x32, 2 attention layers, 512 residual units (1:4 as in the paper): "
VQVAE = f"VQ-VAE of the paper's sizes, {IMAGE_SIDE}x{IMAGE_SIDE}, batch {IMAGE_BATCH}: "
ROUNDS = 5


def main() -> None:
    """Measure, print, write benchmarks/results."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for name, objective in (
        (TOP, build_top()),
        (WIDE, build_top(residual_hidden=512)),
        (BOTTOM, build_bottom()),
    ):
        figures += measure_prior(name, objective)
    report_figures("fits", figures + measure_tokenizer())


def build_top(**changes: int) -> PriorObjective:
    """The prior of the sampler's benchmark."""
    architecture = PriorArchitecture(**(SIZES | changes), attention_layers=2)
    model = Prior(architecture, shape=(32, 32), codebook_size=CODES, classes=CLASSES, above=())
    return PriorObjective(model, dimensions=256 * 256 * 3)


def build_bottom() -> PriorObjective:
    """A prior without attention, conditioned on a map above."""
    architecture, above = PriorArchitecture(**SIZES, conditioning_layers=4), (MapSpec(16, 16, CODES),)
    model = Prior(architecture, shape=(32, 32), codebook_size=CODES, classes=CLASSES, above=above)
    return PriorObjective(model, dimensions=128 * 128 * 3)


def random_codes(objective: PriorObjective) -> CodeBatch:
    """A batch of random code maps for `objective`."""
    sides = [*(spec.height for spec in objective.model.above), 32]
    maps = tuple(torch.randint(CODES, (PRIOR_BATCH, side, side)) for side in sides)
    return CodeBatch(maps, torch.arange(PRIOR_BATCH) % CLASSES)


def build_tokenizer() -> TokenizerObjective:
    """The VQ-VAE of the preset imagenet256."""
    levels = (LevelConfig(name="top", stride=8), LevelConfig(name="bottom", stride=4))
    config = VQVAEConfig(levels=levels, training=TrainingConfig(updates=1, batch_size=1))
    return TokenizerObjective(Tokenizer(config, channels=3, fitting=config), beta=config.beta)


def random_images() -> ImageBatch:
    """A batch of random pixels."""
    pixels = torch.randint(256, (IMAGE_BATCH, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=torch.uint8)
    return ImageBatch(pixels, torch.zeros(IMAGE_BATCH, dtype=torch.int64))


def make_update(objective: nn.Module, batch: Any, precision: str = "float32") -> Callable[[], None]:
    """A function that makes one update, as the training loop does."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4)

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = objective(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    objective.train()
    return update


def measure_prior(name: str, objective: PriorObjective) -> list[Figure]:
    """Cropped filters over masked weights, bfloat16 over float32, and the rate."""
    batch, masked, rounded = random_codes(objective), copy.deepcopy(objective), copy.deepcopy(objective)
    masked.model = with_masked_filters(objective.model)
    with torch.no_grad():
        torch.testing.assert_close(masked.eval()(batch)[0], objective.eval()(batch)[0])
    works = {"ours": make_update(objective, batch), "masked": make_update(masked, batch)}
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
        works["bfloat16"] = make_update(rounded, batch, "bfloat16")
    seconds = time_alternately(works, ROUNDS)
    ratio = seconds["ours"] / seconds["masked"]
    figures = [Figure(name=name + "cropped filters / masked", value=ratio, most=0.75, seconds=seconds)]
    if "bfloat16" in seconds:
        figures.append(Figure(name=name + "bfloat16 / float32", value=seconds["bfloat16"] / seconds["ours"]))
    return [*figures, Figure(name=name + "float32", value=PRIOR_BATCH / seconds["ours"], unit="images/s")]


def measure_tokenizer() -> list[Figure]:
    """Images per second of an update, of encoding and of decoding; the quantizers' fraction of the first two."""
    objective, batch = build_tokenizer(), random_images()
    model = objective.model
    update = make_update(objective, batch)
    update()
    pixels, maps = to_images(batch.pixels), model.encode(to_images(batch.pixels))
    stopwatch = Stopwatch(EMAQuantizer)
    figures = []
    for name, work in {
        "training step": update,
        "encode": lambda: model.encode(pixels),
        "decode": lambda: model.decode(maps),
    }.items():
        stopwatch.seconds = 0.0
        started = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        spent = time.perf_counter() - started
        figures.append(Figure(name=VQVAE + name, value=ROUNDS * IMAGE_BATCH / spent, unit="images/s"))
        if name != "decode":
            fraction = stopwatch.seconds / spent
            figures.append(Figure(name=VQVAE + name + ", in the quantizers", value=fraction, unit="of it", most=0.1))
    return figures


class Stopwatch:
    """Seconds spent in `forward` and `encode` of all modules of a class, from now on."""

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
