"""Decoding training batches in Ray Data tasks, for feed.py."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import ray
import ray.data

from components.cluster.step import silence_ray_data

TASKS_PER_PLAN = 2048
"""Tasks planned at a time: bounds the memory of the process that plans them in a long fit."""
FEED_TASK_CPUS = 0.5
"""Logical CPUs per decoding task, so that the readers of two fits fit into the CPU that is reserved for them."""
PREFETCHED_BATCHES = 4


def on_cluster() -> bool:
    """Whether this process is part of a Ray cluster."""
    return ray.is_initialized()


def decode_on_cluster(
    decode: Callable[[range], dict[str, np.ndarray]],
    tasks: Sequence[range],
    *,
    images_per_batch: int,
    readers: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of `images_per_batch` images in the order of the updates, from at most `readers` tasks at a time.

    `tasks` has the updates of each task, and `decode(updates)` gives the task's arrays.
    """
    silence_ray_data()

    def decode_task(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return decode(range(int(batch["first"][0]), int(batch["stop"][0])))

    for start in range(0, len(tasks), TASKS_PER_PLAN):
        planned = [{"first": updates.start, "stop": updates.stop} for updates in tasks[start : start + TASKS_PER_PLAN]]
        dataset = ray.data.from_items(planned, override_num_blocks=len(planned))
        decoded = dataset.map_batches(decode_task, batch_size=None, num_cpus=FEED_TASK_CPUS, concurrency=readers)
        yield from decoded.iter_batches(batch_size=images_per_batch, prefetch_batches=PREFETCHED_BATCHES)
