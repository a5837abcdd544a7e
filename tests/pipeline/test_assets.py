"""The DAG as the orchestrator runs it: the order of the paper, retries, gates as checks, and stored figures."""

import dataclasses

import dagster as dg
import pytest

from components.errors import TooFewResources
from pipeline.assets import assets_of
from pipeline.definitions import JOB, instance_folder, materialise
from pipeline.session import Session

ORDER = ["images", "tokenizer", "codes", "prior_top", "prior_bottom", "generator", "evaluation", "promotion"]


class FailingSession(Session):
    """A session whose tokenizer step fails `times` times before its finished artifact is found."""

    def __init__(self, config, times, error):
        super().__init__(config)
        self.times, self.error, self.calls = times, error, []

    def run_step(self, step):
        self.calls.append(step.name)
        if step.name == "tokenizer" and self.calls.count(step.name) <= self.times:
            raise self.error
        return super().run_step(step)


@pytest.fixture
def retry_config(finished, tmp_path, monkeypatch):
    """The config of a finished DAG with two quick retries; each test has an orchestrator instance of its own."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    _, config, _ = finished
    quick = dataclasses.replace(config.orchestration, retries=2, retry_delay=0.01)
    return dataclasses.replace(config, orchestration=quick)


def test_assets_are_in_the_order_of_the_paper(finished):
    _, config, session = finished
    keys = [key.path[0] for asset in assets_of(config, session) for key in asset.keys_by_output_name.values()]
    assert [key for key in keys if key in ORDER] == ORDER


def test_every_gate_is_a_blocking_check(finished):
    _, config, session = finished
    checks = {spec.name: spec for asset in assets_of(config, session) for spec in asset.check_specs}
    assert {"reconstruction_error", "usage_top", "usage_bottom", "nats_per_code", "judge_accuracy"} <= set(checks)
    assert all(spec.blocking for spec in checks.values())


def test_a_failed_step_is_retried_and_the_run_succeeds(retry_config):
    session = FailingSession(retry_config, times=2, error=RuntimeError("a passing fault"))
    assert materialise(retry_config, session)
    assert session.calls.count("tokenizer") == 3 and session.failure is None


def test_a_step_that_keeps_failing_ends_the_run_with_its_error(retry_config):
    session = FailingSession(retry_config, times=9, error=RuntimeError("a lasting fault"))
    assert not materialise(retry_config, session)
    assert session.calls.count("tokenizer") == 3 and "codes" not in session.calls
    assert str(session.failure) == "a lasting fault"


def test_an_error_that_retries_cannot_fix_is_not_retried(retry_config):
    session = FailingSession(retry_config, times=9, error=TooFewResources("too small"))
    assert not materialise(retry_config, session)
    assert session.calls.count("tokenizer") == 1 and isinstance(session.failure, TooFewResources)


def test_an_interrupted_step_is_not_retried(retry_config):
    session = FailingSession(retry_config, times=9, error=KeyboardInterrupt())
    assert not materialise(retry_config, session)
    assert session.calls.count("tokenizer") == 1 and isinstance(session.failure, KeyboardInterrupt)


def test_retry_delays_grow_exponentially(retry_config):
    policies = {
        asset.op.retry_policy for asset in assets_of(retry_config, Session(retry_config)) if asset.op.retry_policy
    }
    assert {(policy.max_retries, policy.delay, policy.backoff) for policy in policies} == {
        (2, 0.01, dg.Backoff.EXPONENTIAL)
    }


def test_a_failed_gate_blocks_later_steps_and_promotion(retry_config):
    strict = dataclasses.replace(retry_config, gates=dataclasses.replace(retry_config.gates, reconstruction_error=0.01))
    session = FailingSession(strict, times=0, error=RuntimeError())
    assert not materialise(strict, session)
    # The classifiers are fitted beside the tokenizer; nothing is built on it.
    assert sorted(session.calls) == ["classifier", "images", "judge", "tokenizer"] and session.failure is None
    assert session.promote() == {}
    lenient = Session(retry_config)
    assert lenient.run_step(lenient.steps["tokenizer"]).good  # the shared pipeline's verdict is recorded as before


class UnjudgedSession(Session):
    """A session whose evaluation has no figure to judge, as for images without classes."""

    def run_step(self, step):
        result = super().run_step(step)
        return dataclasses.replace(result, verdicts=()) if step.name == "evaluation" else result


def test_a_gate_without_a_figure_to_judge_does_not_stop_the_run(retry_config):
    assert materialise(retry_config, UnjudgedSession(retry_config))


def test_the_instance_stores_figures_and_links(retry_config):
    session = Session(retry_config)
    assert materialise(retry_config, session)
    with dg.DagsterInstance.from_config(str(instance_folder(retry_config))) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("prior_top"))
        metadata = event.asset_materialization.metadata
        (run,) = instance.get_runs()
    assert metadata["nats_per_code"].value == 1.0 and metadata["MLflow run"].url.startswith("http://127.0.0.1:5000/#/")
    assert run.status == dg.DagsterRunStatus.SUCCESS and run.job_name == JOB
