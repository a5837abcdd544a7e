"""Whether workers fit on nodes, beside an exhaustive search over all placements."""

import itertools

import pytest

from components.cluster.capacity import DATA_CPUS, Node, describe_shortage, fits, read_nodes
from components.config import StepResources


def fits_somehow(nodes: list[Node], resources: StepResources) -> bool:
    """Slow and obvious: every way to distribute the workers, and the CPU that reads, over the nodes."""
    numbers = range(len(nodes))
    for data_node, *workers in itertools.product(numbers, repeat=1 + resources.workers):
        cpus = [workers.count(number) * resources.cpus + (number == data_node) * DATA_CPUS for number in numbers]
        gpus = [workers.count(number) * resources.gpus for number in numbers]
        if all(cpus[n] <= nodes[n].cpus + 1e-6 and gpus[n] <= nodes[n].gpus + 1e-6 for n in numbers):
            return True
    return False


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_equal_workers_fit_exactly_where_some_placement_exists(workers):
    some_sizes = itertools.product((0.0, 1.0, 1.75, 3.0, 4.0), repeat=3)
    for sizes, cpus, gpus in itertools.product(some_sizes, (0.75, 1.0, 2.0), (0.0, 0.5)):
        nodes = [Node(size, float(number == 2)) for number, size in enumerate(sizes)]
        resources = StepResources(workers=workers, cpus=cpus, gpus=gpus)
        assert fits(nodes, [resources]) == fits_somehow(nodes, resources), (sizes, resources)


def test_three_cpus_per_worker_do_not_fit_on_nodes_of_two_and_the_message_says_which_node_is_too_small():
    nodes, resources = [Node(2.0, 0.0)] * 4, StepResources(workers=2, cpus=3)
    assert not fits(nodes, [resources])  # their sum would be enough: 8 CPUs, of which 7 are needed
    message = describe_shortage("codes", resources, nodes)
    assert "the largest with 2 CPUs and 0 GPUs" in message and "lower resources.*.cpus" in message


def test_what_runs_already_is_placed_first_and_workers_without_gpus_leave_those_to_others():
    nodes, fit = [Node(4.0, 1.0), Node(4.0, 0.0)], StepResources(workers=1, cpus=3)
    on_gpu = StepResources(workers=1, cpus=4, gpus=1)
    assert fits(nodes, [fit, on_gpu]) and fits(nodes, [on_gpu, fit])
    assert not fits(nodes, [fit, on_gpu, StepResources(workers=1)])


def test_dead_nodes_do_not_count():
    listed = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    assert read_nodes(listed) == [Node(2.0, 0.0)]
