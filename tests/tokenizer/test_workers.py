"""Codebooks and weights of several workers: equal bit for bit, and equal to those of one process with all the data."""

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from components.config import TrainingConfig
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import ImageBatch

pytestmark = pytest.mark.slow  # three processes start

UPDATES = 12
LEVELS = (
    LevelConfig(name="top", stride=4, codebook_size=8, code_width=4),
    LevelConfig(name="bottom", stride=2, codebook_size=8, code_width=4),
)
CONFIG = VQVAEConfig(
    levels=LEVELS,
    hidden=8,
    residual_hidden=4,
    residual_layers=1,
    restart_below=0.4,
    decay=0.8,
    training=TrainingConfig(updates=1, batch_size=1),
)


def worker_outputs(step, workers):
    """Encoder outputs of one update, split unevenly among workers; they shift every four updates, so that codes die."""
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(7, 3, 4, 4, generator=generator) + 4 * (step // 4)
    return whole.split([7] if workers == 1 else [1, 6] if workers == 2 else [2, 1, 4])


def fit_codebook(rank, workers):
    quantizer = EMAQuantizer(codebook_size=12, code_width=3, decay=0.8, restart_below=0.3, seed=1)
    for step in range(UPDATES):
        statistics = quantizer(worker_outputs(step, workers)[rank]).statistics
    return dict(quantizer.state_dict()) | {"perplexity": statistics.perplexity, "usage": statistics.usage}


def count_reductions(rank, workers):
    """Sizes of the all-reduces in four updates without restarts, after a first update that initialises the codebook."""
    quantizer, made = EMAQuantizer(codebook_size=12, code_width=3, decay=0.8, restart_below=0.0, seed=1), []
    quantizer(worker_outputs(0, workers)[rank])
    reduce = dist.all_reduce
    dist.all_reduce = lambda tensor, *rest: (made.append(tensor.numel()), reduce(tensor, *rest))[1]
    for step in range(4):
        quantizer(worker_outputs(step, workers)[rank])
    dist.all_reduce = reduce
    return {"numbers": torch.tensor(made)}


def fit_tokenizer(rank, workers):
    torch.manual_seed(0)
    objective = TokenizerObjective(Tokenizer(CONFIG, channels=1, fitting=CONFIG), beta=CONFIG.beta)
    module = DistributedDataParallel(objective, broadcast_buffers=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    torch.manual_seed(rank)
    for _ in range(6):
        pixels = torch.randint(256, (1 + 2 * rank, 8, 8, 1), dtype=torch.uint8)
        loss, _ = module(ImageBatch(pixels, torch.zeros(len(pixels))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dict(objective.state_dict())


def run_worker(rank, folder):
    """Save the states of this worker, fitted by groups of three and of two workers."""
    torch.set_num_threads(1)
    for workers in (3, 2):
        if rank < workers:
            dist.init_process_group("gloo", init_method=f"file://{folder}/{workers}", rank=rank, world_size=workers)
            for name, fit in (("codebook", fit_codebook), ("tokenizer", fit_tokenizer), ("reduced", count_reductions)):
                save_file(fit(rank, workers), f"{folder}/{name}-{workers}-{rank}.safetensors")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """states(name, workers): the saved state of each worker."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(partial(run_worker), args=(str(folder),), nprocs=3)
    return lambda name, workers: [load_file(folder / f"{name}-{workers}-{rank}.safetensors") for rank in range(workers)]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", ["codebook", "tokenizer"])
def test_workers_stay_equal_bit_for_bit(states, name, workers):
    for state, next_state in pairwise(states(name, workers)):
        assert all(torch.equal(value, next_state[key]) for key, value in state.items())
        assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_equal_one_process_with_all_the_data(states, workers):
    alone = fit_codebook(0, 1)
    assert int((alone["born"] > 0).sum()) > 3  # the comparison covers restarts
    torch.testing.assert_close(states("codebook", workers)[0], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [2, 3])
def test_an_update_makes_one_reduction_of_counts_sums_and_sizes(states, workers):
    assert states("reduced", workers)[0]["numbers"].tolist() == 4 * [12 + 12 * 3 + workers]
