"""The results card: everything a comparison needs, as values and as Markdown."""

import json

import pytest

from components.evaluation.card import CardContext, markdown_table, results_card
from components.evaluation.published import PUBLISHED
from tests.evaluation.scores_example import example_scores


def context(**changes):
    settings = {
        "title": "a test",
        "image_size": 32,
        "channels": 1,
        "classes": 2,
        "train_images": 40,
        "seed": 7,
        "sampling": {"temperature": 1.0},
        "generator": "g" * 64,
        "dataset": "s" * 64,
    }
    return CardContext(**{**settings, **changes})


@pytest.fixture
def card():
    return results_card(example_scores(), context())


def test_the_card_is_plain_json(card):
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_every_comparison_names_its_features_images_and_digest(card):
    for entry in card["comparisons"][1:]:
        assert (entry["images"], entry["reference_images"], entry["feature_count"]) == (18, 20, 32)
        assert entry["features"] in ("judge", "inception") and entry["digest"] == "d" * 64


def test_the_table_shows_values_with_half_their_interval_and_the_reasons_of_refusals(card):
    lines = markdown_table(card).splitlines()
    precision = next(line for line in lines if line.startswith("| Precision | inception"))
    assert "70.0% ± 1.0%" in precision and precision.endswith("| 18 |")
    assert any(line.startswith("| Reconstruction, PSNR") and "30.00 dB ± 0.01" in line for line in lines)
    assert "too few images" in lines[-1] and lines[-1].startswith("Refused: ")


def test_all_lines_of_a_table_have_the_columns_of_its_header(card):
    for table in markdown_table(card).split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_papers_own_figures_stand_beside_results_on_imagenet_alone(card):
    assert card["published"] == []
    imagenet = results_card(example_scores(), context(classes=1000, image_size=256))
    assert len(imagenet["published"]) == len(PUBLISHED) > 0
    assert PUBLISHED[0].source in markdown_table(imagenet)
