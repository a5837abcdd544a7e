"""Published figures are consistent with each other and belong to presets."""

import math

from components.evaluation.published import PUBLISHED, published_for
from pipeline.config_files import preset_names


def value(measure: str) -> float:
    """The one figure of `measure`."""
    (figure,) = (each for each in published_for("imagenet256") if each.measure == measure)
    return figure.value


def test_every_figure_names_a_preset_and_where_it_is_printed():
    assert {figure.dataset for figure in PUBLISHED} <= set(preset_names())
    assert all("table" in figure.source or "section" in figure.source for figure in PUBLISHED)
    assert len({(figure.dataset, figure.measure, figure.source) for figure in PUBLISHED}) == len(PUBLISHED)
    assert published_for("digits") == ()


def test_scores_stand_in_the_order_that_their_meaning_demands():
    kinds = ("samples of BigGAN-deep", "samples of VQ-VAE-2", "reconstructions", "real images")
    for top in ("CAS top-1", "CAS top-5"):
        scores = [value(f"{top}, {kind}") for kind in kinds]
        assert scores == sorted(scores) and scores[-1] < 100
    assert all(value(f"CAS top-1, {kind}") < value(f"CAS top-5, {kind}") for kind in kinds)
    for prior in ("top", "bottom"):
        train, validation = (value(f"NLL of the {prior} prior, {split}") for split in ("train", "validation"))
        assert 0 < train <= validation < math.log(512)  # a model that knows nothing of 512 codes has log 512 nats
