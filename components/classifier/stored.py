"""A classifier as files, fitted here or an adopted program: how it is described, written and loaded.

Images with fewer than two classes leave nothing to reject samples by: the stored classifier then is empty, a
description alone.
"""

from dataclasses import dataclass
from pathlib import Path

from components.classifier.config import ClassifierArchitecture, ClassifierTask
from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.store import weights

_KIND = "classifier"
_FORMAT_1_ARCHITECTURE = frozenset({"hidden", "stages"})
_FORMAT_1_DROPPED = frozenset({"dropout", "seed", "program", "training"})


@dataclass(frozen=True, kw_only=True)
class ClassifierDescription:
    """Everything needed to build a classifier, to feed it and to name its classes."""

    architecture: ClassifierArchitecture | None
    """None for an adopted program, which brings its own, and for an empty classifier."""
    task: ClassifierTask = "classes"
    """What it tells apart. rotation: by how many degrees an image is rotated."""
    dropout: float = 0.0
    """Fraction of features that its dropout layer drops in training; the evaluation fits a copy with the same value."""
    channels: int
    """1 for grayscale, 3 for RGB."""
    class_names: tuple[str, ...]
    """Names of the classes 0, 1, ... that it tells apart: of the images, or of the rotations."""

    def __post_init__(self) -> None:
        if self.architecture is not None:
            # A whole ClassifierConfig may be given: only its architecture is stored.
            object.__setattr__(self, "architecture", weights.narrowed(self.architecture, ClassifierArchitecture))

    def build(self) -> Classifier:
        """The classifier, its weights not yet loaded; raises ValueError for one that was not fitted here."""
        if self.architecture is None:
            raise ValueError(
                "a classifier that is fitted here is needed, got an adopted program or an empty classifier, which have "
                "no features: give the folder of a fitted one"
            )
        return Classifier(
            self.architecture,
            channels=self.channels,
            classes=len(self.class_names),
            dropout=self.dropout,
            task=self.task,
        )


def pack_classifier(model: Classifier, description: ClassifierDescription) -> dict[str, bytes]:
    """Files by name that `load_classifier` reads back; equal classifiers give equal bytes."""
    return weights.pack(_KIND, model, description)


def pack_program(data: bytes, description: ClassifierDescription) -> dict[str, bytes]:
    """Files by name that `load_rejector` reads back, of an adopted program (`data` is the content of a .pt2 file)."""
    return {weights.CONFIG_FILE: weights.pack_config(_KIND, description), weights.PROGRAM_FILE: data}


def pack_empty(description: ClassifierDescription) -> dict[str, bytes]:
    """Files by name of an empty classifier: `load_rejector` gives None for it."""
    require(
        description.architecture is None and len(description.class_names) < 2,
        f"an empty classifier has no architecture and fewer than two classes, got {description}",
    )
    return {weights.CONFIG_FILE: weights.pack_config(_KIND, description)}


def describe_classifier(folder: Path) -> ClassifierDescription:
    """What the classifier in `folder` is, without reading its weights; ValueError when there is none."""
    return weights.read_description(folder, _KIND, ClassifierDescription, _upgrade)


def load_classifier(folder: Path) -> Classifier:
    """The classifier stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return weights.load_weights(describe_classifier(folder).build(), folder)


def load_rejector(folder: Path) -> Classifier | ProgramClassifier | None:
    """The classifier stored in `folder`, fitted here or an adopted program; None for an empty one.

    Raises ValueError when there is none.
    """
    description = describe_classifier(folder)
    if description.architecture is not None:
        return load_classifier(folder)
    path = Path(folder) / weights.PROGRAM_FILE
    if len(description.class_names) < 2 and not path.is_file():
        return None
    require(
        path.is_file(),
        f"a stored classifier must have {weights.PROGRAM_FILE}, but {path} is missing: store it again",
    )
    return ProgramClassifier(path.read_bytes(), channels=description.channels, classes=len(description.class_names))


def _upgrade(record: weights.DescriptionRecord) -> weights.DescriptionRecord:
    """From a description of format 1, whose setting `program` says whether it is an adopted program."""
    upgraded = weights.upgrade_settings(record, architecture=_FORMAT_1_ARCHITECTURE, dropped=_FORMAT_1_DROPPED)
    if record["settings"].get("program") is not None:
        return upgraded | {"architecture": None}
    return upgraded | {"dropout": record["settings"].get("dropout", 0.0)}
