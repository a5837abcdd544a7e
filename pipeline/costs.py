"""Time and memory of a config's fits before anything is fitted.

Each model is counted first: operations and stored activations of one image, for a prior on the meta device, which holds
no memory. Then a few updates on random data of the real shapes are timed where this machine has what the fit asks for.
Where it has not, or where even one image would take long, the operations are divided by a stated rate.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.classifier.objective import ROTATIONS, ClassifierObjective, RotationObjective
from components.config import StepResources, TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import CodeBatch, ImageBatch
from components.training.loop import Batch, FitData, SilentObserver, fit_objective
from pipeline.config import PipelineConfig
from pipeline.sizes import level_sizes

CPU_RATE = 3e10
"""Floating-point operations per second and CPU thread where nothing is timed: about what the fits of the preset
`folder` reached on one thread of a shared 2-core server (Intel Xeon, 2026)."""
GPU_RATES = {"float32": 2e13, "bfloat16": 2e14}
"""The same per GPU: a third and a fifth of the peak in the data sheet of an H100. Not measured by this project."""
FORWARDS_PER_UPDATE = 3
"""An update costs a forward pass and a backward pass of twice the operations."""
TIMED_OPERATIONS = {"cpu": 5e9, "cuda": 1e12}
"""Operations of a timed update: its batch is cut so that it takes a fraction of a second."""
MOST_OPERATIONS = {"cpu": 2e11, "cuda": 1e13}
"""If an update of one image needs more than this, it is not timed."""
TIMED_UPDATES = 3
"""Updates that count, after a first one, which starts codebooks and moments."""
PEAK_PER_HELD = 2
"""Peak memory of an update per byte of activations that it holds: 1.8 to 2.4 in benchmarks/README.md."""


@dataclass(frozen=True)
class FitCost:
    """What one fit costs."""

    name: str
    seconds: float
    """All updates and held-out evaluations, if nothing else runs on its CPUs or GPUs; early stopping saves some."""
    seconds_per_image: float
    """Of one update, in one worker."""
    memory: int
    """Peak bytes per worker: weights, gradients, Adam's moments, best and averaged weights, activations."""
    measured: bool
    """False: operations divided by a stated rate."""


class _Fit(NamedTuple):
    name: str
    training: TrainingConfig
    resources: StepResources
    build: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    """(number of images) -> random data of the real shapes."""

    @property
    def images(self) -> int:
        """Images per update and worker."""
        return self.training.batch_size // self.resources.workers


def fit_costs(config: PipelineConfig, classes: int | None, *, measure: bool) -> list[FitCost]:
    """Cost of each fit of `config` for `classes` classes (None: not known yet), in the order in which they run.

    With fewer than two classes there is no classifier, and the judge tells rotations apart. Without `measure` nothing
    is timed, and every figure comes from the stated rate.
    """
    return [_cost(fit, measure) for fit in _fits(config, classes)]


def encode_seconds(costs: list[FitCost], rows: int, workers: int) -> float:
    """Seconds in which `workers` encode `rows` images: the forward pass of the tokenizer's updates."""
    tokenizer = next(cost for cost in costs if cost.name == "tokenizer")
    return rows * tokenizer.seconds_per_image / FORWARDS_PER_UPDATE / workers


def _cost(fit: _Fit, measure: bool) -> FitCost:
    operations, activations, weights = _trace(fit)
    device = "cuda" if fit.resources.gpus and torch.cuda.is_available() else "cpu"
    here = device == "cuda" or not fit.resources.gpus
    measured = measure and here and FORWARDS_PER_UPDATE * operations <= MOST_OPERATIONS[device]
    if measured:
        images = round(TIMED_OPERATIONS[device] / (FORWARDS_PER_UPDATE * operations))
        per_image = _seconds_per_image(fit, min(max(images, 1), fit.images), device)
    else:
        rate = GPU_RATES[fit.training.precision] if fit.resources.gpus else CPU_RATE * _threads(fit)
        per_image = FORWARDS_PER_UPDATE * operations / rate
    training = fit.training
    evaluated = training.updates // training.evaluate_every * training.held_out_samples / fit.resources.workers
    copies = 6 if training.weight_ema else 5  # weight, gradient, two moments, best weight, averaged weight
    narrow = 2 if training.precision == "bfloat16" else 1
    return FitCost(
        name=fit.name,
        seconds=per_image * (training.updates * fit.images + evaluated / FORWARDS_PER_UPDATE),
        seconds_per_image=per_image,
        memory=copies * weights + PEAK_PER_HELD * fit.images * activations // narrow,
        measured=measured,
    )


# --- the fits ---------------------------------------------------------------------------------------------------------


def _fits(config: PipelineConfig, classes: int | None) -> list[_Fit]:
    channels, side = config.images.channels, config.images.image_size
    vqvae, resources = config.vqvae, config.resources

    def images(count: int) -> ImageBatch:
        pixels = torch.randint(0, 256, (count, side, side, channels), dtype=torch.uint8)
        return ImageBatch(pixels, torch.zeros(count, dtype=torch.int64))

    def tokenizer() -> nn.Module:
        return TokenizerObjective(Tokenizer(vqvae, channels=channels, fitting=vqvae), beta=vqvae.beta)

    fits = [_Fit("tokenizer", vqvae.training, resources.tokenizer, tokenizer, images)]
    fits += [_prior_fit(config, index, classes or 0) for index in range(len(vqvae.levels))]
    rotations = classes is not None and classes < 2
    fitted = {"judge": config.judge}
    if config.classifier.program is None and not rotations:
        fitted = {"classifier": config.classifier} | fitted
    for name, settings in fitted.items():

        def classifier(settings: ClassifierConfig = settings) -> nn.Module:
            outputs = len(ROTATIONS) if rotations else classes or 1
            model = Classifier(settings, channels=channels, classes=outputs)
            return RotationObjective(model) if rotations else ClassifierObjective(model)

        fits.append(_Fit(name, settings.training, resources.classifier, classifier, images))
    return fits


def _prior_fit(config: PipelineConfig, index: int, classes: int) -> _Fit:
    """The fit of level number `index`, top first."""
    specs = tuple(MapSpec(level.height, level.width, level.codebook_size) for level in level_sizes(config))
    level, own, dimensions = config.level_names[index], specs[index], config.images.image_size**2
    settings = config.priors[level]

    def codes(count: int) -> CodeBatch:
        maps = tuple(torch.randint(spec.codebook_size, (count, spec.height, spec.width)) for spec in specs[: index + 1])
        return CodeBatch(maps, torch.full((count,), -1))  # -1: no class, which every prior knows

    def build() -> nn.Module:
        prior = Prior(
            settings,
            shape=(own.height, own.width),
            codebook_size=own.codebook_size,
            classes=classes,
            above=specs[:index],
            dropout=settings.dropout,
            recompute=settings.recompute,
        )
        return PriorObjective(prior, dimensions=dimensions)

    return _Fit(f"prior_{level}", settings.training, config.resources.prior, build, codes)


def _threads(fit: _Fit) -> int:
    return max(1, int(fit.resources.cpus))  # as components/training/job.py limits them


# --- counting and timing ----------------------------------------------------------------------------------------------


def _trace(fit: _Fit) -> tuple[float, int, int]:
    """Operations of the forward pass of one image, bytes that it keeps for the backward pass, bytes of the weights."""
    kept: dict[int, int] = {}

    def keep_size(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # tensors on the meta device have no address to tell them apart
        return tensor

    with torch.random.fork_rng(devices=[]):
        device = "meta" if fit.name.startswith("prior_") else "cpu"
        with torch.device(device):  # the large ones are priors
            objective = fit.build()
            batch = fit.batch(1)
        weights = sum(weight.numel() * weight.element_size() for weight in objective.parameters())
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep_size, _same):
            if isinstance(objective, PriorObjective) and isinstance(batch, CodeBatch):
                # The model itself: the objective checks values, which tensors without memory do not have.
                labels = torch.zeros_like(batch.labels)
                objective.train().model(batch.maps[-1], labels, batch.maps[:-1])
            else:
                objective.eval()(batch)  # in eval mode, since a first update in training mode starts the codebooks
    return float(counter.get_total_flops()), max(0, sum(kept.values()) - weights), weights


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _seconds_per_image(fit: _Fit, images: int, device: str) -> float:
    """Median of a few updates of `images` images by the loop that fits, divided by `images`."""
    started: list[float] = []
    updates = 1 + TIMED_UPDATES + 1  # the last one only ends the one before it
    threads = torch.get_num_threads()

    def now() -> float:
        # The processor's time, not the clock's: other programs on this machine do not count.
        return time.process_time() / _threads(fit) if device == "cpu" else time.perf_counter()

    def batches(first: int) -> Iterator[Batch]:
        while True:
            started.append(now())
            yield batch

    training = replace(
        fit.training, updates=updates, batch_size=images, evaluate_every=updates, patience=0, compile=False
    )
    torch.set_num_threads(_threads(fit))
    try:
        with torch.random.fork_rng(devices=[]):
            batch = fit.batch(images)
            data = FitData(batches=batches, held_out=lambda: [batch])
            fit_objective(fit.build(), config=training, seed=0, data=data, observer=SilentObserver(), device=device)
    finally:
        torch.set_num_threads(threads)
    seconds = [end - start for start, end in pairwise(started[1:])]  # the first update does not count
    return statistics.median(seconds) / images
