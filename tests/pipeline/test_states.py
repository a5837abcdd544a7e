"""The state of each step, and the reason why it would run."""

import dataclasses
from pathlib import Path

import pytest

from components.config import to_plain
from components.store import commits, objects
from components.workspace import StepOutput
from pipeline.config_files import parse_config
from pipeline.dag import dag_of
from pipeline.session import look_up_memo
from pipeline.states import step_states
from tests.pipeline.conftest import FACTS, open_memo
from tests.store.committed_files import stored_path


def state_texts(config):
    """The text of every step's state."""
    return {name: str(state) for name, state in step_states(look_up_memo(config), dag_of(config)).items()}


def with_settings(config, **sections):
    """The config with changed settings in some sections."""
    tree = to_plain(config)
    return parse_config(
        {name: value | sections.get(name, {}) if isinstance(value, dict) else value for name, value in tree.items()},
        "a test",
    )


def test_a_finished_pipeline_is_done(finished):
    assert set(state_texts(finished[1]).values()) == {"done"}


def test_a_changed_setting_is_named_and_later_steps_wait(finished):
    states = state_texts(with_settings(finished[1], vqvae={"beta": 0.5}))
    assert states["tokenizer"] == "would run (beta 0.25 -> 0.5)" and states["codes"] == "would run after tokenizer"
    assert states["images"] == states["classifier"] == states["judge"] == "done"


def test_a_changed_prior_does_not_affect_the_other(finished):
    config = finished[1]
    priors = {"top": to_plain(config.priors["top"]) | {"layers": 3}}
    states = state_texts(with_settings(config, priors=priors))
    assert states["prior_top"] == "would run (layers 2 -> 3)" and states["prior_bottom"] == "done"
    assert states["generator"] == "would run after prior_top"


def test_all_changed_settings_or_inputs_are_named(finished):
    states = state_texts(
        with_settings(
            finished[1],
            codes={"rows_per_shard": 1, "batch_size": 2},
            evaluation={"keep": 0.5, "neighbours": 1, "pictures": 2, "samples": 2},
        )
    )
    assert (
        states["codes"] == "would run (batch_size 64 -> 2; rows_per_shard 4096 -> 1)"
        and states["evaluation"] == "would run after codes, prior_top, prior_bottom, generator"
    )


def test_a_failed_gate_blocks_unfinished_steps(finished):
    states = state_texts(with_settings(finished[1], gates={"reconstruction_error": 0.01}, codes={"batch_size": 2}))
    assert (
        states["tokenizer"] == "done, gate failed" and states["codes"] == "would run once the gates of tokenizer pass"
    )


def test_a_missing_file_is_named(config, memo):
    def work(inputs, workspace):
        digest = commits.save_artifact(workspace.uri, {"a": b"1", "b": b"2"}, FACTS["images"].record())
        return StepOutput(digest=digest, facts=FACTS["images"])

    result = memo.get_or_run(dataclasses.replace(memo.steps["images"], work=work), {})
    folder = Path(result.artifact.uri)
    removed = stored_path(folder, "a")
    removed.unlink()
    stored_path(folder, "b").write_bytes(b"12")
    missing = removed.relative_to(folder)
    assert state_texts(config)["images"] == f"would run again: {missing} is missing from {folder} and 1 more"


@pytest.mark.parametrize(
    ("has_checkpoint", "state"),
    [(True, "would run on from its last checkpoint (unfinished)"), (False, "would run again (unfinished)")],
)
def test_an_interrupted_step_resumes_if_it_has_a_checkpoint(config, memo, has_checkpoint, state):
    def work(inputs, workspace):
        if has_checkpoint:
            objects.write_bytes(objects.join(workspace.uri, commits.WORK_FOLDER, "checkpoint"), b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memo.get_or_run(dataclasses.replace(memo.steps["images"], work=work), {})
    assert state_texts(config)["images"] == state


def test_a_missing_image_folder_is_reported(config, tmp_path):
    open_memo(config)
    images = dataclasses.replace(config.images, source="folder", uri=str(tmp_path / "nowhere"))
    state = state_texts(dataclasses.replace(config, images=images))["images"]
    assert state.startswith("would run and fail: images.uri must name a folder")
