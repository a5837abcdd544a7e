"""The sampler gives the logits of the forward pass, and draws the codes that these and the noise determine."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from components.priors import sampler as module
from components.priors.conditioning import MapSpec
from components.priors.config import AS_FITTED, SamplingConfig
from components.priors.logit_filter import LogitFilter
from components.priors.model import Prior
from components.priors.sampler import Sampler

TOP, BOTTOM = (), (MapSpec(2, 3, 4),)
CASES = [
    ((4, 4), TOP, {"filter_size": 3}),
    ((3, 5), TOP, {"filter_size": 5, "layers": 3, "attention_layers": 2, "output_layers": 2}),
    ((1, 6), TOP, {"attention_layers": 1}),
    ((4, 4), TOP, {"layers": 3, "attention_layers": 1, "attention_placement": "middle"}),
    ((4, 4), TOP, {"layers": 3, "attention_layers": 1, "attention_placement": "end"}),
    ((6, 1), TOP, {"filter_size": 5}),
    ((4, 6), BOTTOM, {"conditioning_layers": 1}),
    ((8, 12), (MapSpec(2, 3, 4), MapSpec(4, 6, 4)), {"attention_layers": 2, "conditioning_layers": 2}),
]
GUIDED = SamplingConfig(guidance=2.5)
SAMPLINGS = [
    AS_FITTED,
    SamplingConfig(temperature=0.6),
    GUIDED,
    SamplingConfig(temperature=0.9, top_k=4, top_p=0.8, guidance=0.5),
]
WEIGHTS = {"filter", "taps", "horizontal", "link", "vertical_out", "horizontal_out"} | {
    *("project", "bias", "codes", "out", "start", "masks", "epsilon", "reciprocal", "temperature"),
    *("table", "position", "first_terms", "context_weight", "context_bias", "logits_weight", "logits_bias"),
}
"""What a sampler packs once and never writes again."""


def inputs(prior: Prior, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Labels, 'no class' among them, and maps above for `count` images."""
    generator = torch.Generator().manual_seed(5)
    return torch.arange(count) % (prior.classes + 1), [
        torch.randint(spec.codebook_size, (count, spec.height, spec.width), generator=generator) for spec in prior.above
    ]


def overwrite(sampler: Sampler) -> None:
    """Overwrite everything that a run writes: numbers with NaN, indices and codes with 1."""
    for owner in (sampler, sampler.logit_filter, *sampler.layers, *sampler.attention.values()):
        for name, buffer in vars(owner).items():
            if isinstance(buffer, torch.Tensor) and (name not in WEIGHTS or (owner is sampler and name == "out")):
                buffer.fill_(torch.nan if buffer.is_floating_point() else 1)


@torch.no_grad()
def plain(prior: Prior, codes: torch.Tensor, labels: torch.Tensor, maps: list[torch.Tensor], sampling: SamplingConfig):
    """Guided logits by whole forward passes."""
    without = prior(codes, torch.full_like(labels, prior.classes), maps)
    return without + sampling.guidance * (prior(codes, labels, maps) - without)


def mismatches(sampler: Sampler, codes: torch.Tensor, labels: torch.Tensor, maps: list[torch.Tensor], seeds) -> int:
    """Positions whose code is not what one forward pass over all codes, and the noise, would choose."""
    prior, sampling = sampler.prior, sampler.sampling
    logits = plain(prior, codes, labels, maps, sampling).flatten(0, 2)
    noise = torch.stack([sampler.noise(seeds, row) for row in range(prior.shape[0])], dim=1).flatten(0, 2)
    drawn = torch.empty(len(logits), dtype=torch.int64)
    LogitFilter(sampling, logits).draw(logits, noise.to(logits.dtype), drawn)
    return (drawn != codes.flatten()).sum().item()


@pytest.mark.parametrize("shape, above, settings", CASES)
@pytest.mark.parametrize("sampling", [AS_FITTED, GUIDED], ids=["as fitted", "guided"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_with_given_codes_the_logits_are_those_of_the_forward_pass(
    build_prior, shape, above, settings, sampling, dtype, tolerance
):
    prior = build_prior(shape, above, label_dropout=0.1, **settings).to(dtype)
    labels, maps = inputs(prior, 5)
    sampler, codes = Sampler(prior, 8, sampling), torch.randint(7, (5, *shape))
    overwrite(sampler)
    expected = plain(prior, codes, labels, maps, sampling)
    assert expected.std() > 0.1
    torch.testing.assert_close(sampler.logits(codes, labels, maps), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape, above, settings", CASES)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["as fitted", "cold", "guided", "all"])
def test_one_forward_pass_confirms_every_code(build_prior, shape, above, settings, sampling):
    prior = build_prior(shape, above, label_dropout=0.1, **settings)
    labels, maps = inputs(prior, 16)
    sampler, seeds = Sampler(prior, 16, sampling), torch.arange(16)
    overwrite(sampler)
    codes = sampler.sample(labels, maps, seeds)
    assert mismatches(sampler, codes, labels, maps, seeds) == 0


@pytest.mark.slow
@pytest.mark.parametrize("attention", [0, 1])
@pytest.mark.parametrize("sampling", [AS_FITTED, GUIDED], ids=["as fitted", "guided"])
@pytest.mark.parametrize("side, above", [(32, ()), (64, (MapSpec(32, 32, 4),))])
def test_one_forward_pass_confirms_whole_maps_of_the_papers_sizes(build_prior, side, above, sampling, attention):
    conditioning = {"conditioning_layers": 1} if above else {}
    settings = {"filter_size": 5, "attention_layers": attention, "label_dropout": 0.1, **conditioning}
    prior = build_prior((side, side), above, **settings)
    labels, maps = inputs(prior, 2)
    sampler, seeds = Sampler(prior, 2, sampling), torch.arange(2)
    codes = sampler.sample(labels, maps, seeds)
    assert mismatches(sampler, codes, labels, maps, seeds) == 0


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["as fitted", "cold", "guided", "all"])
def test_a_sample_depends_on_its_own_seed_not_on_its_batch(build_prior, sampling):
    prior = build_prior(
        (8, 8), (MapSpec(4, 4, 4),), layers=3, attention_layers=1, conditioning_layers=1, label_dropout=0.1
    )
    labels, maps = inputs(prior, 64)
    seeds = torch.arange(64) * 1000
    whole = Sampler(prior, 64, sampling).sample(labels, maps, seeds)
    single = Sampler(prior, 1, sampling)
    for index in range(0, 64, 8):
        alone = single.sample(labels[index : index + 1], [maps[0][index : index + 1]], seeds[index : index + 1])
        assert torch.equal(alone[0], whole[index])
    assert len({tuple(codes.flatten().tolist()) for codes in whole}) > 40


def test_a_smaller_last_batch_and_a_second_run_change_nothing(build_prior):
    prior = build_prior(attention_layers=1)
    sampler, (labels, _) = Sampler(prior, 6), inputs(prior, 6)
    seeds = torch.arange(6)
    whole = sampler.sample(labels, (), seeds)
    assert torch.equal(sampler.sample(labels[:2], (), seeds[:2]), whole[:2])
    assert torch.equal(sampler.sample(labels, (), seeds), whole)


@pytest.mark.parametrize("sampling", [AS_FITTED, GUIDED], ids=["as fitted", "guided"])
def test_given_codes_stay_and_the_others_are_drawn_after_them(build_prior, sampling):
    prior = build_prior((4, 6), BOTTOM, attention_layers=1, label_dropout=0.1)
    labels, maps = inputs(prior, 4)
    sampler, seeds, given = Sampler(prior, 5, sampling), torch.arange(4), torch.randint(7, (4, 4, 6))
    free = torch.rand(4, 4, 6) < 0.5
    codes = sampler.sample(labels, maps, seeds, given=given.masked_fill(free, -1))
    assert torch.equal(codes[~free], given[~free])
    logits = plain(prior, codes, labels, maps, sampling)
    noise = torch.stack([sampler.noise(seeds, row) for row in range(4)], dim=1)
    assert torch.equal((logits + noise).argmax(-1)[free], codes[free])
    assert torch.equal(sampler.sample(labels, maps, seeds, given=torch.full_like(given, -1)),
                       sampler.sample(labels, maps, seeds))  # fmt: skip


def test_first_codes_follow_the_softmax(build_prior):
    prior, count = build_prior((1, 2)), 8000
    labels = torch.full((count,), 1)
    first = Sampler(prior, count, SamplingConfig(temperature=0.8)).sample(labels, (), torch.arange(count))[:, 0, 0]
    expected = (prior(torch.zeros(1, 1, 2).long(), labels[:1], ())[0, 0, 0] / 0.8).softmax(-1) * count
    chi_square = ((torch.bincount(first, minlength=7) - expected) ** 2 / expected).sum().item()
    assert chi_square < 22.5  # 99.9% quantile at 6 degrees of freedom


def test_levels_draw_different_noise_for_the_same_seed(build_prior):
    top, bottom = Sampler(build_prior((4, 6)), 1), Sampler(build_prior((4, 6), BOTTOM), 1)
    seeds = torch.tensor([3])
    assert not torch.isclose(top.noise(seeds, 0), bottom.noise(seeds, 0)).any()


# Without top p: sorting allocates its own scratch memory.
@pytest.mark.parametrize("sampling", SAMPLINGS[:3], ids=["as fitted", "cold", "guided"])
def test_a_pixel_allocates_nothing(build_prior, sampling):
    prior = build_prior((4, 6), BOTTOM, attention_layers=1, output_layers=1, label_dropout=0.1)
    sampler = Sampler(prior, 3, sampling)
    sampler._run_row()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        sampler._run_pixel(0)
    events = profiled.key_averages()
    assert {"aten::bmm", "aten::addmm"} <= {event.key for event in events}
    assert [event.key for event in events if event.self_cpu_memory_usage > 0] == []


def test_graphs_that_run_before_they_are_captured_change_nothing(build_prior, monkeypatch):
    """On a GPU a step is run once, captured, and replayed; here the capture keeps the function instead."""
    prior = build_prior((4, 6), BOTTOM, attention_layers=1, label_dropout=0.1)
    (labels, maps), seeds, captured = inputs(prior, 3), torch.arange(3), []

    def capture(works, device, reset):
        for work in works:
            reset()
            work()
        captured.extend(works)
        return [lambda work=work: work() for work in works]

    expected = Sampler(prior, 4, GUIDED).sample(labels, maps, seeds)
    monkeypatch.setattr(module, "replay_graphs", capture)
    sampler = Sampler(prior, 4, GUIDED)
    assert torch.equal(sampler.sample(labels, maps, seeds), expected)
    assert torch.equal(sampler.sample(labels, maps, seeds), expected)
    assert len(captured) == 1 + 4  # rows, and a pixel for each length of what attention reads


@pytest.mark.parametrize(
    "labels, seeds, message",
    [
        ([0, 1, 2], [0, 1, 2], "at most batch=2 images fit, got 3"),
        ([0, 4], [0, 1], "labels must be integers from 0 to 2"),
        ([0, 1], [0], "one seed for each of 2 labels"),
        ([0, 1], [0.0, 1.0], "seeds must be int64"),
        ([], [], "at least one image"),
    ],
)
def test_bad_requests_are_named(build_prior, labels, seeds, message):
    sampler, dtype = Sampler(build_prior(), 2), None if seeds else torch.int64
    with pytest.raises(ValueError, match=message):
        sampler.sample(torch.tensor(labels, dtype=dtype), (), torch.tensor(seeds, dtype=dtype))


def test_wrong_maps_and_an_empty_sampler_are_named(build_prior):
    prior, zero = build_prior((4, 6), BOTTOM), torch.tensor([0])
    with pytest.raises(ValueError, match="needs the 1 code maps"):
        Sampler(prior, 1).sample(zero, (), zero)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        Sampler(prior, 0)
    maps = [torch.zeros(1, 2, 3).long()]
    for given, message in ((torch.full((1, 4, 6), 7), "codes from 0 to 6, got"), (maps[0], r"= \(1, 4, 6\), got")):
        with pytest.raises(ValueError, match=message):
            Sampler(prior, 1).sample(zero, maps, zero, given=given)


def test_guidance_needs_a_prior_that_knows_no_class(build_prior):
    with pytest.raises(ValueError, match="label_dropout above 0, got 0 and guidance"):
        Sampler(build_prior(), 1, GUIDED)
    with pytest.raises(ValueError, match="guidance must be 1 for a prior that was fitted without classes"):
        Sampler(build_prior(classes=0, label_dropout=0.1), 1, GUIDED)
