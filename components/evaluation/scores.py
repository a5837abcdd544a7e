"""The figures of one generator, with their floors and ceilings. No torch: whoever shows them needs none."""

from dataclasses import dataclass
from typing import NamedTuple


class Fidelity(NamedTuple):
    """How two sets of images lie to each other in a judge's feature space."""

    frechet_distance: float
    """Of Gaussians fitted to the features; 0 for equal sets."""
    precision: float
    """Share of the second set that lies among the first: quality."""
    recall: float
    """Share of the first set that lies among the second: diversity."""


@dataclass(frozen=True, kw_only=True)
class TradeOffPoint:
    """Samples of which rejection kept a share: the fewer are kept, the better and the more alike they are."""

    share: float
    """Share of the draws that was kept."""
    accuracy: float
    """Share that the judge reads as the class asked for."""
    fidelity: Fidelity
    """Against real images."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: shares that the judge reads right."""

    name: str
    before: float
    after: float
    real: float
    """Held-out real images; nan where the class has none."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All figures of one generator."""

    samples: int
    """Samples behind each accuracy."""
    compared: int
    """Images on each side of a Frechet distance, precision or recall."""
    curve: tuple[TradeOffPoint, ...]
    """From nothing rejected to the smallest share kept, each from the same draw."""
    kept: float
    """The headline share."""
    real_accuracy: float
    """The judge on held-out real images."""
    reconstructed_accuracy: float
    """The judge on their reconstructions: no sample decoded by this tokenizer can be expected to do better."""
    floor: Fidelity
    """Real images against other real images."""
    memorisation: float
    """Median distance to the nearest training image, samples over held-out images."""
    psnr: float
    """Reconstructions of held-out images, dB."""
    bits_per_dimension: float
    """Prior code length, not a pixel likelihood."""
    cas: float | None
    """Classification accuracy score; None when it was left out."""
    classes: tuple[ClassScore, ...]

    @property
    def before(self) -> TradeOffPoint:
        """Nothing rejected."""
        return self.curve[0]

    @property
    def after(self) -> TradeOffPoint:
        """The headline share kept."""
        return next(point for point in self.curve if point.share == self.kept)

    def figures(self) -> dict[str, float]:
        """Every figure by the name under which it is tracked."""
        found = {
            "judge_accuracy/real": self.real_accuracy,
            "judge_accuracy/reconstructions": self.reconstructed_accuracy,
            "memorisation_ratio": self.memorisation,
            "psnr": self.psnr,
            "bits_per_dimension": self.bits_per_dimension,
        }
        for name, point in (("before", self.before), ("after", self.after)):
            found[f"judge_accuracy/{name}"] = point.accuracy
            found |= {f"{measure}/{name}": value for measure, value in point.fidelity._asdict().items()}
        found |= {f"{measure}/real": value for measure, value in self.floor._asdict().items()}
        for point in self.curve:
            found |= {
                f"kept_{point.share:g}/accuracy": point.accuracy,
                f"kept_{point.share:g}/recall": point.fidelity.recall,
                f"kept_{point.share:g}/frechet_distance": point.fidelity.frechet_distance,
            }
        return found if self.cas is None else found | {"classification_accuracy_score": self.cas}
