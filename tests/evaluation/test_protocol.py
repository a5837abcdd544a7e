"""The evaluation of a generator: equal sample counts, nested draws, and reference values of real images."""

import dataclasses
import re

import pytest
import torch

from components.evaluation.measures import registered
from components.evaluation.measures.kinds import FeatureMeasure, GeneratorMeasure
from components.evaluation.protocol import draws_per_class
from components.generator.rejection import generate_samples
from components.training.batches import ImageBatch
from tests.evaluation.tiny import CONFIG, measure_generator, real_images

SHARES = ("1", "0.5", "0.25")


def test_samples_before_and_after_rejection_equal_those_of_generate(generator, evaluation):
    for samples, keep in ((evaluation.before, 1.0), (evaluation.after, 0.5)):
        expected = generate_samples(generator, classes=range(3), count=6, seed=4, keep=keep)
        torch.testing.assert_close(samples.maps[1], expected.maps[1])


def test_accuracy_is_the_fraction_that_the_judge_recognises(judge, evaluation):
    for samples, point in ((evaluation.before, evaluation.scores.before), (evaluation.after, evaluation.scores.after)):
        images = samples.pixels.permute(0, 3, 1, 2) / 127.5 - 1
        correct = (judge(images).argmax(1) == samples.labels).float()
        assert point.accuracy == pytest.approx(correct.mean().item())
        field = "before" if samples is evaluation.before else "after"
        by_class = [getattr(score, field) for score in evaluation.scores.classes]
        assert by_class == pytest.approx(correct.view(3, 6).mean(1).tolist())


def test_the_curve_has_every_share_with_equal_sample_counts(evaluation):
    scores = evaluation.scores
    assert [point.share for point in scores.curve] == [1.0, 0.5, 0.25]
    assert scores.samples == len(evaluation.before) == len(evaluation.after) == 18
    assert scores.compared == 18
    assert draws_per_class(CONFIG) == 24


def test_figures_contain_every_headline(evaluation):
    figures = evaluation.scores.figures()
    assert figures["judge_accuracy/before"] == evaluation.scores.before.accuracy
    assert figures["frechet_distance/real"] == evaluation.scores.floor["frechet_distance"]
    assert figures["kept_0.25/recall"] == evaluation.scores.curve[-1].fidelity["recall"]
    assert figures["bits_per_dimension"] == pytest.approx((2 * 4 + 16) / 0.6931472 / 256)
    assert all(re.fullmatch(r"[\w./]+", name) and isinstance(value, float) for name, value in figures.items())


def test_figures_have_the_names_under_which_earlier_runs_are_tracked(evaluation):
    by_set = {
        f"{name}/{part}" for name in ("frechet_distance", "precision", "recall") for part in ("before", "after", "real")
    }
    accuracies = {f"judge_accuracy/{part}" for part in ("before", "after", "real", "reconstructions")}
    curve = {f"kept_{share}/{name}" for share in SHARES for name in ("accuracy", "recall", "frechet_distance")}
    single = {"memorisation_ratio", "psnr", "bits_per_dimension"}
    assert by_set | accuracies | curve | single <= set(evaluation.scores.figures())


def test_a_registered_feature_measure_is_computed_and_tracked(generator, judge, drawn, monkeypatch):
    mean_distance = FeatureMeasure(
        name="mean_distance",
        title="Mean distance",
        column="MD",
        meaning="Between the mean features.",
        value_format="{:.3f}",
        compute=lambda real, others, config: (real.mean(0) - others.mean(0)).norm().item(),
    )
    monkeypatch.setattr(registered, "FEATURE_MEASURES", (*registered.FEATURE_MEASURES, mean_distance))
    scores = measure_generator(generator, judge, drawn, real_images(48, 1)).scores
    names = {f"mean_distance/{part}" for part in ("before", "after", "real")}
    assert names | {f"kept_{share}/mean_distance" for share in SHARES} <= set(scores.figures())
    assert scores.before.fidelity["mean_distance"] > 0


def test_a_registered_generator_measure_is_computed_and_tracked(generator, judge, drawn, monkeypatch):
    def measure(name, value):
        return GeneratorMeasure(
            name=name,
            title=name,
            meaning="A test.",
            value_format="{:.1f}",
            compute=lambda inputs: value and value + len(inputs.samples),
            reference=lambda scores: "",
        )

    added = (measure("count_plus_half", 0.5), measure("left_out", None))
    monkeypatch.setattr(registered, "GENERATOR_MEASURES", (*registered.GENERATOR_MEASURES, *added))
    figures = measure_generator(generator, judge, drawn, real_images(48, 1)).scores.figures()
    assert figures["count_plus_half"] == 18.5 and "left_out" not in figures


def test_the_classification_accuracy_score_is_a_figure_if_it_is_configured(generator, judge, drawn):
    config = dataclasses.replace(CONFIG, cas_updates=2)
    scores = measure_generator(generator, judge, drawn, real_images(48, 1), config=config).scores
    assert 0 <= scores.figures()["classification_accuracy_score"] <= 1


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (ImageBatch(real_images(48, 1).pixels, torch.full((48,), -1)), "48 of 48 have none"),
        (
            ImageBatch(real_images(48, 1).pixels, torch.zeros(48, dtype=torch.int64)),
            "at least 2 training images",
        ),
    ],
)
def test_unusable_real_images_are_refused(generator, judge, drawn, train, message):
    with pytest.raises(ValueError, match=message):
        measure_generator(generator, judge, drawn, train)


def test_a_draw_of_the_wrong_size_is_refused(generator, judge, drawn):
    with pytest.raises(ValueError, match="24 samples of each of 3 classes, class by class, got 9"):
        measure_generator(generator, judge, drawn.take(torch.arange(9)), real_images(48, 1))
