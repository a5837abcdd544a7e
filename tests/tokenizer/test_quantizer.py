"""One codebook in one process. Shapes: v vectors, d code width, k codebook size."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.tokenizer import nearest_codes as module
from components.tokenizer.config import LevelConfig, VQVAEArchitecture, VQVAEFitting
from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.model import Tokenizer
from components.tokenizer.nearest_codes import nearest_codes
from components.tokenizer.quantizers import QUANTIZERS


def make(size=16, width=4, decay=0.9, restart_below=0.0, seed=0):
    return EMAQuantizer(codebook_size=size, code_width=width, decay=decay, restart_below=restart_below, seed=seed)


def features(seed, n=3, width=4, side=8):
    return torch.randn(n, width, side, side, generator=torch.Generator().manual_seed(seed))


def rows(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def float64_distances(vectors, codebook):
    return torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")


def test_nearest_is_the_argmin_of_float64_distances():
    torch.manual_seed(0)
    vectors, codebook = torch.randn(5000, 8), torch.randn(40, 8)
    assert torch.equal(nearest_codes(vectors, codebook), float64_distances(vectors, codebook).argmin(1))


def test_nearest_far_from_zero_is_the_argmin_but_for_ties_within_rounding():
    """Products near 300^2 * 8 round to about 1/16 in float32; which of two codes that close wins is the processor's."""
    torch.manual_seed(0)
    vectors, codebook = torch.randn(5000, 8) + 300, torch.randn(40, 8) + 300
    distances, codes = float64_distances(vectors, codebook), nearest_codes(vectors, codebook)
    excess = distances.gather(1, codes[:, None])[:, 0].square() - distances.amin(1).square()
    assert excess.max() < 0.01 and (codes == distances.argmin(1)).double().mean() > 0.99


@pytest.mark.parametrize("size", [64, 128, 192, 200, 512])
def test_nearest_takes_the_first_of_equals_in_codebooks_of_any_size(size):
    codebook = torch.randn(size, 8).round().repeat(2, 1)[:size]  # the second half repeats the first
    codebook[size // 2 :] = codebook[: size - size // 2]
    vectors = torch.randn(300, 8)
    expected = torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(nearest_codes(vectors, codebook), expected)


def test_nearest_does_not_depend_on_the_chunks(monkeypatch):
    vectors, codebook = torch.randn(1000, 8), torch.randn(16, 8)
    whole = nearest_codes(vectors, codebook)
    monkeypatch.setattr(module, "DISTANCES_CPU", 7 * 16)
    assert torch.equal(nearest_codes(vectors, codebook), whole)


def test_memory_stays_bounded_whatever_the_number_of_vectors(monkeypatch):
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            largest = max([largest] + [t.numel() for t in [result] if isinstance(t, torch.Tensor)])
            return result

    monkeypatch.setattr(module, "DISTANCES_CPU", 2**12)
    quantizer, x = make(size=128), features(0, n=4, side=32)
    with Watch():
        quantizer(x)
    assert largest == x.numel()  # nothing outgrows the features themselves; v times k would be 32 times as many


def test_update_follows_equation_2():
    quantizer = make(decay=0.9)
    quantizer(features(0))
    n, m, e = (getattr(quantizer, name).double().clone() for name in ("counts", "sums", "codebook"))
    x = features(1)
    codes = quantizer(x).codes.flatten()
    for i in range(16):
        mine = rows(x).double()[codes == i]
        n[i] = 0.9 * n[i] + 0.1 * len(mine)
        m[i] = 0.9 * m[i] + 0.1 * mine.sum(0)
        e[i] = m[i] / n[i]
    torch.testing.assert_close(quantizer.counts.double(), n, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(quantizer.sums.double(), m, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(quantizer.codebook.double(), e, rtol=1e-5, atol=1e-6)


def test_gradient_goes_straight_through_and_the_values_are_the_codebook():
    quantizer, weight = make(), features(5)
    x = features(1).requires_grad_()
    before = quantizer.eval()(x)
    (before.vectors * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    assert torch.equal(before.vectors, quantizer.lookup(before.codes))


def test_distance_is_the_mean_square_to_a_fixed_codebook():
    quantizer = make().eval()
    x = features(1).double().float().requires_grad_()
    result = quantizer(x)
    chosen = quantizer.codebook[result.codes].permute(0, 3, 1, 2)
    torch.testing.assert_close(result.distance, ((x - chosen) ** 2).mean())
    result.distance.backward()
    torch.testing.assert_close(x.grad, 2 * (x - chosen).detach() / x.numel())


def test_first_update_takes_real_outputs_and_keeps_every_code_alive():
    quantizer, x = make(size=32, decay=0.99), features(0) * 50 + 1000
    quantizer(x)
    assert torch.isfinite(quantizer.codebook).all()
    assert (quantizer.codebook >= rows(x).min(0).values).all() and (quantizer.codebook <= rows(x).max(0).values).all()
    assert quantizer.eval()(x).statistics.usage == 1


def test_first_vectors_differ_although_most_outputs_are_the_same():
    x = features(0, n=4, side=16).round()
    x[:, :, 4:] = 0  # a uniform draw of 16 would be zero 12 times
    quantizer = make(size=16)
    quantizer._initialise(rows(x))
    assert len(quantizer.codebook.unique(dim=0)) == 16


def test_codes_follow_outputs_that_move_away_at_once():
    quantizer = make(size=16, decay=0.99, restart_below=0.1)
    for step in range(60):
        result = quantizer(features(step) + min(step, 10) * 3.0)
    assert result.statistics.usage > 0.8  # one or two codes of those that were left behind without restarts


def test_a_code_that_is_never_used_keeps_its_vector():
    quantizer = make(decay=0.5)
    quantizer(features(0))
    quantizer.codebook[3], quantizer.sums[3] = 1000.0, 1000.0 * quantizer.counts[3]
    for step in range(300):
        quantizer(features(step))
    assert quantizer.counts[3] < 1e-20
    torch.testing.assert_close(quantizer.codebook[3], torch.full((4,), 1000.0))


def test_restart_takes_a_real_output_and_resets_all_state_of_the_code():
    quantizer = make(size=16, decay=0.9, restart_below=0.01)
    quantizer(features(0))
    quantizer.codebook[3], quantizer.sums[3], quantizer.counts[3] = 1000.0, 1.0, 1e-6
    x = features(1)
    quantizer(x)
    assert (rows(x) == quantizer.codebook[3]).all(1).any()
    assert quantizer.counts[3] == pytest.approx(0.1 * len(rows(x)) / 16)
    torch.testing.assert_close(quantizer.sums[3], quantizer.counts[3] * quantizer.codebook[3])
    assert quantizer.born.tolist() == [0, 0, 0, 2] + 12 * [0]


def test_saved_state_goes_on_bit_for_bit_through_restarts():
    first = make(restart_below=0.5, seed=3)
    for step in range(4):
        first(features(step))
    second = make(restart_below=0.5, seed=3)
    second.load_state_dict(first.state_dict())
    for step in range(4, 9):
        first(features(step))
        second(features(step))
    assert int(first.born.max()) > 4
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_perplexity_and_usage_against_their_definition():
    quantizer, x = make(size=16).eval(), features(0)
    result = quantizer(x)
    counts = [int((result.codes == i).sum()) for i in range(16)]
    entropy = -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts if c)
    assert float(result.statistics.perplexity) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert float(result.statistics.usage) == pytest.approx(sum(c > 0 for c in counts) / 16)


def test_statistics_stay_float32_under_autocast():
    plain, autocast = make(), make()
    for step in range(3):
        x = features(step).bfloat16()
        plain(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            result = autocast(x)
    assert result.vectors.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), autocast.buffers(), strict=True) if a.ndim)


def test_the_config_names_every_registered_quantizer():
    assert set(get_args(get_type_hints(VQVAEArchitecture)["quantizer"])) == set(QUANTIZERS)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_quantizer_encodes_and_looks_up_what_its_forward_gives(name):
    level = LevelConfig(name="top", stride=4, codebook_size=16, code_width=4)
    architecture = VQVAEArchitecture(levels=(level,), quantizer=name)
    quantizer, x = QUANTIZERS[name].for_level(level, architecture, VQVAEFitting(), seed=0), features(0)
    quantizer(x)
    result = quantizer.eval()(x)
    assert torch.equal(quantizer.encode(x), result.codes) and torch.equal(
        quantizer.lookup(result.codes), result.vectors
    )
    assert result.codes.shape == (3, 8, 8) and quantizer.mean().shape == (4,)


def test_a_tokenizer_is_built_with_the_quantizer_that_its_architecture_names(monkeypatch):
    class Other(EMAQuantizer):
        """Another kind."""

    monkeypatch.setattr("components.tokenizer.model.QUANTIZERS", {"ema": Other})
    level = LevelConfig(name="top", stride=4)
    assert isinstance(Tokenizer(VQVAEArchitecture(levels=(level,)), channels=1).quantizers[0], Other)


def test_outputs_that_are_not_finite_do_not_stop_the_update():
    quantizer = make(restart_below=0.5)
    quantizer(features(0))
    result = quantizer(torch.full((2, 4, 8, 8), math.nan))
    assert not torch.isfinite(result.distance)
