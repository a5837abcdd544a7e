"""The Frechet distance of two sets of images (Heusel et al. 2017)."""

import torch
from torch import Tensor, nn

from components.evaluation.measures.kinds import FeatureMeasure


def frechet_distance(real: Tensor, others: Tensor) -> float:
    """Frechet distance of the Gaussians with mean and covariance of features (n, f) and (m, f).

    It is an FID only if the features are Inception's. It is biased upwards for small n: compare it at equal n only.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

    metric = FrechetInceptionDistance(feature=_GivenFeatures(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(others.double(), real=False)
    return max(0.0, metric.compute().item())  # by rounding, equal sets give slightly less than 0


class _GivenFeatures(nn.Module):
    """In place of the network that torchmetrics expects: returns the given features unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


FRECHET_DISTANCE = FeatureMeasure(
    name="frechet_distance",
    title="Fréchet distance",
    column="FD (judge)",
    meaning="Distance between samples and real images in the judge's feature space: an FD, and no FID, whose features "
    "are those of the Inception network. Lower is better.",
    value_format="{:.2f}",
    compute=lambda real, others, config: frechet_distance(real, others),
    headline=True,
)
