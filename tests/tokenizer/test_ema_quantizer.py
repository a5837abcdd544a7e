"""One codebook in one process. Shapes: v vectors, d code width, k codebook size."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.tokenizer import nearest_codes as module
from components.tokenizer.config import LevelConfig, VQVAEArchitecture
from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.model import Tokenizer


def make_quantizer(size=16, width=4, decay=0.9, restart_below=0.0, seed=0):
    return EMAQuantizer(codebook_size=size, code_width=width, decay=decay, restart_below=restart_below, seed=seed)


def features(seed, n=3, width=4, side=8):
    return torch.randn(n, width, side, side, generator=torch.Generator().manual_seed(seed))


def as_vectors(x):
    """(n, d, h, w) as (v, d), in the order of the codes."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def test_memory_is_bounded_for_any_number_of_vectors(monkeypatch):
    largest = 0

    class LargestTensor(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            largest = max([largest] + [t.numel() for t in [result] if isinstance(t, torch.Tensor)])
            return result

    monkeypatch.setattr(module, "DISTANCES_CPU", 2**12)
    quantizer, x = make_quantizer(size=128), features(0, n=4, side=32)
    with LargestTensor():
        quantizer(x)
    assert largest == x.numel()  # no tensor is larger than the features; v times k would be 32 times as many


def test_update_follows_equation_2():
    quantizer = make_quantizer(decay=0.9)
    quantizer(features(0))
    n, m, e = (getattr(quantizer, name).double().clone() for name in ("counts", "sums", "codebook"))
    x = features(1)
    codes = quantizer(x).codes.flatten()
    for i in range(16):
        assigned = as_vectors(x).double()[codes == i]
        n[i] = 0.9 * n[i] + 0.1 * len(assigned)
        m[i] = 0.9 * m[i] + 0.1 * assigned.sum(0)
        e[i] = m[i] / n[i]
    torch.testing.assert_close(quantizer.counts.double(), n, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(quantizer.sums.double(), m, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(quantizer.codebook.double(), e, rtol=1e-5, atol=1e-6)


def test_gradient_passes_straight_through_and_values_are_codebook_vectors():
    quantizer, weight = make_quantizer(), features(5)
    x = features(1).requires_grad_()
    before = quantizer.eval()(x)
    (before.vectors * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    assert torch.equal(before.vectors, quantizer.lookup(before.codes))


def test_distance_is_the_mean_square_to_a_fixed_codebook():
    quantizer = make_quantizer().eval()
    x = features(1).double().float().requires_grad_()
    result = quantizer(x)
    chosen = quantizer.codebook[result.codes].permute(0, 3, 1, 2)
    torch.testing.assert_close(result.distance, ((x - chosen) ** 2).mean())
    result.distance.backward()
    torch.testing.assert_close(x.grad, 2 * (x - chosen).detach() / x.numel())


def test_the_first_update_initialises_from_encoder_outputs_and_every_code_is_used():
    quantizer, x = make_quantizer(size=32, decay=0.99), features(0) * 50 + 1000
    quantizer(x)
    assert torch.isfinite(quantizer.codebook).all()
    vectors = as_vectors(x)
    assert (quantizer.codebook >= vectors.min(0).values).all() and (quantizer.codebook <= vectors.max(0).values).all()
    assert quantizer.eval()(x).statistics.usage == 1


def test_initial_vectors_differ_even_if_most_outputs_are_equal():
    x = features(0, n=4, side=16).round()
    x[:, :, 4:] = 0  # a uniform draw of 16 would be zero 12 times
    quantizer = make_quantizer(size=16)
    quantizer._initialise(as_vectors(x))
    assert len(quantizer.codebook.unique(dim=0)) == 16


def test_codes_follow_outputs_that_shift_quickly():
    quantizer = make_quantizer(size=16, decay=0.99, restart_below=0.1)
    for step in range(60):
        result = quantizer(features(step) + min(step, 10) * 3.0)
    assert result.statistics.usage > 0.8  # without restarts only one or two codes would stay in use


def test_a_code_that_is_never_used_keeps_its_vector():
    quantizer = make_quantizer(decay=0.5)
    quantizer(features(0))
    quantizer.codebook[3], quantizer.sums[3] = 1000.0, 1000.0 * quantizer.counts[3]
    for step in range(300):
        quantizer(features(step))
    assert quantizer.counts[3] < 1e-20
    torch.testing.assert_close(quantizer.codebook[3], torch.full((4,), 1000.0))


def test_a_restart_takes_an_encoder_output_and_resets_all_state_of_the_code():
    quantizer = make_quantizer(size=16, decay=0.9, restart_below=0.01)
    quantizer(features(0))
    quantizer.codebook[3], quantizer.sums[3], quantizer.counts[3] = 1000.0, 1.0, 1e-6
    x = features(1)
    quantizer(x)
    assert (as_vectors(x) == quantizer.codebook[3]).all(1).any()
    assert quantizer.counts[3] == pytest.approx(0.1 * len(as_vectors(x)) / 16)
    torch.testing.assert_close(quantizer.sums[3], quantizer.counts[3] * quantizer.codebook[3])
    assert quantizer.born.tolist() == [0, 0, 0, 2] + 12 * [0]


def test_a_loaded_state_continues_bit_for_bit_through_restarts():
    first = make_quantizer(restart_below=0.5, seed=3)
    for step in range(4):
        first(features(step))
    second = make_quantizer(restart_below=0.5, seed=3)
    second.load_state_dict(first.state_dict())
    for step in range(4, 9):
        first(features(step))
        second(features(step))
    assert int(first.born.max()) > 4
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def drawn_vectors(level, pipeline_seed):
    """The first codebook of a level of a tokenizer with two equal levels, from the same outputs."""
    levels = tuple(LevelConfig(name=name, stride=stride, codebook_size=16) for name, stride in (("a", 4), ("b", 2)))
    tokenizer = Tokenizer(VQVAEArchitecture(levels=levels, hidden=8), channels=1, seed=pipeline_seed)
    quantizer = tokenizer.quantizers[level]
    quantizer._initialise(as_vectors(features(0, n=8, width=64)))
    return quantizer.codebook


def test_levels_and_seeds_draw_different_outputs():
    first, *others = [drawn_vectors(level, seed) for level, seed in ((0, 0), (1, 0), (0, 1), (0, 2**32))]
    assert torch.equal(first, drawn_vectors(0, 0))
    for other in others:
        assert not torch.equal(first.unique(dim=0), other.unique(dim=0))


def test_a_restart_of_another_update_draws_other_outputs():
    x, drawn = as_vectors(features(0, n=8)), []
    for updates in (1, 2, 1):
        quantizer = make_quantizer()
        quantizer.updates.fill_(updates)
        quantizer._replace(torch.ones(16, dtype=torch.bool), x, torch.tensor([float(len(x))]))
        drawn.append(quantizer.codebook)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_perplexity_and_usage_match_their_definition():
    quantizer, x = make_quantizer(size=16).eval(), features(0)
    result = quantizer(x)
    counts = [int((result.codes == i).sum()) for i in range(16)]
    entropy = -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts if c)
    assert float(result.statistics.perplexity) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert float(result.statistics.usage) == pytest.approx(len(np.unique(result.codes)) / 16)


def test_statistics_stay_float32_under_autocast():
    plain, autocast = make_quantizer(), make_quantizer()
    for step in range(3):
        x = features(step).bfloat16()
        plain(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            result = autocast(x)
    assert result.vectors.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), autocast.buffers(), strict=True) if a.ndim)


def test_non_finite_outputs_do_not_raise():
    quantizer = make_quantizer(restart_below=0.5)
    quantizer(features(0))
    result = quantizer(torch.full((2, 4, 8, 8), math.nan))
    assert not torch.isfinite(result.distance)
