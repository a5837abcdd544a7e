"""Gates: each figure against its limit."""

import dataclasses

import pytest

from components.artifacts import Artifact
from components.tokenizer.facts import TokenizerFacts
from pipeline.config_files import parse_config
from pipeline.dag import dag_of
from pipeline.gates import summarise_verdicts
from tests.pipeline.conftest import FACTS

CASES = [
    ("tokenizer", {"reconstruction_error": 0.2}, "reconstruction_error"),
    ("codes", {"usage": {"top": 0.4, "bottom": 1.0}}, "usage_top"),
    ("prior_top", {"nats_per_code": 1.95}, "nats_per_code"),
    ("evaluation", {"kept_accuracy": 0.7}, "kept_accuracy"),
]
"""Step, bad facts of it, and the gate that fails; all other facts are good."""


@pytest.fixture
def steps(tree):
    """Steps of a DAG with limits for all gates."""
    gates = {"reconstruction_error": 0.1, "judge_accuracy": 0.8, "kept_accuracy": 0.8}
    return dag_of(parse_config(tree | {"gates": gates}, "a test"))


def artifact(name, facts):
    """An artifact with these facts."""
    return Artifact(kind=name, uri="", digest="", fingerprint="", run_id="", facts=facts.record())


def failed_gates(step, facts):
    """Names of the gates that the facts fail."""
    return [verdict.gate for verdict in step.judge(artifact(step.name, facts)) if not verdict.passed]


@pytest.mark.parametrize(("name", "bad", "gate"), CASES)
def test_a_gate_passes_good_figures_and_fails_bad_ones(steps, name, bad, gate):
    assert failed_gates(steps[name], FACTS[name]) == []
    assert failed_gates(steps[name], dataclasses.replace(FACTS[name], **bad)) == [gate]


@pytest.mark.parametrize(("name", "bad", "gate"), CASES)
def test_a_figure_that_is_not_a_number_fails_its_gate(steps, name, bad, gate):
    not_a_number = {key: {"top": float("nan"), "bottom": 1.0} if key == "usage" else float("nan") for key in bad}
    assert failed_gates(steps[name], dataclasses.replace(FACTS[name], **not_a_number)) == [gate]


def test_every_step_has_the_gates_that_it_names(steps):
    for name, step in steps.items():
        verdicts = step.judge(artifact(name, FACTS[name]))
        assert [verdict.gate for verdict in verdicts] == [gate.name for gate in step.gates]


def test_the_summary_names_the_failed_gate_its_figure_and_its_limit(steps):
    good, bad = FACTS["tokenizer"], dataclasses.replace(FACTS["tokenizer"], reconstruction_error=0.25)
    assert summarise_verdicts(steps["tokenizer"].judge(artifact("tokenizer", good))) == "passed"
    summary = summarise_verdicts(steps["tokenizer"].judge(artifact("tokenizer", bad)))
    assert summary == "failed: reconstruction_error: held-out mean squared error is 0.25, beyond the limit of 0.1"


def test_a_missing_figure_is_an_error(steps):
    record = artifact("tokenizer", TokenizerFacts(reconstruction_error=0.0, psnr=1.0))
    with pytest.raises(ValueError, match=r"TokenizerFacts must have \['reconstruction_error'\]"):
        steps["tokenizer"].judge(dataclasses.replace(record, facts={"psnr": 1.0}))
