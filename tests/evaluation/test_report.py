"""The report: one self-contained page that shows every registered measure."""

import re

import numpy as np
import pytest

from components.evaluation.card import results_card
from components.evaluation.measures import registered
from components.evaluation.report import LineageRow, ReportPictures, figure_text, render_report
from components.pictures import to_png
from tests.evaluation.scores_example import example_scores
from tests.evaluation.test_card import context

PNG = to_png(np.zeros((8, 8, 1), np.uint8))
PICTURES = ReportPictures(before=PNG, after=PNG, reconstruction=PNG, levels=PNG, nearest=PNG)


def page_of(scores):
    return render_report(
        title="<b>digits</b> & more",
        scores=scores,
        card=results_card(scores, context()),
        pictures=PICTURES,
        lineage=[LineageRow(kind="tokenizer", digest="abc" * 20, run_id="run1", url="http://127.0.0.1:5000/#/run1")],
        settings="levels: <two>",
    )


@pytest.fixture(scope="module")
def page():
    return page_of(example_scores())


def test_the_page_is_self_contained_and_escapes_its_content(page):
    assert "&lt;b&gt;digits&lt;/b&gt; &amp; more" in page and "levels: &lt;two&gt;" in page
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert sum(link.startswith("data:image/png;base64,") for link in links) == 5
    assert [link for link in links if not link.startswith("data:")] == ["http://127.0.0.1:5000/#/run1"]


def test_every_measure_of_every_extractor_is_in_its_table(page):
    for features in example_scores().features:
        for measure in registered.FEATURE_MEASURES:
            assert f"<th>{measure.column}</th>" in page and measure.title in page
            for figures in (*features.curve, features.floor, features.ceiling):
                assert f"<td>{figure_text(figures[measure.name], measure.value_format)}</td>" in page


def test_a_refused_figure_shows_its_reason(page):
    assert "refused" in page and "too few images" in page


def test_classes_without_samples_have_no_bar(page):
    row = page[page.index("<td>bee</td>") :].split("</tr>")[0]
    assert row.count("n/a") == 3 and 'class="bar"' not in row


def test_without_classes_the_page_says_so_and_leaves_recognition_out():
    scores = example_scores(recognition=None, classification=(), rejection="there are no classes")
    page = page_of(scores)
    assert "Rejection is off: there are no classes." in page and "Recognised, by class" not in page
