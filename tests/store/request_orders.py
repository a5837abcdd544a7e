"""All orders in which the requests of several writers can reach a store, for tests of what they write.

A writer is a function that calls `components.store.objects`. It runs from its start again and again: its first requests
get the answers that they got before, the next one reaches the store, and there it is left. So a writer may stall before
any request, for ever or until all others have ended. A request that changes the store may also be *late*: the writer
gets an error at once, and the request takes effect at any later time, or never.
"""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from components.errors import StorageError
from components.store import commits, lease, objects

CHANGES = ("write_bytes", "create_bytes", "delete")
NO_ANSWER, MISSING = "no answer", "missing"
"""Answers that are raised as errors in the writer."""


class Request(NamedTuple):
    """One call of `objects`."""

    function: str
    uri: str
    data: bytes = b""


class State(NamedTuple):
    """The store and its writers at one time."""

    files: tuple[tuple[str, bytes], ...]
    """Content of every object, by URI."""
    answers: tuple[tuple[Any, ...], ...]
    """What each writer was answered so far: it determines what the writer does next."""
    ended: tuple[bool, ...]
    late: tuple[Request, ...] = ()
    """Requests on their way."""

    def content(self) -> dict[str, bytes]:
        """Content of every object, by URI."""
        return dict(self.files)

    def after(self, request: Request, **changes: Any) -> "State":
        """The state in which `request` took effect."""
        files = self.content()
        _carry_out(request, files)
        return self._replace(files=tuple(sorted(files.items())), **changes)


class Left(BaseException):
    """Raised in a writer at the request that it must not make yet."""


class Explorer:
    """Explores every state that `writers` can bring a store into."""

    def __init__(self, writers: Sequence[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch, late: int) -> None:
        """`late`: largest number of late requests in one history."""
        self._writers, self._late, self._ask = writers, late, _refuse
        self._requests: dict[tuple[Any, ...], Request | None] = {}  # what was found out about writers
        for function in ("read_bytes", *CHANGES, "object_sizes", "list_objects"):
            monkeypatch.setattr(objects, function, self._function(function))
        monkeypatch.setattr(objects, "is_local", lambda uri: True)
        monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(self._numbers) << 96))
        monkeypatch.setattr(time, "strftime", lambda form: "now")

    def states(self, files: Mapping[str, bytes]) -> Iterator[State]:
        """Every reachable state, each once, beginning with `files`."""
        start = State(tuple(sorted(files.items())), ((),) * len(self._writers), (False,) * len(self._writers))
        seen, waiting = {start}, [start]
        while waiting:
            state = waiting.pop()
            yield state
            new = set(self._following(state)) - seen
            seen |= new
            waiting += new

    def _following(self, state: State) -> Iterator[State]:
        for writer, ended in enumerate(state.ended):
            if not ended:
                yield from self._steps(state, writer)
        for number, request in enumerate(state.late):
            yield state.after(request, late=state.late[:number] + state.late[number + 1 :])

    def _steps(self, state: State, writer: int) -> Iterator[State]:
        """The states after the next request of one writer."""
        history = (writer, state.answers[writer])
        if history not in self._requests:
            self._requests[history] = self._next_request(*history)
        request = self._requests[history]
        if request is None:
            yield state._replace(ended=_with(state.ended, writer, True))
            return
        answered = (*state.answers[writer], _carry_out(request, state.content()))
        yield state.after(request, answers=_with(state.answers, writer, answered))
        lost_before = sum(answer == NO_ANSWER for answer in itertools.chain(*state.answers))
        if request.function in CHANGES and lost_before < self._late:
            lost = (*state.answers[writer], NO_ANSWER)
            yield state._replace(answers=_with(state.answers, writer, lost), late=(*state.late, request))

    def _next_request(self, writer: int, answers: Sequence[Any]) -> Request | None:
        """What the writer asks after `answers`; None when it has ended."""
        given, asked = iter(answers), []

        def ask(request: Request) -> Any:
            if not asked and (answer := next(given, self)) is not self:
                return answer
            asked.append(request)
            raise Left

        self._ask, self._numbers = ask, itertools.count(1000 * (writer + 1))
        lease._lost.clear()
        try:
            self._writers[writer]()
        except (Left, Exception):  # a writer's own error ends it
            pass
        finally:
            self._ask = _refuse
        return asked[0] if asked else None

    def _function(self, name: str) -> Callable[..., Any]:
        def call(uri: str, data: bytes = b"") -> Any:
            answer = self._ask(Request(name, uri, data))
            if answer == NO_ANSWER:
                raise StorageError("no answer in time")
            if answer == MISSING:
                raise FileNotFoundError(uri)
            return dict(answer) if name == "object_sizes" else answer

        return call


def _refuse(request: Request) -> Any:
    raise AssertionError(f"{request} outside a writer")


def _with(values: tuple[Any, ...], number: int, value: Any) -> tuple[Any, ...]:
    return (*values[:number], value, *values[number + 1 :])


def _carry_out(request: Request, files: dict[str, bytes]) -> Any:
    """Change `files` as `request` asks; returns its answer."""
    function, uri, data = request
    inside = {path.removeprefix(f"{uri}/"): path for path in sorted(files) if path.startswith(f"{uri}/")}
    if function == "read_bytes":
        return files.get(uri, MISSING)
    if function == "object_sizes":
        return tuple((name, len(files[path])) for name, path in inside.items())
    if function == "list_objects":
        return tuple(
            objects.StoredObject(name, path, len(files[path]), "", _age(name)) for name, path in inside.items()
        )
    if function == "delete":
        for path in (uri, *inside.values()):
            files.pop(path, None)
        return None
    created = uri not in files
    if created or function == "write_bytes":
        files[uri] = data
    return created


def _age(name: str) -> float:
    """When an object was written: the worst case for a sweep, in which all files are older than any manifest."""
    folder, _, number = name.partition("/")
    return float(number[:6]) if folder == commits.MANIFESTS_FOLDER else 0.0
