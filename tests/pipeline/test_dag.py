"""The DAG: who needs whom, and which settings change which step."""

import dataclasses

import pytest

from components.artifacts import Artifact
from components.store import commits
from components.workspace import StepOutput
from pipeline.config_files import parse_config
from pipeline.dag import dag_of, groups_of, local_cpus
from tests.pipeline.conftest import FACTS


def fingerprints(tree, digests=None):
    """Fingerprint of every step, its inputs' digests being their names unless given."""
    config = parse_config(tree, "a test")
    made = {
        name: Artifact(kind=name, uri="", digest=(digests or {}).get(name, name), fingerprint="", run_id="")
        for name in dag_of(config)
    }
    return {name: step.fingerprint(made, config.seed) for name, step in dag_of(config).items()}


def changed(tree, before, **rest):
    """Steps whose fingerprint is another than before."""
    return {name for name, value in fingerprints(tree, **rest).items() if value != before[name]}


def test_the_paper_s_order_comes_out(tree):
    names = list(dag_of(parse_config(tree, "a test")))
    assert names == [
        "images",
        "tokenizer",
        "codes",
        "prior_top",
        "prior_bottom",
        "classifier",
        "judge",
        "generator",
        "evaluation",
    ]


def test_every_input_comes_before_its_step(tree):
    seen = set()
    for name, step in dag_of(parse_config(tree, "a test")).items():
        assert set(step.inputs) <= seen
        seen.add(name)


@pytest.mark.parametrize(
    ("section", "value", "steps"),
    [
        ("images", {"held_out": 0.2}, {"images"}),
        ("vqvae", {"beta": 0.5}, {"tokenizer"}),
        ("codes", {"rows_per_shard": 8}, {"codes"}),
        ("classifier", {"hidden": 8}, {"classifier"}),
        ("judge", {"hidden": 8}, {"judge"}),
        ("generator", {"keep": 0.5}, {"generator"}),
        ("evaluation", {"keep": 0.5}, {"evaluation"}),
        ("gates", {"codebook_usage": 0.1}, set()),
        ("resources", {"prior": {"workers": 2}}, set()),
        ("orchestration", {"retries": 0}, set()),
    ],
)
def test_a_setting_changes_its_own_step_alone(tree, section, value, steps):
    before = fingerprints(tree)
    tree[section] = tree.get(section, {}) | value
    assert changed(tree, before) == steps


def test_a_prior_s_setting_changes_that_prior_alone(tree):
    before = fingerprints(tree)
    tree["priors"]["top"] = tree["priors"]["top"] | {"layers": 3}
    assert changed(tree, before) == {"prior_top"}


def test_the_two_levels_are_told_apart_by_equal_settings(tree):
    found = fingerprints(tree)
    assert found["prior_top"] != found["prior_bottom"] and found["classifier"] != found["judge"]


def test_another_seed_changes_every_step(tree):
    before = fingerprints(tree)
    assert changed(tree | {"seed": 1}, before) == set(before)


def test_another_input_changes_those_that_read_it(tree):
    before = fingerprints(tree)
    assert changed(tree, before, digests={"codes": "others"}) == {"prior_top", "prior_bottom", "evaluation"}


def test_all_fits_have_room_at_the_same_time(tree):
    steps = dag_of(parse_config(tree | {"resources": {"prior": {"workers": 2, "cpus": 3}}}, "a test"))
    (fits,) = [group for group in groups_of(steps) if len(group) > 1]
    assert [step.name for step in fits] == ["prior_top", "prior_bottom", "classifier", "judge"]
    assert local_cpus(steps) > sum(step.resources.workers * step.resources.cpus for step in fits)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("images", {"max_rejects": 0.5}),
        ("vqvae", {"training": {"updates": 2, "batch_size": 4, "checkpoint_every": 1}}),
        ("codes", {"rows_per_wave": 8192}),
        ("classifier", {"training": {"updates": 2, "batch_size": 4, "checkpoint_every": 1}}),
    ],
)
def test_a_setting_that_cannot_change_the_result_changes_no_fingerprint(tree, section, value):
    before = fingerprints(tree)
    tree[section] = tree.get(section, {}) | value
    assert changed(tree, before) == set()


def test_recomputed_activations_change_no_fingerprint(tree):
    before = fingerprints(tree)
    tree["priors"] = {level: prior | {"recompute": True} for level, prior in tree["priors"].items()}
    assert changed(tree, before) == set()


def test_a_step_s_work_gets_its_declared_inputs_and_nothing_else(memo):
    """The memo hands over exactly what is declared, whatever else is finished."""
    seen = {}

    def work(name):
        def note(inputs, workspace):
            seen[name] = set(inputs)
            digest = commits.save_artifact(workspace.uri, {"data": b"x"}, FACTS[name].record())
            return StepOutput(digest=digest, facts=FACTS[name])

        return note

    artifacts = {}
    for name, step in memo.steps.items():
        artifacts[name] = memo.get_or_run(dataclasses.replace(step, work=work(name)), artifacts).artifact
    assert seen == {name: set(step.inputs) for name, step in memo.steps.items()}
