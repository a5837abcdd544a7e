"""Every measure of features, in the order in which the report shows them."""

from components.evaluation.measures.diversity import WITHIN_CLASS_DIVERSITY
from components.evaluation.measures.frechet import FRECHET_DISTANCE
from components.evaluation.measures.inception_score import INCEPTION_SCORE
from components.evaluation.measures.kernel import KERNEL_DISTANCE
from components.evaluation.measures.kinds import FeatureMeasure
from components.evaluation.measures.neighbours import COVERAGE, DENSITY, PRECISION, RECALL

FEATURE_MEASURES: tuple[FeatureMeasure, ...] = (
    FRECHET_DISTANCE,
    KERNEL_DISTANCE,
    RECALL,
    PRECISION,
    DENSITY,
    COVERAGE,
    INCEPTION_SCORE,
    WITHIN_CLASS_DIVERSITY,
)
"""Between two sets of images, in the feature space of any extractor."""
