"""The evaluation of one generator: which sets of images are compared, and how many images of each.

The judge took no part in training the generator or in rejection. Every figure is reported beside the best value that
can be expected: the same measure of equally many real images.

Shapes: y classes, d draws per class, n m images, f features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from components.classifier.model import Classifier
from components.classifier.objective import check_labels
from components.config import require
from components.evaluation.config import EvaluationConfig
from components.evaluation.judge import Classification, classify, reconstruct_pixels
from components.evaluation.measures import registered
from components.evaluation.measures.kinds import MeasureInputs
from components.evaluation.scores import ClassScore, Fidelity, Scores, TradeOffPoint
from components.generator.ancestral import Generator
from components.generator.rejection import best_indices, draws_needed
from components.generator.samples import Samples
from components.training.batches import ImageBatch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures and the samples they were measured on, class by class."""

    scores: Scores
    before: Samples
    """`samples_per_class` per class, nothing rejected."""
    after: Samples
    """Equally many, the best of a larger draw."""


def draws_per_class(config: EvaluationConfig) -> int:
    """Draws per class that `evaluate_samples` needs: enough for the smallest share of the curve."""
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
    """Compare samples of `generator` with real images: those it was fitted to, without copies, and held-out ones.

    `drawn` are `draws_per_class(config)` samples of every class, class by class, nothing rejected. Each share of the
    curve selects from the first of them, so that all points have equally many samples and no sample is drawn twice.
    `nats_per_code` are the priors' held-out losses, top first. `seed` shuffles real images and seeds the score's fit.
    Raises ValueError for images without a label or classes with fewer than 2 training images.
    """
    names = generator.classes
    fits = judge.classes == len(names)
    require(fits, f"the judge must have the generator's {len(names)} classes, got {judge.classes}")
    for part in (train, held_out):
        check_labels(part.labels, len(names))
    real, other_real = (  # (n, f) each
        classify(judge, train.pixels[half]).features
        for half in _halves(train, len(names), config.samples_per_class, seed)
    )
    draw = _reject(drawn.cpu(), judge, config)
    before, after = draw.kept(1.0), draw.kept(config.keep)
    inputs = MeasureInputs(
        generator=generator,
        judge=judge,
        samples=before,
        train=train,
        held_out=held_out,
        reconstructed=reconstruct_pixels(generator.tokenizer, held_out.pixels),
        nats_per_code=nats_per_code,
        config=config,
        seed=seed,
    )
    scores = _scores(inputs, draw, real=real, other_real=other_real)
    return Evaluation(scores=scores, before=before, after=after)


def measure_fidelity(real: Tensor, others: Tensor, config: EvaluationConfig) -> Fidelity:
    """Every registered measure between features of real images (n, f) and of another set (m, f), by name."""
    return {measure.name: measure.compute(real, others, config) for measure in registered.FEATURE_MEASURES}


# --- rejection --------------------------------------------------------------------------------------------------------


class _JudgedDraw(NamedTuple):
    """One draw, d per class, the judge's output for it, and which samples rejection keeps."""

    samples: Samples
    judged: Classification
    indices: dict[float, Tensor]
    """Share -> positions int64 (y, samples_per_class) of the samples that rejection keeps."""

    def kept(self, share: float) -> Samples:
        """The samples that rejection keeps, class by class."""
        return self.samples.take(self.indices[share].flatten())


def _reject(samples: Samples, judge: Classifier, config: EvaluationConfig) -> _JudgedDraw:
    classes, count, draws = judge.classes, config.samples_per_class, draws_per_class(config)
    whole = torch.equal(samples.labels, torch.arange(classes).repeat_interleave(draws))
    require(whole, f"there must be {draws} samples of each of {classes} classes, class by class, got {len(samples)}")
    probability = samples.probability.view(classes, draws)  # (y, d)
    offsets = torch.arange(classes)[:, None] * draws  # (y, 1): where each class begins
    indices = {
        share: best_indices(probability[:, : draws_needed(count, share)], count) + offsets for share in config.curve
    }
    return _JudgedDraw(samples, classify(judge, samples.pixels), indices)


# --- figures ----------------------------------------------------------------------------------------------------------


def _scores(inputs: MeasureInputs, draw: _JudgedDraw, *, real: Tensor, other_real: Tensor) -> Scores:
    """`real` and `other_real` (n, f) are features of two disjoint halves of training images."""
    config, labels = inputs.config, inputs.held_out.labels
    of_real, of_reconstructed = (  # Classifications of the m held-out images
        classify(inputs.judge, pixels) for pixels in (inputs.held_out.pixels, inputs.reconstructed)
    )
    values = {measure.name: measure.compute(inputs) for measure in registered.GENERATOR_MEASURES}
    return Scores(
        samples=len(inputs.samples),
        compared=len(real),
        curve=_trade_off(draw, real, config),
        keep=config.keep,
        tracked_per_share=tuple(measure.name for measure in registered.FEATURE_MEASURES if measure.tracked_per_share),
        real_accuracy=_accuracy(of_real.classes, labels),
        reconstructed_accuracy=_accuracy(of_reconstructed.classes, labels),
        floor=measure_fidelity(real, other_real, config),
        generator_measures={name: value for name, value in values.items() if value is not None},
        classes=_class_scores(inputs.generator.classes, draw, config, of_real.classes, labels),
    )


def _trade_off(draw: _JudgedDraw, real: Tensor, config: EvaluationConfig) -> tuple[TradeOffPoint, ...]:
    """One point per share; `real` (n, f) are features of real images, compared with as many kept samples."""
    points = []
    for share, indices in draw.indices.items():
        # As many samples as real images: a measure's bias then is the same for both.
        compared = draw.judged.features[indices[:, : len(real) // len(indices)].flatten()]  # (n, f)
        accuracy = _accuracy(draw.judged.classes[indices], draw.samples.labels[indices])
        fidelity = measure_fidelity(real, compared, config)
        points.append(TradeOffPoint(share=share, accuracy=accuracy, fidelity=fidelity))
    return tuple(points)


def _class_scores(
    names: Sequence[str], draw: _JudgedDraw, config: EvaluationConfig, judged_real: Tensor, real_labels: Tensor
) -> tuple[ClassScore, ...]:
    """`judged_real` int64 (n,) are the judge's classes of the held-out images with `real_labels`."""
    judged = draw.judged.classes
    return tuple(
        ClassScore(
            name=name,
            before=_accuracy(judged[draw.indices[1.0][label]], label),
            after=_accuracy(judged[draw.indices[config.keep][label]], label),
            real=_accuracy(judged_real[real_labels == label], label),
        )
        for label, name in enumerate(names)
    )


def _accuracy(judged: Tensor, labels: Tensor | int) -> float:
    return (judged == labels).double().mean().item()


def _halves(images: ImageBatch, classes: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of two disjoint sets with equally many images per class, at most `most`, shuffled by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.labels), generator=generator)  # all images, shuffled
    by_class = [order[images.labels[order] == label] for label in range(classes)]
    # Two disjoint sets of equal size: at most half of the smallest class each.
    count = min(most, min(len(positions) for positions in by_class) // 2)
    require(
        count >= 1,
        "each class must have at least 2 training images, so that real images can be compared with real images, got "
        "fewer: add images",
    )
    first = torch.cat([positions[:count] for positions in by_class])  # (y * count,)
    return first, torch.cat([positions[count : 2 * count] for positions in by_class])
