"""Reading ahead: work on items in other threads, a bounded number of them before their results are needed."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Generator[Result]:
    """`work(item)` of each item, in their order; `ahead` more are at work or done, which bounds what is in memory.

    `ThreadPoolExecutor.map` would begin all of them at once and keep their results.
    """
    with ThreadPoolExecutor(ahead, "read-ahead") as threads:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(threads.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
