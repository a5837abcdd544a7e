"""Scores of a made-up evaluation with two extractors, one refused figure, two classes and all optional parts."""

from components.evaluation.measures import registered
from components.evaluation.scores import (
    ClassificationScore,
    ClassScore,
    FeatureScores,
    Figure,
    LevelLikelihood,
    Memorisation,
    Recognition,
    Reconstruction,
    Scores,
)

SHARES = (1.0, 0.5)


def figure(value):
    return Figure(value=value, low=value - 0.01, high=value + 0.01)


def feature_figures(value):
    figures = {measure.name: figure(value) for measure in registered.FEATURE_MEASURES}
    return figures | {"frechet_distance": Figure(value=None, refused="too few images")}


def feature_scores(extractor):
    return FeatureScores(
        extractor=extractor,
        digest="d" * 64,
        preprocessing="16 pixels",
        features=32,
        compared=18,
        reference=20,
        curve=(feature_figures(0.7), feature_figures(0.6)),
        floor=feature_figures(0.9),
        ceiling=feature_figures(0.8),
    )


def example_scores(**changes):
    recognition = Recognition(
        curve=(figure(0.8), figure(1.0)),
        real=figure(0.97),
        reconstructions=figure(0.96),
        classes=(
            ClassScore(name="ant", before=0.75, after=1.0, real=0.9),
            ClassScore(name="bee", before=None, after=None, real=None),
        ),
    )
    settings = {
        "samples": 18,
        "shares": SHARES,
        "keep": 0.5,
        "rejection": "",
        "split": "test",
        "unseen": 12,
        "recognition": recognition,
        "features": (feature_scores("judge"), feature_scores("inception")),
        "reconstruction": Reconstruction(
            images=12, figures={"psnr": figure(30.0), "ssim": figure(0.9), "squared_error": figure(0.004)}
        ),
        "likelihood": (LevelLikelihood(level="top", train=1.0, held_out=1.1, test=1.2),),
        "bits_per_dimension": 0.3,
        "memorisation": Memorisation(queries=18, searched=40, copied_share=0.02, ratio=1.1),
        "classification": (
            ClassificationScore(fitted_to="real images", images=40, top_1=0.9, top_5=0.99),
            ClassificationScore(fitted_to="reconstructions", images=40, top_1=0.8, top_5=None),
            ClassificationScore(fitted_to="samples", images=40, top_1=0.7, top_5=None),
        ),
    }
    return Scores(**{**settings, **changes})
