"""Figures that were published for a preset's dataset: what the figures of a run stand beside.

Nothing here is measured by this project. The paper's numbers were taken from public texts that quote its tables, not
from its own pages (for table 2 without its row of reconstructions, two independent texts agree): look at the table that
is named before you print one elsewhere. Not listed, because no text that states them was at hand: the mean squared
errors of table 1, and the curves of figures 7 and 8 (FID, Inception Score, precision and recall over the rejection
threshold), which the paper shows as plots.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One number of a table, or of the text."""

    dataset: str
    """Name of the preset whose data and image size it was measured on."""
    measure: str
    """What was measured, on what."""
    value: float
    source: str
    """Paper, and table or section."""
    note: str = ""
    """What must be known before another number is compared with it."""


_PAPER = "Razavi et al. 2019"
_NLL_NOTE = "per code, taken as nats (no unit was stated with it); codes of another tokenizer are other data"
_CAS_NOTE = "a classifier fitted on these images alone, accuracy in % on ImageNet's validation images"
_QUOTED_NOTE = "Inception features; stated by that later paper, whose protocol holds"


def _imagenet(measure: str, value: float, source: str, note: str) -> PublishedFigure:
    return PublishedFigure(dataset="imagenet256", measure=measure, value=value, source=source, note=note)


PUBLISHED: tuple[PublishedFigure, ...] = (
    _imagenet("NLL of the top prior, train", 3.40, f"{_PAPER}, table 1", _NLL_NOTE),
    _imagenet("NLL of the top prior, validation", 3.41, f"{_PAPER}, table 1", _NLL_NOTE),
    _imagenet("NLL of the bottom prior, train", 3.45, f"{_PAPER}, table 1", _NLL_NOTE),
    _imagenet("NLL of the bottom prior, validation", 3.45, f"{_PAPER}, table 1", _NLL_NOTE),
    _imagenet("CAS top-1, samples of BigGAN-deep", 42.65, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-5, samples of BigGAN-deep", 65.92, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-1, samples of VQ-VAE-2", 54.83, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-5, samples of VQ-VAE-2", 77.59, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-1, reconstructions", 58.74, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-5, reconstructions", 80.98, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-1, real images", 73.09, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet("CAS top-5, real images", 91.47, f"{_PAPER}, table 2", _CAS_NOTE),
    _imagenet(
        "FID, all samples of VQ-VAE-2",
        30,
        f"{_PAPER}, section 5",
        "about; Inception features, as the text puts figure 7",
    ),
    _imagenet(
        "FID, best rejection threshold",
        10,
        f"{_PAPER}, section 5",
        "about; Inception features, as the text puts figure 7",
    ),
    _imagenet("FID, samples of VQ-VAE-2", 31.11, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("Inception Score, samples of VQ-VAE-2", 45, "Chang et al. 2022, table 1", f"about; {_QUOTED_NOTE}"),
    _imagenet("precision, samples of VQ-VAE-2", 0.36, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("recall, samples of VQ-VAE-2", 0.57, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("FID, samples of BigGAN-deep", 6.95, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("Inception Score, samples of BigGAN-deep", 198.2, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("precision, samples of BigGAN-deep", 0.87, "Chang et al. 2022, table 1", _QUOTED_NOTE),
    _imagenet("recall, samples of BigGAN-deep", 0.28, "Chang et al. 2022, table 1", _QUOTED_NOTE),
)


def published_for(dataset: str) -> tuple[PublishedFigure, ...]:
    """Published figures for the preset `dataset`; none for data of one's own."""
    return tuple(figure for figure in PUBLISHED if figure.dataset == dataset)
