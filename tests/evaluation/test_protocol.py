"""The evaluation of a generator: equal n, nested draws, floors beside figures; and the page made of it."""

import re

import pytest
import torch

from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.config import TrainingConfig
from components.evaluation.config import EvaluationConfig
from components.evaluation.protocol import draws_per_class, evaluate_samples
from components.evaluation.report import LineageRow, paint_pictures, render_report
from components.generator.rejection import draw_samples, generate_samples
from components.training.batches import ImageBatch

CONFIG = EvaluationConfig(samples_per_class=6, keep=0.5, shares=(0.25, 1.0), neighbours=2, pictures=4)


def real(count, seed):
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 16, 16, 1), dtype=torch.uint8, generator=random)
    return ImageBatch(pixels, torch.arange(count) % 3)


def measured(generator, judge, drawn, train):
    return evaluate_samples(
        generator, judge, drawn, train=train, held_out=real(12, 2), nats_per_code=[2.0, 1.0], config=CONFIG, seed=4
    )


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(9)
    config = ClassifierConfig(hidden=4, stages=2, training=TrainingConfig(updates=1, batch_size=1))
    return Classifier(config, channels=1, classes=3).eval()


@pytest.fixture(scope="module")
def drawn(generator):
    return draw_samples(generator, classes=range(3), count=draws_per_class(CONFIG), seed=4)


@pytest.fixture(scope="module")
def evaluation(generator, judge, drawn):
    return measured(generator, judge, drawn, real(48, 1))


def test_before_and_after_are_what_generate_gives(generator, evaluation):
    for samples, keep in ((evaluation.before, 1.0), (evaluation.after, 0.5)):
        expected = generate_samples(generator, classes=range(3), count=6, seed=4, keep=keep)
        torch.testing.assert_close(samples.maps[1], expected.maps[1])


def test_accuracy_is_the_share_that_the_judge_reads_right(judge, evaluation):
    for samples, point in ((evaluation.before, evaluation.scores.before), (evaluation.after, evaluation.scores.after)):
        images = samples.pixels.permute(0, 3, 1, 2) / 127.5 - 1
        right = (judge(images).argmax(1) == samples.labels).float()
        assert point.accuracy == pytest.approx(right.mean().item())
        field = "before" if samples is evaluation.before else "after"
        by_class = [getattr(score, field) for score in evaluation.scores.classes]
        assert by_class == pytest.approx(right.view(3, 6).mean(1).tolist())


def test_the_curve_falls_from_all_to_the_smallest_share_at_equal_n(evaluation):
    scores = evaluation.scores
    assert [point.share for point in scores.curve] == [1.0, 0.5, 0.25]
    assert scores.samples == len(evaluation.before) == len(evaluation.after) == 18
    assert scores.compared == 18
    assert draws_per_class(CONFIG) == 24


def test_figures_name_every_headline(evaluation):
    figures = evaluation.scores.figures()
    assert figures["judge_accuracy/before"] == evaluation.scores.before.accuracy
    assert figures["frechet_distance/real"] == evaluation.scores.floor.frechet_distance
    assert figures["kept_0.25/recall"] == evaluation.scores.curve[-1].fidelity.recall
    assert figures["bits_per_dimension"] == pytest.approx((2 * 4 + 16) / 0.6931472 / 256)
    assert all(re.fullmatch(r"[\w./]+", name) and isinstance(value, float) for name, value in figures.items())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (ImageBatch(real(48, 1).pixels, torch.full((48,), -1)), "48 of 48 have none"),
        (ImageBatch(real(48, 1).pixels, torch.zeros(48, dtype=torch.int64)), "at least 2 training images"),
    ],
)
def test_unusable_real_images_are_refused(generator, judge, drawn, train, message):
    with pytest.raises(ValueError, match=message):
        measured(generator, judge, drawn, train)


def test_a_draw_of_the_wrong_size_is_refused(generator, judge, drawn):
    with pytest.raises(ValueError, match="24 samples of each of 3 classes, class by class, got 9"):
        measured(generator, judge, drawn.take(torch.arange(9)), real(48, 1))


def test_the_page_stands_alone_and_escapes_what_it_shows(generator, evaluation):
    page = render_report(
        title="<b>digits</b> & more",
        scores=evaluation.scores,
        pictures=paint_pictures(evaluation, generator, real(12, 2), CONFIG.pictures),
        lineage=[LineageRow(kind="tokenizer", digest="abc" * 20, run_id="run1", url="http://127.0.0.1:5000/#/run1")],
        config="levels: <two>",
    )
    assert "&lt;b&gt;digits&lt;/b&gt; &amp; more" in page and "levels: &lt;two&gt;" in page
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert sum(link.startswith("data:image/png;base64,") for link in links) == 4
    assert [link for link in links if not link.startswith("data:")] == ["http://127.0.0.1:5000/#/run1"]
    assert page.count("<circle") == 2 * len(evaluation.scores.curve)
