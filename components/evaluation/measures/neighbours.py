"""Improved precision and recall (Kynkaanniemi et al. 2019, equations 1 and 2): quality and diversity apart."""

import torch
from torch import Tensor

from components.config import require
from components.evaluation.measures.distances import distance_rows
from components.evaluation.measures.kinds import FeatureMeasure


def fraction_among(points: Tensor, members: Tensor, neighbours: int) -> float:
    """Fraction of `points` (n, f) that lie among `members` (m, f), float features.

    A point lies among a set when at least one member is no farther from it than from its own k-th nearest neighbour
    within the set, k = `neighbours`. Raises ValueError for sets of k images or fewer.
    """
    for features in (points, members):
        enough = len(features) > neighbours
        require(enough, f"each set must hold more than neighbours={neighbours} images, got {len(features)}")
    # Each member is its own nearest neighbour, at distance 0, hence k + 1.
    radii = torch.cat([rows.kthvalue(neighbours + 1, dim=1).values for rows in distance_rows(members, members)])  # (m,)
    within = torch.cat([(rows <= radii).any(dim=1) for rows in distance_rows(points, members)])  # (n,)
    return within.double().mean().item()


PRECISION = FeatureMeasure(
    name="precision",
    title="Precision",
    column="Precision",
    meaning="Quality: fraction of samples that lie among the real images in the judge's feature space. Higher is "
    "better.",
    value_format="{:.1%}",
    compute=lambda real, others, config: fraction_among(others, real, config.neighbours),
    tracked_per_share=False,
)
RECALL = FeatureMeasure(
    name="recall",
    title="Recall",
    column="Recall",
    meaning="Diversity: fraction of real images that lie among the samples in the judge's feature space. Higher is "
    "better.",
    value_format="{:.1%}",
    compute=lambda real, others, config: fraction_among(real, others, config.neighbours),
    headline=True,
    charted=True,
)
