"""CUDA graphs for work that is repeated thousands of times on the same tensors: captured once, then replayed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

GraphWork = Callable[[], None]


def replay_graphs(works: Sequence[GraphWork], device: torch.device, reset: GraphWork) -> list[GraphWork]:
    """Each of `works` itself; on a GPU the replay of its graph: one launch instead of one per operation.

    Works must read and write tensors whose memory never moves, and take their indices from the device. On a GPU each
    runs here once before it is captured, because libraries initialise themselves at a first run; `reset`, called before
    each, restores the indices.
    """
    if device.type == "cpu":
        return list(works)
    pool = torch.cuda.graph_pool_handle()  # shared: graphs run one after another and keep nothing in it
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
