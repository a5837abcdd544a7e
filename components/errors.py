"""Every error that the pipeline raises on purpose, its exit code, and whether a retry can help.

    PipelineError                 1
    ├── UserError                 2   the config, the command line or the data must change
    │   ├── ConfigError               settings that are invalid or contradict each other
    │   ├── UsageError                a command line that names something that does not exist
    │   ├── MissingArtifact           a step needs an artifact that was never made
    │   ├── UnknownModel              the registry has no such run or model
    │   ├── DeletedRecord             an experiment or a run was deleted in MLflow
    │   └── TooManyRejects        1   more images than images.max_rejects allows cannot be used
    ├── GateFailed                3   an artifact exists and is not good enough
    ├── WorldError                4   something outside this program does not answer, or is too small
    │   ├── StorageError              the artifact store
    │   ├── TrackingError             MLflow (not tried again: orchestration.tracking_wait was waited before)
    │   ├── TrackingAway              MLflow, when a run begins (tried again: nothing was waited before)
    │   ├── ClusterUnreachable        no Ray cluster answers
    │   └── TooFewResources           the Ray cluster is smaller than a step needs
    └── LeaseError                5
        ├── LeaseHeld                 another run works on the same step
        ├── CommitConflict            another run committed the same artifact first (tried again: its work is reused)
        ├── LeaseLost             1   another run took over: this one must not write any more
        └── StillWriting          1   a step was left and its workers did not end: its lease must not be released

KeyboardInterrupt (Ctrl-C) ends the process with 130, Terminated (SIGTERM) with 143; neither is ever tried again.
A ValueError from a component fails the step with exit code 1 and is not retried.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process ends with, for scripts."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """An exit code with its meaning as an attribute."""
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    DONE = 0, "done"
    FAILED = 1, "a step failed"
    USAGE = 2, "the config or the command line is wrong"
    GATE = 3, "a quality gate failed: the artifact is kept for inspection, nothing is built on it"
    UNREACHABLE = 4, "a server, a bucket or the cluster does not answer, or is too small"
    HELD = 5, "another run holds the lease on a step"
    STOPPED = 130, "stopped by Ctrl-C: the same command continues from the last checkpoint"
    TERMINATED = 143, "stopped by SIGTERM: the same command continues from the last checkpoint"


class PipelineError(Exception):
    """Base of all errors below."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retry_helps: ClassVar[bool] = False
    """Whether the same step may succeed when it is tried again."""


# --- errors that the user can correct ---------------------------------------------------------------------------------


class UserError(PipelineError):
    """The config, the command line or the data must change."""

    exit_code = ExitCode.USAGE


class ConfigError(UserError):
    """Settings are invalid or contradict each other; the message lists every fault."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"{source} has {len(faults)} fault{'s' if len(faults) != 1 else ''}:\n{lines}")
        self.faults = list(faults)


class UsageError(UserError):
    """The command line names something that does not exist; the message lists what does."""


class MissingArtifact(UserError):
    """A step needs an artifact that was never made."""


class UnknownModel(UserError):
    """The registry answers, and has no such run or model."""


class DeletedRecord(UserError):
    """Somebody deleted an experiment or a run in MLflow that is needed; the message says how to restore it."""


class TooManyRejects(UserError, ValueError):
    """More images than images.max_rejects allows cannot be used."""

    exit_code = ExitCode.FAILED


# --- quality ----------------------------------------------------------------------------------------------------------


class GateFailed(PipelineError):
    """An artifact is kept for inspection; nothing is built on it."""

    exit_code = ExitCode.GATE


# --- errors outside the program ---------------------------------------------------------------------------------------


class WorldError(PipelineError):
    """Something outside this program does not answer, or is too small."""

    exit_code = ExitCode.UNREACHABLE


class StorageError(WorldError):
    """The artifact store cannot be reached, read or written; the message says which URI and what to check."""


class TrackingError(WorldError):
    """The tracking server or the registry cannot do what was asked; the message says which and what to check."""


class TrackingAway(TrackingError):
    """The tracking server does not answer when one connects to it, for which nobody waits."""

    retry_helps = True


class ClusterUnreachable(WorldError):
    """No Ray cluster answers where one should; the message says where, and what to do."""


class TooFewResources(WorldError):
    """The Ray cluster is smaller than a step needs; the message says by how much and what to do."""


# --- two runs at once -------------------------------------------------------------------------------------------------


class LeaseError(PipelineError):
    """Two runs want to write the same artifact."""

    exit_code = ExitCode.HELD


class LeaseHeld(LeaseError):
    """Another run holds the lease; the message says who, where and since when."""


class CommitConflict(LeaseError):
    """Another run committed other content to the same artifact meanwhile; nothing of it was overwritten."""

    retry_helps = True


class LeaseLost(LeaseError):
    """Another run took the lease over: this one must not write any more."""

    exit_code = ExitCode.FAILED


class StillWriting(LeaseError):
    """A step was left, and its workers did not end in time: its lease goes stale by itself when they have ended."""

    exit_code = ExitCode.FAILED


# --- stopped from outside ---------------------------------------------------------------------------------------------


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the process to stop, as Ctrl-C does."""


# --- questions about any error ----------------------------------------------------------------------------------------

_PERMANENT = (ValueError, TypeError, ImportError, FloatingPointError)
"""Built-in errors that the same input raises again."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a process that `error` ends."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.TERMINATED if isinstance(error, Terminated) else ExitCode.STOPPED
    if isinstance(error, PipelineError):
        return error.exit_code
    return ExitCode.UNREACHABLE if isinstance(error, ConnectionError) else ExitCode.FAILED


def retry_helps(error: BaseException) -> bool:
    """Whether a step that raised `error` may succeed when it is tried again."""
    if isinstance(error, PipelineError):
        return error.retry_helps
    return isinstance(error, Exception) and not isinstance(error, _PERMANENT)
