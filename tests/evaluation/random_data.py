"""Random features and images from a seed."""

import torch

from components.evaluation.measures.kinds import FeatureSet


def normal_features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def feature_set(features, *, labels=None, probabilities=None):
    """A FeatureSet of features (n, f), without classes unless given."""
    none = torch.full((len(features),), -1)
    return FeatureSet(features.float(), probabilities, none if labels is None else labels)


def normal_set(n, f, *, seed=0, scale=1.0, shift=0.0):
    return feature_set(normal_features(n, f, seed=seed) * scale + shift)
