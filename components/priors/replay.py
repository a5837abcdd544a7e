"""Work on fixed tensors that is done thousands of times: on a GPU captured once as CUDA graphs and replayed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

GraphWork = Callable[[], None]


def replay_graphs(works: Sequence[GraphWork], device: torch.device, reset: GraphWork) -> list[GraphWork]:
    """Each of `works` itself; on a GPU the replay of its graph: one launch instead of one for each operation.

    Works must read and write tensors that stay where they are and take their indices from the device. Each is run here
    once, because libraries set themselves up at a first run: `reset`, called before each, brings their indices back.
    """
    if device.type == "cpu":
        return list(works)
    pool = torch.cuda.graph_pool_handle()  # one for all: they run one after the other and leave nothing in it
    return [_capture(work, reset, pool) for work in works]


def _capture(work: GraphWork, reset: GraphWork, pool: Any) -> GraphWork:
    """The replay of `work`, recorded on the current GPU."""
    reset()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay
