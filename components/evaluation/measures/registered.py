"""Every measure, in the order in which the report shows them."""

from components.evaluation.measures.bits import BITS_PER_DIMENSION
from components.evaluation.measures.classification_score import CLASSIFICATION_ACCURACY_SCORE
from components.evaluation.measures.frechet import FRECHET_DISTANCE
from components.evaluation.measures.kinds import FeatureMeasure, GeneratorMeasure
from components.evaluation.measures.memorisation import MEMORISATION_RATIO
from components.evaluation.measures.neighbours import PRECISION, RECALL
from components.evaluation.measures.reconstruction import RECONSTRUCTION_PSNR

FEATURE_MEASURES: tuple[FeatureMeasure, ...] = (FRECHET_DISTANCE, RECALL, PRECISION)
"""Between two sets of images, in the judge's feature space."""
GENERATOR_MEASURES: tuple[GeneratorMeasure, ...] = (
    MEMORISATION_RATIO,
    RECONSTRUCTION_PSNR,
    BITS_PER_DIMENSION,
    CLASSIFICATION_ACCURACY_SCORE,
)
"""Of the whole generator, one figure each."""
