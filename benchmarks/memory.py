"""Peak memory of an update, of encoding and of sampling, beside what must be held at least.

    python -m benchmarks.memory

Each runs in a process of its own; the peak is that of its resident memory minus the memory before the model was built.
Held at least: parameters and buffers; for an update also gradients, Adam's two moments and the activations that
autograd keeps; for the sampler everything that it allocates.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue

import torch
from torch import Tensor, nn

from benchmarks import fits
from benchmarks.processes import peak_memory
from benchmarks.timing import Figure, report_figures
from components.images.tensors import to_images
from components.priors.sampler import Sampler

MIB = 2**20
IMAGES_SAMPLED = 16


def main() -> None:
    """Measure, print, write benchmarks/results."""
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
    report_figures("memory", figures)


def _answer(case: str, answers: "Queue[tuple[float, float]]") -> None:
    torch.set_num_threads(1)
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))  # so that the libraries' own memory is not counted
    before = peak_memory()
    peak, held = globals()[case]()
    answers.put((peak - before, held))


def prior_step() -> tuple[int, int]:
    """Peak and bytes held of a prior's update."""
    objective = fits.build_top()
    return _measure_update(objective, fits.random_codes(objective))


def tokenizer_step() -> tuple[int, int]:
    """Peak and bytes held of the VQ-VAE's update."""
    return _measure_update(fits.build_tokenizer(), fits.random_images())


def tokenizer_encode() -> tuple[int, int]:
    """Peak and bytes held of encoding."""
    model, images = fits.build_tokenizer().model, to_images(fits.random_images().pixels)
    model.encode(images)
    return peak_memory(), _bytes([*model.parameters(), *model.buffers(), images])


def sampling() -> tuple[int, int]:
    """Peak and bytes held of sampling IMAGES_SAMPLED images from the prior of the sampler's benchmark."""
    model = fits.build_top().model
    sampler = Sampler(model, IMAGES_SAMPLED)
    sampler.sample(torch.zeros(IMAGES_SAMPLED, dtype=torch.int64), (), torch.arange(IMAGES_SAMPLED))
    owners = [sampler, sampler.logit_filter, *sampler.layers, *sampler.attention.values()]
    allocated = [value for owner in owners for value in vars(owner).values() if isinstance(value, Tensor)]
    return peak_memory(), _bytes([*model.parameters(), *allocated])


def _measure_update(objective: nn.Module, batch: object) -> tuple[int, int]:
    """Peak of two updates, the second of which has Adam's moments from the start, and bytes held during a third."""
    update = fits.make_update(objective, batch)
    update()
    update()
    peak = peak_memory()
    saved: list[Tensor] = []

    def keep_track(tensor: Tensor) -> Tensor:
        saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep_track, lambda tensor: tensor):
        update()
    weights = list(objective.parameters())
    gradients_and_moments = 3 * _bytes(weights)  # one gradient and Adam's two moments per weight
    return peak, gradients_and_moments + _bytes([*weights, *objective.buffers(), *saved])


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of the memory behind `tensors`, shared memory counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


CASES: dict[str, Callable[[], tuple[int, int]]] = {
    fits.TOP.removesuffix(": "): prior_step,
    fits.VQVAE + "training step": tokenizer_step,
    fits.VQVAE + "encode": tokenizer_encode,
    "sampler, the same prior, batch 16": sampling,
}

if __name__ == "__main__":
    main()
