"""The DAG: the inputs of each step, and the settings that change its fingerprint."""

import dataclasses

import pytest

from components.artifacts import Artifact
from components.store import commits
from components.workspace import StepOutput
from pipeline.config_files import parse_config
from pipeline.dag import dag_of, groups_of, local_cpus
from tests.pipeline.conftest import FACTS


def fingerprints(tree, digests=None):
    """Fingerprint of every step; the digest of an input is its name unless `digests` has it."""
    config = parse_config(tree, "a test")
    made = {
        name: Artifact(kind=name, uri="", digest=(digests or {}).get(name, name), fingerprint="", run_id="")
        for name in dag_of(config)
    }
    return {name: step.fingerprint(made, config.seed) for name, step in dag_of(config).items()}


def changed_steps(tree, before, **rest):
    """Names of the steps whose fingerprint differs from before."""
    return {name for name, value in fingerprints(tree, **rest).items() if value != before[name]}


def test_steps_are_in_the_order_of_the_paper(tree):
    names = list(dag_of(parse_config(tree, "a test")))
    assert names == [
        "images",
        "tokenizer",
        "classifier",
        "judge",
        "codes",
        "prior_top",
        "prior_bottom",
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
def test_a_setting_changes_only_its_own_step(tree, section, value, steps):
    before = fingerprints(tree)
    tree[section] = tree.get(section, {}) | value
    assert changed_steps(tree, before) == steps


def test_a_setting_of_one_prior_changes_only_that_prior(tree):
    before = fingerprints(tree)
    tree["priors"]["top"] = tree["priors"]["top"] | {"layers": 3}
    assert changed_steps(tree, before) == {"prior_top"}


def test_steps_with_equal_settings_have_different_fingerprints(tree):
    prints = fingerprints(tree)
    assert prints["prior_top"] != prints["prior_bottom"] and prints["classifier"] != prints["judge"]


def test_another_seed_changes_every_step(tree):
    before = fingerprints(tree)
    assert changed_steps(tree | {"seed": 1}, before) == set(before)


def test_a_changed_input_changes_the_steps_that_read_it(tree):
    before = fingerprints(tree)
    assert changed_steps(tree, before, digests={"codes": "others"}) == {"prior_top", "prior_bottom", "evaluation"}


def test_local_cpus_suffice_for_all_fits_at_the_same_time(tree):
    steps = dag_of(parse_config(tree | {"resources": {"prior": {"workers": 2, "cpus": 3}}}, "a test"))
    on_images, on_codes = (group for group in groups_of(steps) if len(group) > 1)
    assert [step.name for step in on_images] == ["tokenizer", "classifier", "judge"]
    assert [step.name for step in on_codes] == ["prior_top", "prior_bottom"]
    assert local_cpus(steps) > sum(step.resources.workers * step.resources.cpus for step in on_codes)


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
    assert changed_steps(tree, before) == set()


def test_recomputed_activations_change_no_fingerprint(tree):
    before = fingerprints(tree)
    tree["priors"] = {level: prior | {"recompute": True} for level, prior in tree["priors"].items()}
    assert changed_steps(tree, before) == set()


def test_a_step_gets_exactly_its_declared_inputs(memo):
    """The memo passes the declared inputs alone, even if other artifacts are finished."""
    seen = {}

    def work(name):
        def record_inputs(inputs, workspace):
            seen[name] = set(inputs)
            digest = commits.save_artifact(workspace.uri, {"data": b"x"}, FACTS[name].record())
            return StepOutput(digest=digest, facts=FACTS[name])

        return record_inputs

    artifacts = {}
    for name, step in memo.steps.items():
        artifacts[name] = memo.get_or_run(dataclasses.replace(step, work=work(name)), artifacts).artifact
    assert seen == {name: set(step.inputs) for name, step in memo.steps.items()}
