"""Independent pieces of work, side by side on the cluster or one after another in this process."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import ray

from components.config import StepResources
from components.errors import StillWriting
from components.stopping import check_stop
from components.workspace import ComputeCluster

TASK_RETRIES = 3
"""How often a task is started again after its worker or node died."""
TASK_POLL_SECONDS = 0.5
"""Seconds between two looks whether to stop, while tasks run."""
CANCEL_SECONDS = 10.0
"""Seconds in which the workers of abandoned tasks must have ended."""

Result = TypeVar("Result")


def run_tasks(
    work: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    what: str,
    resources: StepResources,
    cluster: ComputeCluster | None,
) -> Generator[tuple[int, Result]]:
    """Number and result of `work(*arguments[number])` for each number, as the tasks finish.

    On a cluster at most `resources.workers` tasks run at a time; without one, this process works through them in order.
    `what` names the work where resources are missing. Raises TooFewResources when the cluster is smaller than
    `resources`, and the error of the first task that fails. Tasks end when the caller leaves before the last result.
    """
    if not arguments:
        return
    if cluster is None:
        yield from ((number, work(*each)) for number, each in enumerate(arguments))
        return
    with cluster.reserve(what, resources):
        yield from _run_on_ray(work, arguments, resources)


def _run_on_ray(
    work: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], resources: StepResources
) -> Generator[tuple[int, Result]]:
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=TASK_RETRIES)(work)
    waiting = list(enumerate(arguments))[::-1]  # the next one last: pop takes from the end
    running: dict[ray.ObjectRef, int] = {}
    try:
        # Invariant: a task is in `waiting`, in `running`, or its result was yielded.
        while waiting or running:
            while waiting and len(running) < resources.workers:
                number, each = waiting.pop()
                running[task.remote(*each)] = number
            check_stop()
            finished, _ = ray.wait(list(running), num_returns=1, timeout=TASK_POLL_SECONDS)
            for reference in finished:
                yield running.pop(reference), ray.get(reference)
    finally:
        _cancel(list(running))


def _cancel(tasks: list[ray.ObjectRef]) -> None:
    """End tasks that nobody waits for any more, with their workers; raises StillWriting when they go on."""
    for task in tasks:
        ray.cancel(task, force=True)
    _, going_on = ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS) if tasks else ([], [])
    if going_on:
        raise StillWriting(
            f"cancelled tasks must end within {CANCEL_SECONDS:g} s, and {len(going_on)} did not: the lease stays "
            "theirs until they do; run again then"
        )
