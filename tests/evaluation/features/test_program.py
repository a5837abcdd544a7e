"""An extractor's preprocessing beside Pillow's and beside formulas, and what a program must give."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.exported import export
from components.evaluation.features.program import DistanceProgram, FeatureProgram


class Passing(nn.Module):
    """Its features are its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


class Means(nn.Module):
    """Features and logits."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = images.mean(dim=(2, 3))
        return features, features * 2


class Difference(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture(scope="module")
def passing():
    return export(Passing())


@pytest.fixture(scope="module")
def photo():
    """A crop of a photo, uint8 (1, 96, 96, 3)."""
    return torch.from_numpy(load_sample_images().images[0][100:196, 200:296].copy())[None]


def extractor(data: bytes, **settings) -> FeatureProgram:
    return FeatureProgram(data, FeaturesConfig(name="own", program="own.pt2", **settings))


def test_pixels_reach_the_program_unchanged_by_default(passing, photo):
    features = extractor(passing)(photo).features
    assert torch.equal(features.reshape(3, 96, 96), photo[0].permute(2, 0, 1).float())


def test_black_and_white_become_the_range_s_ends(passing):
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 4, 4, 3)
    features = extractor(passing, value_range=(-1.0, 1.0))(pixels).features
    torch.testing.assert_close(features, torch.tensor([[-1.0], [1.0]]).expand(2, 48))


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 150])
def test_a_resize_is_pillow_s_within_its_rounding(passing, photo, resize, size):
    program = extractor(passing, image_size=size, resize=resize)
    got = program.prepare(photo)[0].permute(1, 2, 0).numpy()
    wanted = np.asarray(Image.fromarray(photo[0].numpy()).resize((size, size), Image.Resampling[resize.upper()]))
    assert np.abs(got - wanted).mean() < 0.5  # Pillow rounds to whole numbers, and clips, after each axis
    assert np.abs(got - wanted).max() < 8


def test_without_antialiasing_pixels_are_skipped(passing, photo):
    stripes = photo.clone()
    stripes[:, :, ::2], stripes[:, :, 1::2] = 0, 255
    plain = extractor(passing, image_size=24, resize="bilinear", antialias=False).prepare(stripes)
    smooth = extractor(passing, image_size=24, resize="bilinear").prepare(stripes)
    assert (smooth - 127.5).abs().max() < 40 and plain.std() < 1  # one phase of the stripes against their mean


def test_grey_images_are_repeated_for_three_channels(passing, photo):
    features = extractor(passing)(photo[..., :1]).features.reshape(3, -1)
    assert torch.equal(features[0], features[1]) and torch.equal(features[0], features[2])
    with pytest.raises(ValueError, match="takes 1 channels, got 3: set its channels"):
        extractor(passing, channels=1)(photo)


def test_logits_are_given_where_the_program_has_them(photo):
    program = extractor(export(Means()))
    assert program.check(96, 3) == 3
    features, logits = program(photo)
    torch.testing.assert_close(features, photo.float().mean(dim=(1, 2)))
    torch.testing.assert_close(logits, 2 * features)
    assert extractor(export(Passing()))(photo).logits is None


class Flat(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


class Divided(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / images.sum()


@pytest.mark.parametrize(
    "model, message",
    [
        (Flat(), r"must give features \(1, f\), or \(features, logits\).*got \[\(1,\)\]: return them"),
        (Divided(), r"must give finite numbers, got NaN or infinity: is its range 0 \.\. 255"),
    ],
)
def test_a_program_without_valid_features_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        extractor(export(model)).check(16, 3)


def test_a_program_for_one_batch_size_or_another_image_size_is_refused_with_what_to_do():
    file = io.BytesIO()
    torch.export.save(torch.export.export(Passing(), (torch.zeros(3, 3, 8, 8),)), file)
    for side in (8, 16):
        with pytest.raises(ValueError, match=r"but failed: .*set image_size and channels .*dynamic first dimension"):
            extractor(file.getvalue()).check(side, 3)


def test_a_distance_program_gives_one_number_per_pair(photo):
    program = DistanceProgram(export(Difference(), images=2))
    pair = torch.cat([photo, 255 - photo])
    wanted = (2 * pair.float() - 255).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(program(pair, pair.flip(0)), wanted)
    program.check(16, 1)
    with pytest.raises(ValueError, match="must take two sets of 1 images of 16 pixels, but failed"):
        DistanceProgram(export(Flat())).check(16, 3)
