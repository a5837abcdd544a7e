"""Independent pieces of work, side by side on the cluster or one after another in this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from components.config import StepResources
from components.workspace import ComputeCluster

TASK_RETRIES = 3
"""How often a task is started again after its worker or node died."""

Result = TypeVar("Result")


def run_tasks(
    work: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    what: str,
    resources: StepResources,
    cluster: ComputeCluster | None,
) -> Iterator[tuple[int, Result]]:
    """Number and result of `work(*arguments[number])` for each number, as the tasks finish.

    On a cluster at most `resources.workers` tasks run at a time; without one, this process works through them in order.
    `what` names the work where resources are missing. Raises TooFewResources when the cluster is smaller than
    `resources`, and the error of the first task that fails.
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
) -> Iterator[tuple[int, Result]]:
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=TASK_RETRIES)(work)
    waiting = list(enumerate(arguments))[::-1]  # the next one last: pop takes from the end
    running: dict[ray.ObjectRef, int] = {}
    try:
        # Invariant: a task is in `waiting`, in `running`, or its result was yielded.
        while waiting or running:
            while waiting and len(running) < resources.workers:
                number, each = waiting.pop()
                running[task.remote(*each)] = number
            finished, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(finished[0]), ray.get(finished[0])
    finally:
        for reference in running:  # of tasks that nobody waits for any more
            ray.cancel(reference)
