"""Ancestral sampling: top first, decoded and scored, each image from its own label and seed."""

import pytest
import torch

from components.generator.ancestral import Generator
from components.tokenizer.model import to_images, to_pixels

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
    cold = generator.sample(LABELS, SEEDS, temperature=1e-4)  # the likeliest code everywhere, read off one forward pass
    for level, prior in enumerate(generator.priors):
        logits = prior(cold.maps[level], LABELS, cold.maps[:level])
        torch.testing.assert_close(logits.argmax(-1), cold.maps[level])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + 1}, r"labels must lie in 0 \.\. 2, got 1 \.\. 3"),
        ({"seeds": SEEDS[:2]}, "one an image, got 5 and 2"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"labels": LABELS[:0], "seeds": SEEDS[:0]}, "at least one label"),
    ],
)
def test_what_cannot_be_sampled_is_refused(generator, change, message):
    given = {"labels": LABELS, "seeds": SEEDS, **change}
    with pytest.raises(ValueError, match=message):
        generator.sample(given.pop("labels"), given.pop("seeds"), **given)


def test_parts_that_do_not_belong_together_are_refused(generator):
    tokenizer, (top, bottom), classifier = generator.tokenizer, generator.priors, generator.classifier
    with pytest.raises(ValueError, match=r"one prior a level \(2\), got 1"):
        Generator(tokenizer, [top], classifier, generator.classes)
    with pytest.raises(ValueError, match="prior of level 'top' must know 8 codes below"):
        Generator(tokenizer, [bottom, top], classifier, generator.classes)
    with pytest.raises(ValueError, match="the classifier must know 2 classes"):
        Generator(tokenizer, [top, bottom], classifier, ["one", "two"])
