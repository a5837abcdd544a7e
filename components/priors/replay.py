"""Work on fixed tensors that is done thousands of times: on a GPU captured once as a CUDA graph and replayed."""

from collections.abc import Callable

import torch

Work = Callable[[], None]


def replayable(work: Work, device: torch.device) -> Work:
    """`work` itself; on a GPU a replay of its graph, which costs one launch instead of one for each operation.

    `work` must read and write tensors that stay where they are, take its indices from the device and leave no
    memory to others. It is run here once, because libraries set themselves up at a first run: reset state after it.
    """
    return work if device.type == "cpu" else capture(work)


def capture(work: Work) -> Work:
    """The replay of `work`, recorded on the current GPU."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
