"""Get or run, on a real MLflow database: finished artifacts are reused, others are made, interrupted steps continue."""

import dataclasses
import shutil
import threading
from pathlib import Path

import pytest

from components.artifacts import Facts
from components.errors import CommitConflict, LeaseHeld, LeaseLost, retry_helps
from components.store import commits, lease, objects
from components.store.lease import acquire_lease, read_sign_of_life
from components.tokenizer.facts import TokenizerFacts
from components.tracking.runs import ARTIFACT_TAG, FINGERPRINT_TAG, GATES_TAG, PARENT_TAG
from components.workspace import StepOutput
from tests.pipeline.conftest import FACTS, open_memo
from tests.store.committed_files import newest_manifest, stored_path

NO_FACTS = Facts()
GOOD = TokenizerFacts(reconstruction_error=0.05, psnr=20.0)
BAD = dataclasses.replace(GOOD, reconstruction_error=0.5)


def get_or_run(memo, name, work, **made_from):
    """Get or run step `name` with its work replaced by `work`, a function of the workspace."""
    step = dataclasses.replace(memo.steps[name], work=lambda inputs, workspace: work(workspace))
    return memo.get_or_run(step, made_from)


def save_one_file(space, facts=NO_FACTS):
    """Save one file; returns the output of a step that does so."""
    return StepOutput(digest=commits.save_artifact(space.uri, {"data": b"x"}, facts.record()), facts=facts)


@pytest.fixture
def step():
    """step(memo, name, **inputs): get or run a step that saves two files; `step.calls` lists the executed steps."""

    def get(memo, name="images", facts=NO_FACTS, **made_from):
        def work(space):
            get.calls.append(name)
            contents = {"data.bin": name.encode(), "more/data.bin": b"more"}
            digest = commits.save_artifact(space.uri, contents, facts.record())
            return StepOutput(digest=digest, facts=facts, pictures={"look": b"png"}, documents={"page.html": "text"})

        return get_or_run(memo, name, work, **made_from)

    get.calls = []
    return get


def with_setting(config, **changes):
    """The config with another setting of its images."""
    return dataclasses.replace(config, images=dataclasses.replace(config.images, **changes))


def test_a_second_call_does_no_work(config, memo, step, capsys):
    first = step(memo)
    second = step(open_memo(config))
    assert (first.made, second.made, step.calls) == (True, False, ["images"])
    assert second.artifact == first.artifact
    assert second.pictures == {"look": b"png"} and second.documents == {"page.html": b"text"}
    assert "images: done before" in capsys.readouterr().out


def test_a_changed_setting_makes_a_new_artifact_and_keeps_the_old_one(config, memo, step):
    first = step(memo)
    other = step(open_memo(with_setting(config, held_out=0.2)))
    back = step(open_memo(config))
    assert other.made and other.artifact.uri != first.artifact.uri
    assert not back.made and back.artifact == first.artifact


@pytest.mark.parametrize("damage", ["deleted", "cut", "no manifest", "all gone"])
def test_a_damaged_artifact_is_detected_and_made_again(config, memo, step, capsys, damage):
    folder = Path(step(memo).artifact.uri)
    victim = newest_manifest(folder) if damage == "no manifest" else stored_path(folder, "more/data.bin")
    if damage == "cut":
        victim.write_bytes(b"mo")
    elif damage == "all gone":
        objects.delete(str(folder))
    else:
        victim.unlink()
    again = step(open_memo(config))
    assert again.made and stored_path(folder, "more/data.bin").read_bytes() == b"more"
    assert "making it again" in capsys.readouterr().out
    assert not step(open_memo(config)).made


def test_a_failed_gate_is_stored_and_reported(config, memo, step, capsys):
    images = step(memo).artifact
    bad = step(memo, "tokenizer", BAD, images=images)
    assert bad.made and not bad.good and "its gates failed (just now)" in capsys.readouterr().out
    later = open_memo(config)
    again = step(later, "tokenizer", images=images)
    assert not again.made and not again.good
    assert "its gates failed (in an earlier run, with the same settings)" in capsys.readouterr().out
    assert later.tracker.gates(bad.artifact.run_id).startswith("failed: reconstruction_error")


def test_a_relaxed_gate_accepts_the_same_artifact(config, memo, step):
    images = step(memo).artifact
    step(memo, "tokenizer", BAD, images=images)
    lowered = dataclasses.replace(config, gates=dataclasses.replace(config.gates, reconstruction_error=1.0))
    again = step(open_memo(lowered), "tokenizer", images=images)
    assert again.good and not again.made and memo.tracker.gates(again.artifact.run_id) == "passed"


def test_after_an_error_the_next_call_continues_the_same_run(config, memo):
    def fail(space):
        space.journal.metrics(1, {"loss": 3.0})
        space.journal.metrics(2, {"loss": 2.0})
        raise RuntimeError("the power went out")

    def work(space):
        for update, loss in ((1, 9.0), (2, 2.0), (3, 1.0)):
            space.journal.metrics(update, {"loss": loss})
        return save_one_file(space)

    with pytest.raises(RuntimeError, match="power"):
        get_or_run(memo, "images", fail)
    run = memo.tracker.runs_of(memo.fingerprint(memo.steps["images"], {}))[0]
    assert run.info.status == "FAILED" and run.data.tags["vqvae2.error"] == "RuntimeError: the power went out"
    result = get_or_run(open_memo(config), "images", work)
    assert result.artifact.run_id == run.info.run_id
    history = [
        (metric.step, metric.value) for metric in memo.tracker.client.get_metric_history(run.info.run_id, "loss")
    ]
    assert sorted(history) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    finished = memo.tracker.client.get_run(run.info.run_id)
    assert finished.info.status == "FINISHED" and "vqvae2.error" not in finished.data.tags


def test_work_is_done_under_a_lease_that_is_released(memo, step):
    seen = []

    def work(space):
        space.lease.check()
        seen.append(read_sign_of_life(space.lease.folder))
        return save_one_file(space)

    get_or_run(memo, "images", work)
    fingerprint = memo.fingerprint(memo.steps["images"], {})
    assert seen[0] is not None and read_sign_of_life(memo.lease_folder(memo.steps["images"], fingerprint)) is None


def test_a_held_lease_stops_the_call_with_an_error(config, memo, step):
    impatient = open_memo(
        dataclasses.replace(config, orchestration=dataclasses.replace(config.orchestration, lease_wait=0.0))
    )
    fingerprint = memo.fingerprint(memo.steps["images"], {})
    held = acquire_lease(memo.lease_folder(memo.steps["images"], fingerprint), wait_seconds=0, report=print)
    with pytest.raises(LeaseHeld, match="shows signs of life"):
        step(impatient)
    held.release()
    assert step(impatient).made


def test_of_two_simultaneous_calls_one_works_and_the_other_waits(config, memo):
    calls, results = [], []
    at_work = threading.Event()

    def work(space):
        calls.append(space.name)
        at_work.set()
        threading.Event().wait(1.0)
        return save_one_file(space)

    first = threading.Thread(target=lambda: results.append(get_or_run(memo, "images", work)))
    first.start()
    at_work.wait()
    results.append(get_or_run(open_memo(config), "images", work))
    first.join()
    assert calls == ["images"] and sorted(result.made for result in results) == [False, True]


def test_a_writer_that_lost_its_lease_commits_nothing(memo, monkeypatch):
    def work(space):
        objects.create_bytes(
            objects.join(space.lease.folder, "000002.json"), b'{"beat": "taken", "holder": "x", "since": "y"}'
        )
        return save_one_file(space)

    with pytest.raises(Exception, match="taken over"):
        get_or_run(memo, "images", work)
    assert memo.find(memo.steps["images"], {}) == (None, [])


def test_runs_record_the_lineage_of_an_artifact(memo, step):
    images = step(memo, facts=FACTS["images"]).artifact
    tokenizer = step(memo, "tokenizer", GOOD, images=images).artifact
    codes = step(memo, "codes", FACTS["codes"], images=images, tokenizer=tokenizer).artifact
    line = [(depth, run.data.tags["vqvae2.step"]) for depth, run in memo.tracker.ancestry(codes.run_id)]
    assert line == [(0, "codes"), (1, "images"), (1, "tokenizer")]
    run = memo.tracker.client.get_run(codes.run_id)
    assert {each.dataset.name: each.dataset.digest for each in run.inputs.dataset_inputs} == {
        "images": images.digest[:36],
        "tokenizer": tokenizer.digest[:36],
    }
    tags = run.data.tags
    assert (
        tags[PARENT_TAG] == memo.pipeline_run()
        and tags[GATES_TAG] == "passed"
        and tags[FINGERPRINT_TAG] == codes.fingerprint
        and tags[ARTIFACT_TAG] == codes.to_json()
    )
    assert run.data.params["rows_per_shard"] == "4096" and run.data.metrics["usage_top"] == 1.0


def test_an_interrupted_pipeline_run_is_continued_and_a_finished_one_is_not(config, memo):
    parent = memo.pipeline_run()
    memo.close(False)
    second = open_memo(config)
    assert second.pipeline_run() == parent
    second.close(True)
    assert open_memo(config).pipeline_run() != parent


def test_checkpoints_are_deleted_when_the_step_is_done(memo):
    def work(space):
        objects.write_bytes(objects.join(space.uri, commits.WORK_FOLDER, "checkpoint"), b"large")
        return save_one_file(space)

    folder = get_or_run(memo, "images", work).artifact.uri
    kept = [commits.name_of(path) for path in objects.object_sizes(folder) if not path.startswith(".lease/")]
    assert sorted(kept) == ["data", "manifests/000001.json"]


def test_what_a_run_left_that_was_killed_after_its_last_record_is_removed_by_the_next(config, memo, step):
    folder = step(memo).artifact.uri
    checkpoint = objects.join(folder, commits.WORK_FOLDER, "000001-aaaaaaaa", "fit", "state.json")
    objects.write_bytes(checkpoint, b"large")
    assert not step(open_memo(config)).made and objects.object_sizes(objects.join(folder, commits.WORK_FOLDER)) == {}


def test_a_new_file_in_the_folder_requires_a_new_snapshot(config, tmp_path, step):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(b"one")
    folder = dataclasses.replace(
        config, images=dataclasses.replace(config.images, source="folder", uri=str(tmp_path / "pets"))
    )
    assert step(open_memo(folder)).made
    assert not step(open_memo(folder)).made
    (tmp_path / "pets" / "cat" / "2.png").write_bytes(b"two")
    assert step(open_memo(folder)).made


def test_a_failing_tracking_server_does_not_hide_the_original_error(memo, monkeypatch):
    def fail(space):
        monkeypatch.setattr(type(space.journal), "fail", lambda journal, reason: 1 / 0)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        get_or_run(memo, "images", fail)


def commit_as_a_successor(space) -> str:
    """What another run does that takes the lease over: it commits other content. Returns its digest."""
    newer = lease._create(space.lease.folder, space.lease.number + 1, ends_with_driver=False)
    digest = commits.save_artifact(space.uri, {"data": b"newer"}, {}, attempt=newer.attempt, base=space.base)
    newer.release()
    return digest


def test_a_step_that_stalled_before_its_commit_leaves_that_of_its_successor(memo):
    """It stalls between its last look at the lease and its manifest: only the manifest's number can stop it."""
    committed = []

    def work(space):
        committed.append(commit_as_a_successor(space))
        return StepOutput(
            digest=commits.save_artifact(space.uri, {"data": b"x"}, {}, attempt="000001-late", base=space.base),
            facts=NO_FACTS,
        )

    with pytest.raises(CommitConflict) as caught:
        get_or_run(memo, "images", work)
    folder = memo.artifact_folder(memo.steps["images"], memo.fingerprint(memo.steps["images"], {}))
    assert (
        commits.read_manifest(folder)["digest"] == committed[0] and stored_path(folder, "data").read_bytes() == b"newer"
    )
    assert retry_helps(caught.value) and get_or_run(memo, "images", save_one_file).made


def test_a_step_whose_lease_was_taken_over_writes_and_records_nothing(memo):
    def work(space):
        commit_as_a_successor(space)
        return StepOutput(digest=space.save({"data": b"x"}, NO_FACTS), facts=NO_FACTS)

    with pytest.raises(LeaseLost):
        get_or_run(memo, "images", work)
    fingerprint = memo.fingerprint(memo.steps["images"], {})
    assert memo.tracker.committed(fingerprint) is None
    assert [run.info.status for run in memo.tracker.runs_of(fingerprint)] == ["RUNNING"]  # its successor's


@pytest.mark.parametrize("both_exist", [False, True])
def test_a_moved_or_copied_project_uses_its_own_artifacts(config, memo, step, tmp_path, both_exist):
    made = step(memo).artifact
    memo.close(True)
    old, new = Path(config.artifact_root), tmp_path / "moved"
    shutil.copytree(old, new)
    if not both_exist:
        shutil.rmtree(old)
    moved = dataclasses.replace(config, artifact_root=str(new))
    found = step(open_memo(moved))
    assert not found.made and found.artifact == dataclasses.replace(made, uri=made.uri.replace(str(old), str(new)))
    for file in new.rglob("data.bin"):
        file.unlink()
    assert step(open_memo(moved)).made and old.exists() == both_exist


def test_an_artifact_root_without_the_artifact_leaves_it_where_it_was_made(config, memo, step, tmp_path):
    made = step(memo).artifact
    elsewhere = dataclasses.replace(config, artifact_root=str(tmp_path / "elsewhere"))
    assert step(open_memo(elsewhere)).artifact == made


def test_a_driver_whose_step_was_taken_over_leaves_its_mlflow_run_alone(memo):
    def work(space):
        space.journal.metrics(1, {"loss": 1.0})
        taken = objects.join(space.lease.folder, "000002.json")
        objects.create_bytes(taken, b'{"beat": "taken", "holder": "x", "since": "y"}')
        raise RuntimeError("an error on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        get_or_run(memo, "images", work)
    (run,) = memo.tracker.runs_of(memo.fingerprint(memo.steps["images"], {}))
    assert run.info.status == "RUNNING" and "vqvae2.error" not in run.data.tags
