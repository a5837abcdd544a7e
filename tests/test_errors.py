"""The error tree: every class has an exit code, and it is known whether a retry helps."""

import re
import signal

import pytest

from components import errors
from components.errors import ExitCode, PipelineError, exit_code_of, retry_helps

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PipelineError)]


def make_error(kind):
    """An error of this class; ConfigError takes a source and faults."""
    return kind("x", ["y"]) if kind is errors.ConfigError else kind("x")


@pytest.mark.parametrize("kind", TREE)
def test_the_docstring_shows_every_class_with_its_exit_code(kind):
    (line,) = re.findall(rf"^.*\b{kind.__name__}\b.*$", errors.__doc__, re.MULTILINE)
    listed = re.search(rf"{kind.__name__} +(\d)", line)
    inherited = kind.__mro__[1].exit_code if kind is not PipelineError else None
    assert (int(listed.group(1)) if listed else inherited) == kind.exit_code


@pytest.mark.parametrize("kind", TREE)
def test_an_error_has_the_exit_code_of_its_class(kind):
    assert exit_code_of(make_error(kind)) == kind.exit_code


def test_other_errors_have_exit_codes_too():
    assert exit_code_of(RuntimeError()) == exit_code_of(ValueError()) == ExitCode.FAILED
    assert exit_code_of(ConnectionRefusedError()) == ExitCode.UNREACHABLE
    assert exit_code_of(KeyboardInterrupt()) == ExitCode.STOPPED == 130
    assert exit_code_of(errors.Terminated()) == ExitCode.TERMINATED == 128 + signal.SIGTERM


@pytest.mark.parametrize("error", [ValueError(), TypeError(), ImportError(), *map(make_error, TREE)])
def test_errors_that_the_same_input_would_repeat_are_not_retried(error):
    assert retry_helps(error) == isinstance(error, errors.CommitConflict | errors.TrackingAway)


@pytest.mark.parametrize("error", [FloatingPointError("NaN"), KeyboardInterrupt(), errors.Terminated()])
def test_neither_what_is_computed_again_nor_a_stop_is_retried(error):
    assert not retry_helps(error)


@pytest.mark.parametrize("error", [RuntimeError(), OSError(), MemoryError()])
def test_other_errors_are_retried(error):
    assert retry_helps(error)


def test_every_code_has_a_meaning_and_only_known_codes_are_used():
    assert all(code.meaning for code in ExitCode)
    assert {kind.exit_code for kind in TREE} <= set(ExitCode)
