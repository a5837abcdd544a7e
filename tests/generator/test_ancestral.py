"""Ancestral sampling: top first, decoded and scored, each image from its own label and seed."""

import pytest
import torch

from components.generator.ancestral import Generator
from components.images.tensors import to_images, to_pixels
from components.priors.config import SamplingConfig
from components.priors.sampler import Sampler

COLD = SamplingConfig(temperature=1e-4)
LABELS, SEEDS = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([7, -3, 2**62, 0, 8])


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_an_image_depends_on_its_label_and_seed_not_on_its_batch(generator, batch):
    whole, again = generator.sample(LABELS, SEEDS), generator.sample(LABELS.flip(0), SEEDS.flip(0), batch=batch)
    for level, other in zip(whole.maps, again.maps, strict=True):
        torch.testing.assert_close(other.flip(0), level)
    assert (again.pixels.flip(0).int() - whole.pixels.int()).abs().max() <= 1


def test_other_seeds_and_labels_give_other_codes(generator):
    first, other_seed = generator.sample(LABELS, SEEDS), generator.sample(LABELS, SEEDS + 1)
    other_label = generator.sample((LABELS + 1) % 3, SEEDS)
    for other in (other_seed, other_label):
        assert not torch.equal(other.maps[1], first.maps[1])


def test_pixels_and_probability_follow_from_the_codes(generator):
    samples = generator.sample(LABELS, SEEDS)
    pixels = to_pixels(generator.tokenizer.decode(samples.maps))
    scores = generator.classifier(to_images(pixels)).softmax(1)
    torch.testing.assert_close(samples.pixels, pixels)
    torch.testing.assert_close(samples.probability, scores[torch.arange(5), LABELS])


def test_the_lower_level_is_drawn_given_the_upper(generator):
    cold = generator.sample(LABELS, SEEDS, sampling=COLD)  # always the likeliest code: one forward pass confirms it
    for level, prior in enumerate(generator.priors):
        logits = prior(cold.maps[level], LABELS, cold.maps[:level])
        torch.testing.assert_close(logits.argmax(-1), cold.maps[level])


def real_images():
    return torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_resampling_keeps_the_upper_levels_of_real_images(generator):
    maps = generator.tokenizer.encode(real_images())
    half = generator.resample(real_images(), LABELS, SEEDS, kept_levels=1, batch=2)
    assert torch.equal(half.maps[0], maps[0]) and not torch.equal(half.maps[1], maps[1])
    noise_free = generator.sample(LABELS, SEEDS, sampling=COLD, given=maps[:1])
    assert torch.equal(generator.priors[1](noise_free.maps[1], LABELS, maps[:1]).argmax(-1), noise_free.maps[1])
    whole = generator.resample(real_images(), LABELS, SEEDS, kept_levels=2)
    assert torch.equal(whole.pixels, to_pixels(generator.tokenizer.decode(maps)))


def test_completing_keeps_the_codes_whose_pixels_are_all_known(generator):
    known = torch.zeros(16, 16, dtype=torch.bool)
    known[:9] = True  # ends one pixel row inside the next cells, whose codes are therefore not known
    maps, samples = (
        generator.tokenizer.encode(real_images()),
        generator.complete(real_images(), LABELS, SEEDS, known_pixels=known),
    )
    for level, (drawn, real) in enumerate(zip(samples.maps, maps, strict=True)):
        half = real.shape[1] // 2
        assert torch.equal(drawn[:, :half], real[:, :half])
        assert not torch.equal(drawn[:, half:], real[:, half:])
        given = real.clone()
        given[:, half:] = -1
        above = samples.maps[:level]
        expected = Sampler(generator.priors[level], 5).sample(LABELS, above, SEEDS, given=given)
        assert torch.equal(drawn, expected)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("resample", {"kept_levels": 0}, r"kept_levels must lie in 1 \.\. 2, got 0"),
        ("resample", {"kept_levels": 3}, r"kept_levels must lie in 1 \.\. 2, got 3"),
        ("resample", {"images": torch.zeros(5, 1, 32, 32)}, "images must be 16x16, which the priors were fitted to"),
        ("resample", {"labels": LABELS[:2]}, r"one label per image \(5\), got 2"),
        ("resample", {"images": real_images() * torch.nan}, "images must be finite"),
        (
            "complete",
            {"known_pixels": torch.ones(16, 16)},
            r"known_pixels must be bool \(16, 16\) as the images are, got torch.float32",
        ),
        ("complete", {"known_pixels": torch.ones(8, 16) > 0}, r"got torch.bool \(8, 16\)"),
    ],
)
def test_bad_arguments_of_resample_and_complete_are_refused(generator, method, change, message):
    defaults = {"resample": {"kept_levels": 1}, "complete": {"known_pixels": torch.ones(16, 16) > 0}}[method]
    with pytest.raises(ValueError, match=message):
        getattr(generator, method)(**{"images": real_images(), "labels": LABELS, "seeds": SEEDS, **defaults, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + 1}, r"labels must lie in 0 \.\. 2, got 1 \.\. 3"),
        ({"seeds": SEEDS[:2]}, "one seed per label, got 5 labels, 2 seeds"),
        ({"sampling": SamplingConfig(guidance=2.0)}, "knows 'no class', fitted with label_dropout above 0, got 0"),
        ({"given": [LABELS] * 3}, r"at most one code map per level \(2\), got 3"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"labels": LABELS[:0], "seeds": SEEDS[:0]}, "at least one label"),
    ],
)
def test_bad_arguments_of_sample_are_refused(generator, change, message):
    given = {"labels": LABELS, "seeds": SEEDS, **change}
    with pytest.raises(ValueError, match=message):
        generator.sample(given.pop("labels"), given.pop("seeds"), **given)


def test_parts_that_do_not_match_are_refused(generator):
    tokenizer, (top, bottom), classifier = generator.tokenizer, generator.priors, generator.classifier
    with pytest.raises(ValueError, match=r"one prior per level \(2\), got 1"):
        Generator(tokenizer, [top], classifier, generator.classes)
    with pytest.raises(ValueError, match="prior of level 'top' must have 8 codes below"):
        Generator(tokenizer, [bottom, top], classifier, generator.classes)
    with pytest.raises(ValueError, match="the classifier must have 2 classes"):
        Generator(tokenizer, [top, bottom], classifier, ["one", "two"])
