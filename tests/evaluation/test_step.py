"""The evaluation step without a cluster: figures, the card, the report, and what a killed evaluation leaves."""

import dataclasses
import json

import numpy as np
import pytest

from components.classifier.stored import load_classifier
from components.config import StepResources
from components.evaluation import describe, parts
from components.evaluation.card import markdown_table
from components.evaluation.facts import EvaluationFacts
from components.evaluation.measures import registered
from components.generator.rejection import generate_samples
from components.generator.stored import load_generator
from components.images.tensors import to_images
from components.store import commits
from tests.evaluation.tiny import CONFIG, run_evaluation
from tests.generator.committed import workspace_in
from tests.store.committed_files import stored_path

pytestmark = pytest.mark.slow  # imports Ray


@pytest.fixture(scope="module")
def output(inputs, root):
    return run_evaluation(root, inputs, "evaluation")


@pytest.fixture(scope="module")
def figures(output, root):
    return json.loads(stored_path(root / "evaluation", "scores.json").read_text())


def test_only_figures_are_committed(output, root):
    manifest = commits.read_manifest(str(root / "evaluation"))
    assert [commits.name_of(file["path"]) for file in manifest["files"]] == ["results.json", "scores.json"]
    assert manifest["digest"] == output.digest


def test_the_facts_are_the_figures(output, figures, root):
    facts = EvaluationFacts.read(commits.read_manifest(str(root / "evaluation"))["facts"])
    assert facts == output.facts
    assert facts.judge_accuracy == figures["judge_accuracy/before"]
    assert facts.kept_accuracy == figures["judge_accuracy/after"]
    assert (facts.keep, facts.samples) == (0.5, 18)
    assert facts.measures == {
        name.replace("/", "_"): value for name, value in figures.items() if "judge_accuracy/" not in name
    }


def test_every_measure_has_a_figure_of_samples_reconstructions_and_real_images_or_is_refused(figures, output):
    for measure in registered.FEATURE_MEASURES:
        names = [f"{measure.name}/{part}" for part in ("before", "after", "real", "reconstructions")]
        if measure.name == "frechet_distance":  # fewer images than twice the judge's features
            assert not set(names) & set(figures)
            assert "Refused" not in figures and measure.title in output.documents["report.html"]
        else:
            assert set(names) <= set(figures)
            assert {f"kept_{share}/{measure.name}" for share in ("1", "0.5", "0.25")} <= set(figures)


def test_accuracies_are_those_of_samples_drawn_one_by_one(figures, generator_folders, inputs):
    from components.evaluation.image_sets import EVALUATION_SEED

    generator = load_generator(generator_folders)
    judge = load_classifier(generator_folders["classifier"])
    sizes = {0: 0, 1: 0, 2: 0}
    for keep, part in ((1.0, "before"), (0.5, "after")):
        samples = generate_samples(generator, classes=range(3), count=6, seed=3 + EVALUATION_SEED, keep=keep)
        right = judge(to_images(samples.pixels)).argmax(1) == samples.labels
        counts = np.bincount(samples.labels, minlength=3)
        assert counts.tolist() == [6, 6, 6], sizes
        assert figures[f"judge_accuracy/{part}"] == pytest.approx(right.double().mean().item(), abs=2 / 18)


def test_code_length_and_nats_are_those_of_the_test_split(figures):
    assert figures["bits_per_dimension"] == pytest.approx((2.1 * 4 + 1.1 * 16) / 0.6931472 / 256)
    assert figures["nats_per_code/top/train"] == pytest.approx(1.9)
    assert figures["nats_per_code/bottom/held_out"] == 1.0


def test_the_classification_accuracy_score_stands_beside_real_images_and_reconstructions(figures):
    for source in ("real_images", "reconstructions", "samples"):
        assert 0 <= figures[f"classification_accuracy_score/{source}"] <= 1


def test_the_card_names_all_that_a_comparison_needs(output, root, inputs):
    card = json.loads(stored_path(root / "evaluation", "results.json").read_text())
    context = card["context"]
    assert (context["image_size"], context["seed"], context["unseen_split"]) == (16, 3, "test")
    precision = next(entry for entry in card["comparisons"] if entry["measure"] == "precision")
    assert (precision["images"], precision["features"]) == (18, "judge") and precision["reference_images"] >= 18
    assert precision["digest"] == inputs["judge"].digest and set(precision["sets"]) == {
        "drawn", "kept", "reconstructions", "real",
    }  # fmt: skip
    table = markdown_table(card)
    assert "| Recognised by the judge | judge |" in table and "Refused: " in table and "top 1" in table


def test_the_report_lists_every_input_with_its_run(output, inputs, root):
    page = output.documents["report.html"]
    for artifact in inputs.values():
        assert f"<td>{artifact.kind}</td>" in page and artifact.digest[:16] in page
    assert 'href="http://host/run of generator"' in page and "seed: 3" in page
    assert not (root / "evaluation" / "report.html").exists()
    assert set(output.pictures) == {"samples", "samples-kept", "levels", "nearest"}


def test_a_killed_evaluation_keeps_its_parts_and_ends_with_the_same_digest(output, inputs, root, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 20)
    whole = run_evaluation(root, inputs, "whole")
    drawn = []

    class Killed(BaseException):
        pass

    def draw(settings, sampling, request, folder, number):
        if len(drawn) == 2:
            raise Killed
        drawn.append(number)
        return describe.draw_part(settings, sampling, request, folder, number)

    monkeypatch.setattr("components.evaluation.image_sets.draw_part", draw)
    with pytest.raises(Killed):
        run_evaluation(root, inputs, "killed")
    drawn.clear()
    drawn.append("nothing of part 0 or 1")
    monkeypatch.setattr(
        "components.evaluation.image_sets.draw_part",
        lambda *arguments: drawn.append(arguments[-1]) or describe.draw_part(*arguments),
    )
    assert run_evaluation(root, inputs, "killed").digest == whole.digest
    assert 0 not in drawn and 1 not in drawn and 2 in drawn


def test_an_exact_copy_in_the_samples_set_would_be_found(inputs, root):
    """The search goes through all training images: the training images themselves are all at distance 0."""
    from components.evaluation.describe import QuerySet, describe_part
    from components.evaluation.image_sets import TRAIN
    from components.evaluation.instruments import InstrumentSettings
    from components.evaluation.laboratory import Laboratory
    from components.evaluation.memorisation_search import search_training
    from components.images.snapshot import read_snapshot

    snapshot = read_snapshot(inputs["images"].uri)
    settings = InstrumentSettings(
        generator=inputs["generator"].uri, judge=inputs["judge"].uri, features=(), lpips=None, image_size=16, gpu=False
    )
    laboratory = Laboratory(
        config=CONFIG,
        instruments=settings,
        snapshot=snapshot,
        resources=StepResources(),
        workspace=workspace_in(root, "search"),
    )
    sets = {}
    for name, table in (("copies", snapshot.originals(TRAIN)), ("unseen", snapshot.originals("test"))):
        describe_part(settings, laboratory.reader, table, laboratory.folder(name), 0, False)
        sets[name] = QuerySet(laboratory.folder(name), tuple(range(table.num_rows)))
    result = search_training(laboratory, sets["copies"], sets["unseen"])
    assert result.figures.copied_share == 1.0 and result.figures.ratio == 0.0
    assert result.nearest.rows.tolist() == list(range(len(result.nearest.rows)))
    assert (
        search_training(
            dataclasses.replace(laboratory, workspace=workspace_in(root, "again")), sets["unseen"], sets["unseen"]
        ).figures.copied_share
        < 0.2
    )


@pytest.mark.ray
def test_on_a_cluster_the_figures_are_those_of_one_process(output, inputs, root, local_ray):
    """Two tasks at a time, and three fits of the accuracy score on Ray Train."""
    on_cluster = run_evaluation(root, inputs, "on-cluster", cluster=local_ray)
    assert on_cluster.digest == output.digest
