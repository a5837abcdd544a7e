"""Whether workers fit on the nodes of a cluster. A worker lies on one node: a sum over nodes says nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.config import StepResources

DATA_CPUS = 1.0
"""CPUs that no step can reserve: trainers that hold all CPUs would leave none to the tasks that read their data."""
ROUNDING = 1e-9
"""Tolerance in sums of fractional CPUs."""


@dataclass(frozen=True)
class Node:
    """What one node of the cluster has in all."""

    cpus: float
    gpus: float


def read_nodes(nodes: Sequence[Mapping[str, object]]) -> list[Node]:
    """The living nodes among those that Ray lists."""
    found = []
    for node in nodes:
        resources = node["Resources"]
        assert isinstance(resources, Mapping)
        if node["Alive"]:
            found.append(Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0)))
    return found


def fits(nodes: Sequence[Node], reservations: Sequence[StepResources]) -> bool:
    """Whether the workers of all `reservations` fit on `nodes` side by side, and DATA_CPUS beside them on one node.

    Places the largest workers first, each on the first node with room. That is exact for equal workers; for different
    ones it may say no where a cleverer placement exists.
    """
    largest_first = sorted(reservations, key=lambda each: (each.gpus, each.cpus), reverse=True)
    ordered = sorted(nodes, key=lambda node: (node.gpus, node.cpus))  # workers without GPUs leave them to others
    return any(
        all(_place(room, each) for each in largest_first)
        for number in range(len(ordered))
        if (room := _room(ordered, number)) is not None
    )


def _room(nodes: Sequence[Node], data_node: int) -> list[list[float]] | None:
    """[CPUs, GPUs] free on each node, with DATA_CPUS taken from number `data_node`; None where it has not as many."""
    room = [[node.cpus, node.gpus] for node in nodes]
    room[data_node][0] -= DATA_CPUS
    return room if room[data_node][0] >= -ROUNDING else None


def _place(room: list[list[float]], resources: StepResources) -> bool:
    """Take the workers of `resources` from `room`; whether all have a place."""
    unplaced = resources.workers
    for free in room:
        need = (resources.cpus, resources.gpus)
        count = min(
            [unplaced, *(int((have + ROUNDING) // want) for have, want in zip(free, need, strict=True) if want)]
        )
        for index, want in enumerate(need):
            free[index] -= count * want
        unplaced -= count
    return unplaced == 0


def describe_shortage(what: str, resources: StepResources, nodes: Sequence[Node]) -> str:
    """What is missing, and what to do about it."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    needed = resources.workers * resources.cpus + DATA_CPUS, resources.workers * resources.gpus
    if needed[0] > cpus + ROUNDING or needed[1] > gpus + ROUNDING:
        return (
            f"{what} needs {needed[0]:g} CPUs ({DATA_CPUS:g} of them to read data) and {needed[1]:g} GPUs, the cluster "
            f"has {cpus:g} CPUs and {gpus:g} GPUs: add nodes, or lower resources.* in the config"
        )
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus) if resources.gpus else (node.cpus, node.gpus))
    return (
        f"{what} needs room for {resources.workers} worker(s) of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, "
        f"each on one node, and {DATA_CPUS:g} CPU to read data; the cluster has {len(nodes)} node(s), the largest with "
        f"{largest.cpus:g} CPUs and {largest.gpus:g} GPUs: lower resources.*.cpus or .workers in the config, or add "
        "larger nodes"
    )
