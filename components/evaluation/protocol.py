"""What is compared with what, and at which n: the evaluation of one generator.

The judge took no part in training the generator or in rejection. Every figure has its floor or ceiling beside it: real
images through the same measure, in the same number. Shapes: y classes, d draws a class, f features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from components.classifier.model import Classifier
from components.classifier.objective import check_labels
from components.config import require
from components.evaluation import metrics
from components.evaluation.config import EvaluationConfig
from components.evaluation.metrics import Classification, classify
from components.evaluation.scores import ClassScore, Scores, TradeOffPoint
from components.generator.ancestral import Generator, Samples
from components.generator.rejection import best_indices, draws_needed
from components.training.batches import ImageBatch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures and the samples they were measured on, class by class."""

    scores: Scores
    before: Samples
    """`samples_per_class` a class, nothing rejected."""
    after: Samples
    """As many, the best of a larger draw."""


def draws_per_class(config: EvaluationConfig) -> int:
    """Samples a class that `evaluate` needs: as many as the smallest share of the curve is kept from."""
    return draws_needed(config.samples_per_class, min(config.curve))


def evaluate_samples(
    generator: Generator,
    judge: Classifier,
    drawn: Samples,
    *,
    train: ImageBatch,
    held_out: ImageBatch,
    nats_per_code: Sequence[float],
    config: EvaluationConfig,
    seed: int,
) -> Evaluation:
    """Measure `generator` against real images: `train` it was fitted to (without augmented copies), `held_out` not.

    `drawn` are `draws_a_class(config)` samples of every class, class by class, nothing rejected. Each share of the
    curve rejects among the first of them, so that all points rest on equally many samples and none is drawn twice.
    `nats_per_code` are the priors' held-out losses, top first. `seed` shuffles real images and the score's classifier.
    Raises ValueError for images without a label or classes with fewer than 2 training images.
    """
    names = generator.classes
    known = judge.classes == len(names)
    require(known, f"the judge must know the generator's {len(names)} classes, got {judge.classes}")
    for part in (train, held_out):
        check_labels(part.labels, len(names))
    halves = _halves(train, len(names), config.samples_per_class, seed)
    real, other = (classify(judge, train.pixels[half]).features for half in halves)
    sorted_out = _reject(drawn.cpu(), judge, config)
    before, after = (sorted_out.samples.take(sorted_out.kept[share].flatten()) for share in (1.0, config.keep))
    reconstructed = metrics.reconstruct_pixels(generator.tokenizer, held_out.pixels)
    truth, echo = classify(judge, held_out.pixels), classify(judge, reconstructed)
    positions = [codes[0].numel() for codes in before.maps]
    scores = Scores(
        samples=len(before),
        compared=len(real),
        curve=_curve(sorted_out, real, len(names), config),
        kept=config.keep,
        real_accuracy=_share_right(truth.classes, held_out.labels),
        reconstructed_accuracy=_share_right(echo.classes, held_out.labels),
        floor=metrics.fidelity(real, other, config.neighbours),
        memorisation=metrics.memorisation(before.pixels, held_out.pixels, train.pixels),
        psnr=metrics.psnr(held_out.pixels, reconstructed),
        bits_per_dimension=metrics.bits_per_dimension(nats_per_code, positions, held_out.pixels[0].numel()),
        cas=_cas(judge, before, held_out, config, seed),
        classes=_by_class(names, sorted_out, config, truth, held_out.labels),
    )
    return Evaluation(scores=scores, before=before, after=after)


class _Drawn(NamedTuple):
    """One draw, d a class, and what rejection keeps of it."""

    samples: Samples
    reading: Classification
    kept: dict[float, Tensor]
    """Share -> positions int64 (y, samples_per_class) of what rejection keeps."""


def _reject(samples: Samples, judge: Classifier, config: EvaluationConfig) -> _Drawn:
    classes, count, draws = judge.classes, config.samples_per_class, draws_per_class(config)
    whole = torch.equal(samples.labels, torch.arange(classes).repeat_interleave(draws))
    require(whole, f"there must be {draws} samples of each of {classes} classes, class by class, got {len(samples)}")
    probability, offsets = samples.probability.view(classes, draws), torch.arange(classes)[:, None] * draws
    kept = {
        share: best_indices(probability[:, : draws_needed(count, share)], count) + offsets for share in config.curve
    }
    return _Drawn(samples, classify(judge, samples.pixels), kept)


def _curve(drawn: _Drawn, real: Tensor, classes: int, config: EvaluationConfig) -> tuple[TradeOffPoint, ...]:
    """A point a share; features are compared with as many real ones, `real` (n, f)."""
    points = []
    for share, chosen in drawn.kept.items():
        compared = drawn.reading.features[chosen[:, : len(real) // classes].flatten()]
        right = _share_right(drawn.reading.classes[chosen], drawn.samples.labels[chosen])
        fidelity = metrics.fidelity(real, compared, config.neighbours)
        points.append(TradeOffPoint(share=share, accuracy=right, fidelity=fidelity))
    return tuple(points)


def _by_class(
    names: Sequence[str], drawn: _Drawn, config: EvaluationConfig, truth: Classification, labels: Tensor
) -> tuple[ClassScore, ...]:
    found = drawn.reading.classes
    return tuple(
        ClassScore(
            name=name,
            before=_share_right(found[drawn.kept[1.0][label]], label),
            after=_share_right(found[drawn.kept[config.keep][label]], label),
            real=_share_right(truth.classes[labels == label], label),
        )
        for label, name in enumerate(names)
    )


def _share_right(found: Tensor, asked: Tensor | int) -> float:
    return (found == asked).double().mean().item()


def _cas(judge: Classifier, samples: Samples, real: ImageBatch, config: EvaluationConfig, seed: int) -> float | None:
    if not config.cas_updates:
        return None
    given = ImageBatch(samples.pixels, samples.labels)
    return metrics.classification_accuracy_score(judge, given, real, config.cas_updates, seed)


def _halves(images: ImageBatch, classes: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of two disjoint sets with equally many images of each class, at most `most`, drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.labels), generator=generator)
    of_class = [order[images.labels[order] == label] for label in range(classes)]
    count = min(most, min(len(found) for found in of_class) // 2)
    require(count >= 1, "each class must have at least 2 training images to tell real from real, got fewer: add images")
    first = torch.cat([found[:count] for found in of_class])
    return first, torch.cat([found[count : 2 * count] for found in of_class])
