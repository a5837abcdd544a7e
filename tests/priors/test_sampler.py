import pytest
import torch

from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.priors.sampler import Sampler

TOP, BOTTOM = (), (MapSpec(2, 3, 4),)
CASES = [
    ((4, 4), TOP, {"filter_size": 3}),
    ((3, 5), TOP, {"filter_size": 5, "layers": 3, "attention_layers": 2, "output_layers": 2}),
    ((1, 6), TOP, {"attention_layers": 1}),
    ((6, 1), TOP, {"filter_size": 5}),
    ((4, 6), BOTTOM, {"conditioning_layers": 1}),
    ((8, 12), (MapSpec(2, 3, 4), MapSpec(4, 6, 4)), {"attention_layers": 2, "conditioning_layers": 2}),
]


def inputs(prior: Prior, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Labels, 'no class' among them, and maps above for `count` images."""
    generator = torch.Generator().manual_seed(5)
    return torch.arange(count) % (prior.classes + 1), [
        torch.randint(spec.codebook_size, (count, spec.height, spec.width), generator=generator) for spec in prior.above
    ]


def soil(sampler: Sampler) -> None:
    """Overwrite everything that a run keeps with NaN."""
    names = (
        "map_context",
        "context",
        "row",
        "unfolded",
        "row_sums",
        "row_gated",
        "sums",
        "gated",
        "hidden",
        "state",
        "active",
        "out",
    )
    for buffer in [getattr(sampler, name) for name in names]:
        buffer.fill_(torch.nan)
    for layer in sampler.layers:
        kept = [layer.above, layer.line, layer.terms]
        for buffer in kept + ([layer.attention.query, layer.attention.pairs] if layer.attention else []):
            buffer.fill_(torch.nan)


@pytest.mark.parametrize("shape, above, settings", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_given_codes_its_logits_are_the_forward_passs(build_prior, shape, above, settings, dtype, tolerance):
    prior = build_prior(shape, above, **settings).to(dtype)
    labels, maps = inputs(prior, 5)
    sampler, codes = Sampler(prior, 8), torch.randint(7, (5, *shape))
    soil(sampler)
    with torch.no_grad():
        plain = prior(codes, labels, maps)
    assert plain.std() > 0.1
    torch.testing.assert_close(sampler.logits(codes, labels, maps), plain, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape, above, settings", CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_one_forward_pass_confirms_every_code(build_prior, shape, above, settings, temperature):
    prior = build_prior(shape, above, **settings)
    labels, maps = inputs(prior, 16)
    sampler, seeds = Sampler(prior, 16), torch.arange(16)
    soil(sampler)
    codes = sampler.sample(labels, maps, seeds, temperature=temperature)
    noise = torch.stack([sampler.noise(seeds, row) for row in range(shape[0])], dim=1)
    scores = prior(codes, labels, maps) / temperature + noise
    assert (scores.argmax(-1) != codes).sum().item() == 0


@pytest.mark.slow
def test_one_forward_pass_confirms_a_whole_64x64_map_below_a_32x32_one(build_prior):
    settings = {"filter_size": 5, "attention_layers": 1, "conditioning_layers": 1}
    prior = build_prior((64, 64), (MapSpec(32, 32, 4),), **settings)
    labels, maps = inputs(prior, 2)
    sampler, seeds = Sampler(prior, 2), torch.arange(2)
    codes = sampler.sample(labels, maps, seeds)
    noise = torch.stack([sampler.noise(seeds, row) for row in range(64)], dim=1)
    with torch.no_grad():
        scores = prior(codes, labels, maps) + noise
    assert (scores.argmax(-1) != codes).sum().item() == 0


def test_a_sample_depends_on_its_own_seed_not_on_its_batch(build_prior):
    prior = build_prior((8, 8), (MapSpec(4, 4, 4),), layers=3, attention_layers=1, conditioning_layers=1)
    labels, maps = inputs(prior, 64)
    seeds = torch.arange(64) * 1000
    whole = Sampler(prior, 64).sample(labels, maps, seeds)
    one = Sampler(prior, 1)
    for index in range(0, 64, 4):
        alone = one.sample(labels[index : index + 1], [maps[0][index : index + 1]], seeds[index : index + 1])
        assert torch.equal(alone[0], whole[index])
    assert len({tuple(codes.flatten().tolist()) for codes in whole}) > 60


def test_a_smaller_last_batch_and_a_second_run_change_nothing(build_prior):
    prior = build_prior(attention_layers=1)
    sampler, (labels, _) = Sampler(prior, 6), inputs(prior, 6)
    seeds = torch.arange(6)
    whole = sampler.sample(labels, (), seeds)
    assert torch.equal(sampler.sample(labels[:2], (), seeds[:2]), whole[:2])
    assert torch.equal(sampler.sample(labels, (), seeds), whole)


def test_first_codes_follow_the_softmax(build_prior):
    prior, count = build_prior((1, 2)), 8000
    labels = torch.full((count,), 1)
    first = Sampler(prior, count).sample(labels, (), torch.arange(count), temperature=0.8)[:, 0, 0]
    expected = (prior(torch.zeros(1, 1, 2).long(), labels[:1], ())[0, 0, 0] / 0.8).softmax(-1) * count
    chi_square = ((torch.bincount(first, minlength=7) - expected) ** 2 / expected).sum().item()
    assert chi_square < 22.5  # 99.9% quantile at 6 degrees of freedom


def test_levels_draw_different_noise_for_the_same_seed(build_prior):
    top, bottom = Sampler(build_prior((4, 6)), 1), Sampler(build_prior((4, 6), BOTTOM), 1)
    seeds = torch.tensor([3])
    assert not torch.isclose(top.noise(seeds, 0), bottom.noise(seeds, 0)).any()


@pytest.mark.parametrize(
    "labels, seeds, temperature, message",
    [
        ([0, 1, 2], [0, 1, 2], 1.0, "at most batch=2 images fit, got 3"),
        ([0, 4], [0, 1], 1.0, "labels must be integers from 0 to 2"),
        ([0, 1], [0], 1.0, "one seed for each of the 2 labels"),
        ([0, 1], [0.0, 1.0], 1.0, "seeds must be int64"),
        ([0, 1], [0, 1], 0.0, "temperature must be above 0, got 0.0"),
    ],
)
def test_bad_requests_are_named(build_prior, labels, seeds, temperature, message):
    sampler = Sampler(build_prior(), 2)
    with pytest.raises(ValueError, match=message):
        sampler.sample(torch.tensor(labels), (), torch.tensor(seeds), temperature=temperature)


def test_wrong_maps_above_and_an_empty_sampler_are_named(build_prior):
    prior = build_prior((4, 6), BOTTOM)
    with pytest.raises(ValueError, match="needs the 1 code maps"):
        Sampler(prior, 1).sample(torch.tensor([0]), (), torch.tensor([0]))
    with pytest.raises(ValueError, match="batch must be at least 1"):
        Sampler(prior, 0)
