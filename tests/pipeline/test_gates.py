"""Gates: each figure against its limit."""

import pytest

from pipeline.config import parse_config
from pipeline.dag import steps_of
from pipeline.gates import gate_names, summarise_verdicts, verdicts

CASES = [
    ("tokenizer", {"reconstruction_error": 0.05}, {"reconstruction_error": 0.2}, "reconstruction_error"),
    ("codes", {"usage_top": 0.5, "usage_bottom": 1.0}, {"usage_top": 0.4, "usage_bottom": 1.0}, "usage_top"),
    (
        "prior_top",
        {"nats_per_code": 1.9, "unigram_nats": 2.0},
        {"nats_per_code": 1.95, "unigram_nats": 2.0},
        "nats_per_code",
    ),
    (
        "evaluation",
        {"judge_accuracy": 0.9, "kept_accuracy": 0.9},
        {"judge_accuracy": 0.9, "kept_accuracy": 0.7},
        "kept_accuracy",
    ),
]


@pytest.fixture
def gated(tree):
    """A config with a limit of every kind."""
    return parse_config(
        tree | {"gates": {"reconstruction_error": 0.1, "judge_accuracy": 0.8, "kept_accuracy": 0.8}}, "a test"
    )


@pytest.mark.parametrize(("step", "good", "bad", "gate"), CASES)
def test_a_gate_tells_good_from_bad(gated, step, good, bad, gate):
    assert all(one.passed for one in verdicts(step, good, gated))
    assert [one.gate for one in verdicts(step, bad, gated) if not one.passed] == [gate]


@pytest.mark.parametrize(("step", "good", "bad", "gate"), CASES)
def test_a_figure_that_is_not_a_number_passes_no_gate(gated, step, good, bad, gate):
    assert gate in [one.gate for one in verdicts(step, good | {gate: float("nan")}, gated) if not one.passed]


def test_every_step_has_the_gates_that_it_names(gated):
    facts = {key: 1.0 for _, good, _, _ in CASES for key in good}
    for step in steps_of(gated):
        assert [one.gate for one in verdicts(step, facts, gated)] == gate_names(step, gated)


def test_the_summary_names_what_failed_and_by_how_much(gated):
    assert summarise_verdicts(verdicts("tokenizer", {"reconstruction_error": 0.05}, gated)) == "passed"
    failed = summarise_verdicts(verdicts("tokenizer", {"reconstruction_error": 0.25}, gated))
    assert failed == "failed: reconstruction_error: held-out mean squared error is 0.25, beyond the limit of 0.1"


def test_a_figure_that_is_missing_is_a_bug_and_no_pass(gated):
    with pytest.raises(KeyError):
        verdicts("tokenizer", {}, gated)
