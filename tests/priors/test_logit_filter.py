"""Which codes remain after filtering, and how one is drawn."""

import pytest
import torch

from components.priors.config import SamplingConfig
from components.priors.logit_filter import LogitFilter


def remaining_codes(logits: list[float], **settings: float) -> list[int]:
    """Codes of one image that may be drawn."""
    row = torch.tensor([logits])
    return LogitFilter(SamplingConfig(**settings), row).filtered(row)[0].isfinite().nonzero()[:, 0].tolist()


def by_hand(shares: list[float], top_p: float) -> list[int]:
    """The shortest run of the likeliest codes that reaches `top_p`."""
    order, chosen, total = sorted(range(len(shares)), key=lambda code: -shares[code]), [], 0.0
    for code in order:
        if total < top_p:
            chosen.append(code)
            total += shares[code]
    return sorted(chosen)


@pytest.mark.parametrize("top_k", [1, 3, 6, 7, 50])
def test_top_k_leaves_the_k_likeliest(top_k):
    logits = torch.randn(7).tolist()
    assert remaining_codes(logits, top_k=top_k) == sorted(sorted(range(7), key=lambda code: -logits[code])[:top_k])


@pytest.mark.parametrize("top_p", [0.001, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_top_p_leaves_the_fewest_that_reach_the_share(top_p, temperature):
    for seed in range(20):
        logits = torch.randn(9, generator=torch.Generator().manual_seed(seed)) * 3
        shares = (logits.double() / temperature).softmax(0).tolist()
        assert remaining_codes(logits.tolist(), top_p=top_p, temperature=temperature) == by_hand(shares, top_p)


def test_top_p_counts_shares_among_the_top_k():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert remaining_codes(logits, top_k=2, top_p=0.56) == [0]  # 0.4 of 0.7 is 0.571
    assert remaining_codes(logits, top_p=0.56) == [0, 1]


def test_ties_stay_together_and_nothing_is_removed_by_default():
    assert remaining_codes([1.0, 2.0, 2.0, 0.0], top_k=1) == [1, 2]
    assert remaining_codes([1.0, -50.0, 0.0]) == [0, 1, 2]


def test_codes_are_drawn_in_the_remaining_proportions():
    n, logits = 20000, torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    uniform = torch.rand(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = torch.empty(n, dtype=torch.int64)
    noise = -torch.log(-torch.log(uniform))
    LogitFilter(SamplingConfig(top_k=3), logits.expand(n, 4).double()).draw(logits.expand(n, 4).double(), noise, codes)
    share = torch.bincount(codes, minlength=4) / n
    torch.testing.assert_close(share, torch.tensor([0.4, 0.3, 0.2, 0.0]) / 0.9, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"top_k": -1}, "top_k must be at least 1, or 0 for all codes, got -1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, "top_p must lie in"),
        ({"guidance": -0.5}, "guidance must be 0 or above, got -0.5"),
        ({"guidance": float("inf")}, "guidance must be 0 or above"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)
