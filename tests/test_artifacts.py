"""Typed facts, their records, and the round trip through JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from components.artifacts import Artifact, Facts, digest_of
from components.classifier.facts import ClassifierFacts
from components.codes.facts import CodesFacts
from components.evaluation.facts import EvaluationFacts
from components.generator.facts import GeneratorFacts
from components.images.facts import SnapshotFacts
from components.priors.facts import PriorFacts
from components.tokenizer.facts import TokenizerFacts

EVERY_KIND = [
    SnapshotFacts(images=3, rows=4, train_images=2, train_rows=3, held_out=1, classes=2, image_size=16, channels=1),
    TokenizerFacts(reconstruction_error=0.1, psnr=20.0),
    CodesFacts(rows=4, usage={"top": 0.5}, classes=2, dimensions=256),
    PriorFacts(nats_per_code=1.0, unigram_nats=2.0),
    ClassifierFacts(held_out_accuracy=0.5),
    GeneratorFacts(temperature=0.9, top_k=3),
    EvaluationFacts(judge_accuracy=0.5, kept_accuracy=0.6, measures={"psnr": 20.0}),
]


@dataclass(frozen=True, kw_only=True)
class ExampleFacts(Facts):
    """Facts of every type that a field may have."""

    rows: int
    usage: Mapping[str, float]
    name: str | None = None
    sides: tuple[int, ...] = (1,)


def through_json(facts):
    """An artifact with these facts, through JSON."""
    artifact = Artifact(kind="codes", uri="/a", digest="d", fingerprint="f", run_id="r", facts=facts.record())
    return Artifact.from_json(artifact.to_json())


@pytest.mark.parametrize("facts", EVERY_KIND, ids=lambda facts: type(facts).__name__)
def test_the_facts_of_every_step_survive_json(facts):
    assert through_json(facts).read(type(facts)) == facts and facts.headline()


def test_every_type_of_field_survives_json():
    facts = ExampleFacts(rows=2, usage={"top": 0.5}, name="x", sides=(4, 8))
    assert through_json(facts).read(ExampleFacts) == facts


def test_missing_fields_take_their_defaults_and_unknown_ones_are_ignored():
    assert ExampleFacts.read({"rows": 2, "usage": {}, "later": 1}) == ExampleFacts(rows=2, usage={})


def test_a_missing_field_without_a_default_is_named():
    with pytest.raises(ValueError, match=r"ExampleFacts must have \['usage'\], got a record with \['rows'\]"):
        ExampleFacts.read({"rows": 2})


def test_figures_are_flat_numbers():
    facts = ExampleFacts(rows=2, usage={"top": 0.5, "bottom": 1}, name="x")
    assert facts.figures() == {"rows": 2.0, "usage_top": 0.5, "usage_bottom": 1.0}


def test_measures_of_an_evaluation_keep_their_names():
    figures = EVERY_KIND[-1].figures()
    assert figures["psnr"] == 20.0 and "measures_psnr" not in figures and figures["judge_accuracy"] == 0.5


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})
