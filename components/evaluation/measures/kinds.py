"""The two kinds of measures, and how the report shows them.

Shapes: n m images, f features, h w sides, c channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from components.classifier.model import Classifier
from components.evaluation.config import EvaluationConfig
from components.evaluation.scores import Scores
from components.generator.ancestral import Generator
from components.generator.samples import Samples
from components.training.batches import ImageBatch


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a figure is called and how it is shown; base of the two kinds below."""

    name: str
    """Name of its figures: lower case, words joined by underscores."""
    title: str
    """Heading in the report."""
    meaning: str
    """One sentence for the report: what it measures, and which values are good."""
    value_format: str
    """How a value is shown, for str.format: "{:.2f}", "{:.1%}"."""

    def show(self, value: float) -> str:
        """`value` as text; a NaN is 'n/a'."""
        return "n/a" if math.isnan(value) else self.value_format.format(value)


@dataclass(frozen=True, kw_only=True)
class FeatureMeasure(Measure):
    """Compares two sets of images by their features: real images with samples, or with other real images."""

    compute: Callable[[Tensor, Tensor, EvaluationConfig], float]
    """(features of real images float (n, f), features of the other set float (m, f), settings) -> value."""
    column: str
    """Heading in the table of the trade-off curve."""
    headline: bool = False
    """Whether its card is in the first row of the report."""
    tracked_per_share: bool = True
    """Whether there is a figure kept_<share>/<name> for each share of the trade-off curve."""
    charted: bool = False
    """Whether the chart draws it beside the accuracy; for fractions only."""


@dataclass(frozen=True, kw_only=True)
class MeasureInputs:
    """Everything that a measure of the whole generator may use."""

    generator: Generator
    judge: Classifier
    samples: Samples
    """As drawn, nothing rejected."""
    train: ImageBatch
    """Real images that the generator was fitted to, without augmented copies."""
    held_out: ImageBatch
    """Real images that it was not fitted to."""
    reconstructed: Tensor
    """uint8 (n, h, w, c): `held_out` encoded and decoded by the generator's tokenizer."""
    nats_per_code: Sequence[float]
    """Held-out loss of each level's prior, top first."""
    config: EvaluationConfig
    seed: int


@dataclass(frozen=True, kw_only=True)
class GeneratorMeasure(Measure):
    """One figure of the whole generator."""

    compute: Callable[[MeasureInputs], float | None]
    """None leaves the figure out."""
    reference: Callable[[Scores], str]
    """What to compare a value with, as text for the report."""
