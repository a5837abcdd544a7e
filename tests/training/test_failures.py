"""Which errors of a fit's workers Ray Train answers with new workers."""

import pytest
import ray.train
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2._internal.execution.failure_handling import FailureDecision

from components.errors import LeaseLost, StorageError
from components.training.failures import FirstErrorThatLasts, cause_of

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (LeaseLost("taken over"), FailureDecision.RAISE),
        (ValueError("wrong input"), FailureDecision.RAISE),
        (FloatingPointError("NaN"), FailureDecision.RAISE),
        (RuntimeError("a device fell off the bus"), FailureDecision.RETRY),
        (StorageError("away for a moment"), FailureDecision.RETRY),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_that_lasts_ends_the_fit_and_others_are_tried_again(error, decision, wrapped):
    policy = FirstErrorThatLasts(ray.train.FailureConfig(max_failures=2))
    raised = UserExceptionWithTraceback(error, "Traceback ...") if wrapped else error
    failures = {0: RuntimeError("connection closed by peer"), 1: raised}  # one rank's error makes others fail
    assert policy.make_decision(WorkerGroupError("failed", failures)) == decision
    assert cause_of(failures) is (
        error if decision is FailureDecision.RAISE or isinstance(error, StorageError) else failures[0]
    )


def test_other_errors_are_tried_again_only_as_often_as_set():
    policy = FirstErrorThatLasts(ray.train.FailureConfig(max_failures=1))
    error = WorkerGroupError("failed", {0: RuntimeError("killed")})
    assert [policy.make_decision(error) for _ in range(2)] == [FailureDecision.RETRY, FailureDecision.RAISE]
