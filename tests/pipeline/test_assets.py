"""The DAG as the orchestrator runs it: the paper's order, retries, gates as checks, pictures."""

import dataclasses

import dagster as dg
import pytest

from components.errors import TooFewResources
from pipeline.assets import assets_of
from pipeline.definitions import JOB, definitions_of, instance_folder, materialise
from pipeline.session import Session

ORDER = ["images", "tokenizer", "codes", "prior_top", "prior_bottom", "generator", "evaluation", "promotion"]


class Failing(Session):
    """A session whose tokenizer fails `times` times before it is found done."""

    def __init__(self, config, times, error):
        super().__init__(config)
        self.times, self.error, self.asked = times, error, []

    def run_step(self, step):
        self.asked.append(step.name)
        if step.name == "tokenizer" and self.asked.count(step.name) <= self.times:
            raise self.error
        return super().run_step(step)


@pytest.fixture
def patient(finished, tmp_path, monkeypatch):
    """The config of a finished DAG with two quick retries; the orchestrator's instance is this test's own."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    _, config, _ = finished
    quick = dataclasses.replace(config.orchestration, retries=2, retry_delay=0.01)
    return dataclasses.replace(config, orchestration=quick)


def test_assets_come_in_the_papers_order(finished):
    _, config, session = finished
    keys = [key.path[0] for one in assets_of(config, session) for key in one.keys_by_output_name.values()]
    assert [key for key in keys if key in ORDER] == ORDER


def test_every_gate_is_a_blocking_check(finished):
    _, config, session = finished
    checks = {spec.name: spec for one in assets_of(config, session) for spec in one.check_specs}
    assert {"reconstruction_error", "usage_top", "usage_bottom", "nats_per_code", "judge_accuracy"} <= set(checks)
    assert all(spec.blocking for spec in checks.values())


def test_a_step_that_fails_is_tried_again_and_the_run_ends_well(patient):
    session = Failing(patient, times=2, error=RuntimeError("a passing fault"))
    assert materialise(patient, session)
    assert session.asked.count("tokenizer") == 3 and session.failure is None


def test_a_step_that_keeps_failing_ends_the_run_with_its_error(patient):
    session = Failing(patient, times=9, error=RuntimeError("a lasting fault"))
    assert not materialise(patient, session)
    assert session.asked.count("tokenizer") == 3 and "codes" not in session.asked
    assert str(session.failure) == "a lasting fault"


def test_what_trying_again_cannot_mend_is_tried_once(patient):
    session = Failing(patient, times=9, error=TooFewResources("too small"))
    assert not materialise(patient, session)
    assert session.asked.count("tokenizer") == 1 and isinstance(session.failure, TooFewResources)


def test_retries_wait_twice_as_long_each_time(patient):
    policies = {one.op.retry_policy for one in assets_of(patient, Session(patient)) if one.op.retry_policy}
    assert {(policy.max_retries, policy.delay, policy.backoff) for policy in policies} == {
        (2, 0.01, dg.Backoff.EXPONENTIAL)
    }


def test_a_failed_gate_blocks_what_follows_and_nothing_is_promoted(patient):
    strict = dataclasses.replace(patient, gates=dataclasses.replace(patient.gates, reconstruction_error=0.01))
    session = Failing(strict, times=0, error=RuntimeError())
    assert not materialise(strict, session)
    assert session.asked == ["images", "tokenizer"] and session.failure is None
    assert session.promote() == {}


def test_the_instance_keeps_figures_checks_and_links(patient):
    session = Session(patient)
    assert materialise(patient, session)
    with dg.DagsterInstance.from_config(str(instance_folder(patient))) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("prior_top"))
        metadata = event.asset_materialization.metadata
        (run,) = instance.get_runs()
    assert metadata["nats_per_code"].value == 1.0 and metadata["MLflow run"].url.startswith("http://127.0.0.1:5000/#/")
    assert run.status == dg.DagsterRunStatus.SUCCESS and run.job_name == JOB


def test_one_config_gives_one_schedule_and_one_job(patient):
    nightly = dataclasses.replace(patient.orchestration, schedule="0 3 * * *")
    definitions = definitions_of(dataclasses.replace(patient, orchestration=nightly))
    schedule = definitions.resolve_schedule_def("scheduled")
    assert schedule.cron_schedule == "0 3 * * *" and schedule.job_name == JOB
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert not list(definitions_of(patient).schedules or [])
