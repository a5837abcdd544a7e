"""Peak memory of a training step, of encoding and of sampling, beside what must be held at least.

    python -m benchmarks.memory

Each runs in a process of its own; the peak is that of its resident memory less what it was before the model was built.
Held at least: parameters and buffers, and for a step gradients, Adam's two moments and the activations that autograd
keeps; for the sampler all that it allocates.
"""

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.queues import Queue

import torch
from torch import Tensor, nn

from benchmarks import fits
from benchmarks.timing import Figure, keep
from components.priors.sampler import Sampler
from components.tokenizer.model import to_images

MIB = 2**20
SAMPLED = 16


def main() -> None:
    """Measure, print, keep."""
    context, figures = multiprocessing.get_context("spawn"), []
    for name, case in CASES.items():
        answers: Queue[tuple[float, float]] = context.Queue()
        process = context.Process(target=_answer, args=(case.__name__, answers))
        process.start()
        peak, held = answers.get()
        process.join()
        figures.append(Figure(name=f"{name}: peak", value=peak / MIB, unit="MiB"))
        figures.append(Figure(name=f"{name}: held at least", value=held / MIB, unit="MiB"))
        figures.append(Figure(name=f"{name}: peak / held", value=peak / held))
    keep("memory", figures)


def _answer(case: str, answers: "Queue[tuple[float, float]]") -> None:
    torch.set_num_threads(1)
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))  # libraries' own memory is there before
    before = _peak()
    peak, held = globals()[case]()
    answers.put((peak - before, held))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prior_step() -> tuple[int, int]:
    """Its peak, and what it holds at least."""
    objective = fits.top()
    return _step(objective, fits.codes(objective))


def tokenizer_step() -> tuple[int, int]:
    """Its peak, and what it holds at least."""
    return _step(fits.tokenizer(), fits.images())


def tokenizer_encode() -> tuple[int, int]:
    """Its peak, and what it holds at least."""
    model, images = fits.tokenizer().model, to_images(fits.images().pixels)
    model.encode(images)
    return _peak(), _bytes([*model.parameters(), *model.buffers(), images])


def sampling() -> tuple[int, int]:
    """16 images of the sampler's benchmark."""
    model = fits.top().model
    sampler = Sampler(model, SAMPLED)
    sampler.sample(torch.zeros(SAMPLED, dtype=torch.int64), (), torch.arange(SAMPLED))
    owners = [sampler, sampler.chooser, *sampler.layers, *sampler.attention.values()]
    own = [value for owner in owners for value in vars(owner).values() if isinstance(value, Tensor)]
    return _peak(), _bytes([*model.parameters(), *own])


def _step(objective: nn.Module, batch: object) -> tuple[int, int]:
    """Peak over two steps, of which the second has the moments of the first; then what one more keeps."""
    update = fits.step(objective, batch)
    update()
    update()
    peak = _peak()
    kept: list[Tensor] = []

    def keep_track(tensor: Tensor) -> Tensor:
        kept.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep_track, lambda tensor: tensor):
        update()
    weights = list(objective.parameters())
    return peak, 3 * _bytes(weights) + _bytes([*weights, *objective.buffers(), *kept])


def _bytes(tensors: list[Tensor]) -> tuple[int, int]:
    """Of the memory behind tensors, each counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


CASES: dict[str, Callable[[], tuple[int, int]]] = {
    fits.TOP.removesuffix(": "): prior_step,
    fits.VQVAE + "training step": tokenizer_step,
    fits.VQVAE + "encode": tokenizer_encode,
    "sampler, the same prior, batch 16": sampling,
}

if __name__ == "__main__":
    main()
