"""The report: one self-contained page that shows every registered measure."""

import re

import pytest

from components.evaluation.measures import registered
from components.evaluation.report import LineageRow, paint_pictures, render_report
from tests.evaluation.tiny import CONFIG, real_images


@pytest.fixture(scope="module")
def page(generator, evaluation):
    return render_report(
        title="<b>digits</b> & more",
        scores=evaluation.scores,
        pictures=paint_pictures(evaluation, generator, real_images(12, 2), CONFIG.pictures),
        lineage=[LineageRow(kind="tokenizer", digest="abc" * 20, run_id="run1", url="http://127.0.0.1:5000/#/run1")],
        settings="levels: <two>",
    )


def test_the_page_is_self_contained_and_escapes_its_content(page, evaluation):
    assert "&lt;b&gt;digits&lt;/b&gt; &amp; more" in page and "levels: &lt;two&gt;" in page
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert sum(link.startswith("data:image/png;base64,") for link in links) == 4
    assert [link for link in links if not link.startswith("data:")] == ["http://127.0.0.1:5000/#/run1"]
    assert page.count("<circle") == 2 * len(evaluation.scores.curve)


def test_every_measure_has_a_card_with_its_value(page, evaluation):
    scores = evaluation.scores
    values = dict(scores.generator_measures)
    for measure in registered.FEATURE_MEASURES:
        values[measure.name] = scores.before.fidelity[measure.name]
        assert f"<th>{measure.column}</th>" in page
    for measure in (*registered.FEATURE_MEASURES, *registered.GENERATOR_MEASURES):
        if measure.name in values:
            assert measure.title in page and f'<p class="value">{measure.show(values[measure.name])}</p>' in page


def test_the_table_shows_every_share_and_the_floor(page, evaluation):
    scores = evaluation.scores
    for measure in registered.FEATURE_MEASURES:
        for fidelity in (*(point.fidelity for point in scores.curve), scores.floor):
            assert f"<td>{measure.show(fidelity[measure.name])}</td>" in page
