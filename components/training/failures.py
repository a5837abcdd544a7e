"""Which errors of a fit's workers end the fit. Ray Train's controller loads this file, so it imports no torch."""

from collections.abc import Mapping

from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from components.errors import WorldError, retry_helps


class FirstErrorThatLasts(DefaultFailurePolicy):
    """Ray Train's policy, except that an error which would come again ends the fit at once.

    Ray Train counts every error as one that another attempt may mend: without this, a worker that lost its lease, or
    met a NaN, would be replaced and make the same updates again.
    """

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """RAISE when one of the workers' errors lasts; otherwise up to max_failures times RETRY."""
        if isinstance(training_failed_error, WorkerGroupError):
            errors = map(_own_error, training_failed_error.worker_failures.values())
            if any(_lasts(error) for error in errors):
                return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


def cause_of(failures: Mapping[int, BaseException]) -> BaseException:
    """Of the errors by rank, one that lasts where there is any: what the others report is often its consequence."""
    return min(map(_own_error, failures.values()), key=retry_helps)


def _own_error(failure: BaseException) -> BaseException:
    """The error that a worker raised, without the wrappers of Ray."""
    return getattr(failure, "cause", None) or getattr(failure, "_base_exc", None) or failure


def _lasts(error: BaseException) -> bool:
    """A store that does not answer may answer the next attempt, which comes seconds later."""
    return not retry_helps(error) and not isinstance(error, WorldError)
