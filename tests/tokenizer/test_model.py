"""The complete tokenizer in one process."""

import pytest
import torch

from components.config import TrainingConfig
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.model import Tokenizer

NAMES = ("top", "middle", "low")


def tokenizer_config(levels=2, strides=(16, 8, 4, 2), **changes):
    chosen = strides[len(strides) - levels :]
    settings = dict(hidden=8, residual_hidden=4, residual_layers=1, training=TrainingConfig(updates=1, batch_size=1))
    return VQVAEConfig(
        levels=tuple(
            LevelConfig(name=name, stride=stride, codebook_size=8 + index, code_width=3 + index)
            for index, (name, stride) in enumerate(zip((*NAMES[: levels - 1], "bottom"), chosen, strict=True))
        ),
        **(settings | changes),
    )


def make_tokenizer(levels=2, channels=1, **changes):
    """A tokenizer with initialised codebooks, in evaluation mode."""
    torch.manual_seed(0)
    settings = tokenizer_config(levels, **changes)
    model = Tokenizer(settings, channels=channels, fitting=settings)
    model(random_images(3, channels))  # initialises the codebooks
    return model.eval()


def random_images(n=2, channels=1, height=16, width=32, seed=1):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("levels, channels", [(1, 1), (1, 3), (2, 1), (3, 3), (4, 1)])
def test_shapes_for_any_number_of_levels(levels, channels):
    model, images = make_tokenizer(levels, channels), random_images(2, channels)
    strides = [level.stride for level in model.architecture.levels]
    maps = model.encode(images)
    assert [tuple(codes.shape) for codes in maps] == [(2, 16 // stride, 32 // stride) for stride in strides]
    assert all(codes.dtype == torch.int64 for codes in maps)
    assert model.decode(maps).shape == images.shape == model(images).reconstruction.shape
    assert model.map_shapes(64) == tuple((64 // stride, 64 // stride) for stride in strides)


def test_adjacent_strides_may_differ_by_several_factors_of_two():
    model = make_tokenizer(2, strides=(16, 2))
    assert [tuple(codes.shape[1:]) for codes in model.encode(random_images())] == [(1, 2), (8, 16)]
    assert model.decode(model.encode(random_images())).shape == random_images().shape


@pytest.mark.parametrize("strides, message", [((8, 8), "must fall"), ((4, 8), "must fall"), ((12, 4), "power of two")])
def test_impossible_strides_are_refused(strides, message):
    with pytest.raises(ValueError, match=message):
        tokenizer_config(2, strides)


def test_forward_encode_and_decode_agree():
    model, images = make_tokenizer(3), random_images()
    output = model(images)
    maps = model.encode(images)
    assert all(torch.equal(a, b) for a, b in zip(maps, output.codes, strict=True))
    assert torch.equal(model.decode(maps), output.reconstruction.clamp(-1, 1))


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_each_lower_level_depends_on_the_vectors_above(levels):
    model = make_tokenizer(levels)
    *upper, lower = [features.detach() for features in model._features(random_images())]
    above = torch.randn(2, model.architecture.levels[-2].code_width, *upper[-1].shape[2:], requires_grad=True)
    model.lower[-1](lower, above).sum().backward()
    assert (above.grad != 0).all()


def test_the_decoder_depends_on_every_level():
    model = make_tokenizer(4)
    vectors = [torch.randn(1, 3 + i, 2**i, 2**i, requires_grad=True) for i in range(4)]
    model.decoder(vectors).square().sum().backward()
    assert all((level.grad != 0).all() for level in vectors)


def test_commitment_is_the_sum_of_the_distances_of_all_levels():
    model, images = make_tokenizer(2), random_images()
    distances = []
    for quantizer in model.quantizers:
        quantizer.register_forward_hook(lambda module, inputs, output: distances.append(output.distance))
    assert torch.equal(model(images).commitment, torch.stack(distances).sum()) and len(distances) == 2


def test_commitment_has_gradients_only_in_the_encoder():
    model = make_tokenizer(2)
    model(random_images()).commitment.backward()
    assert all(p.grad is None for p in model.decoder.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.encoders.parameters())


def test_decode_prefix_fills_missing_levels_with_the_mean_vector():
    model = make_tokenizer(3)
    maps = model.encode(random_images())
    assert torch.equal(model.decode_prefix(maps), model.decode(maps))
    missing = model.quantizers[2]
    weights = missing.counts.double() / (1 - 0.99 ** (missing.updates - missing.born + 1).double())
    mean = (weights[:, None] * missing.codebook.double()).sum(0) / weights.sum()
    missing.codebook[5] = mean.float()
    filled = (*maps[:2], torch.full_like(maps[2], 5))
    expected = model.decode(filled)
    missing.codebook[5] = make_tokenizer(3).quantizers[2].codebook[5]
    torch.testing.assert_close(model.decode_prefix(maps[:2]), expected, rtol=1e-4, atol=1e-5)
    assert model.decode_prefix(maps[:1]).shape == random_images().shape


def test_prefix_share_decodes_that_fraction_of_training_images_from_a_prefix():
    model = make_tokenizer(2, prefix_share=0.3)
    model.train()
    for quantizer in model.quantizers:
        quantizer.eval()  # fixed codebooks, so that the forward pass and the decoding below use the same vectors
    output, images = model(random_images(300)), random_images(300)
    prefix, whole = model.decode_prefix(output.codes[:1]), model.decode(output.codes)
    got = output.reconstruction.clamp(-1, 1)
    cut = torch.isclose(got, prefix, atol=1e-5).flatten(1).all(1)
    assert 60 < int(cut.sum()) < 120
    torch.testing.assert_close(got[~cut], whole[~cut], rtol=1e-4, atol=1e-5)
    assert torch.equal(model.eval()(images).reconstruction.clamp(-1, 1), whole)


def test_only_a_training_forward_changes_the_codebooks():
    model = make_tokenizer()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(random_images()), model.encode(random_images()), model.train().encode(random_images())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model(random_images())
    assert not torch.equal(model.quantizers[1].codebook, before["quantizers.1.codebook"])


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(0, 1, 16, 16), "at least one image"),
        (torch.zeros(1, 3, 16, 16), r"float \(n, 1, height, width\)"),
        (torch.zeros(1, 16, 16), r"float \(n, 1, height, width\)"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), "to_images"),
        (torch.zeros(1, 1, 16, 18), "multiples of 4"),
        (torch.full((1, 1, 16, 16), float("nan")), "256 NaN or infinite"),
        (torch.tensor([float("inf")]).expand(1, 1, 16, 16), "finite"),
    ],
)
def test_bad_images_are_refused(images, message):
    model = make_tokenizer()
    for method in (model, model.encode):
        with pytest.raises(ValueError, match=message):
            method(images)
    assert int(model.quantizers[0].updates) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda top, bottom: (top,), "one code map per level"),
        (lambda top, bottom: (top, bottom, bottom), "one code map per level"),
        (lambda top, bottom: (top, bottom[:, :-1]), r"'bottom' must be \(2, 8, 16\)"),
        (lambda top, bottom: (top, bottom[:1]), r"'bottom' must be \(2, 8, 16\)"),
        (lambda top, bottom: (top[:0], bottom[:0]), "empty"),
        (lambda top, bottom: (top.int(), bottom), "int64"),
        (lambda top, bottom: (top, bottom + 9), "codes from 0 to 8, got 9"),
        (lambda top, bottom: (top - 8, bottom), "codes from 0 to 7"),
    ],
)
def test_bad_code_maps_are_refused(change, message):
    model = make_tokenizer()
    top, bottom = torch.zeros(2, 4, 8, dtype=torch.int64), torch.zeros(2, 8, 16, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        model.decode(change(top, bottom))


def test_bfloat16_autocast_is_close_to_float32():
    model, images = make_tokenizer(3), random_images()
    maps = model.encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        near, decoded = model.encode(images), model.decode(maps)
    agreement = torch.cat([(a == b).flatten() for a, b in zip(near, maps, strict=True)]).float().mean()
    assert agreement > 0.95
    torch.testing.assert_close(decoded.float(), model.decode(maps), rtol=0.02, atol=0.02)


def test_channels_last_is_close_to_contiguous():
    model, images = make_tokenizer(3, channels=3), random_images(channels=3)
    maps, decoded = model.encode(images), model.decode(model.encode(images))
    model = model.to(memory_format=torch.channels_last)
    again = model.encode(images.to(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(again, maps, strict=True))
    torch.testing.assert_close(model.decode(maps), decoded, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_encode_and_decode_are_close_to_eager():
    model, images = make_tokenizer(2), random_images()
    maps, decoded = model.encode(images), model.decode(model.encode(images))
    encoded = torch.compile(model.encode, fullgraph=True)(images)
    assert all(torch.equal(a, b) for a, b in zip(encoded, maps, strict=True))
    torch.testing.assert_close(torch.compile(model.decode, fullgraph=True)(maps), decoded, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_training_updates_the_codebooks_as_eager_does():
    eager, compiled = make_tokenizer(1).train(), make_tokenizer(1).train()
    compiled_forward = torch.compile(compiled)
    for seed in range(3):
        expected, got = eager(random_images(seed=seed)), compiled_forward(random_images(seed=seed))
    torch.testing.assert_close(got.reconstruction, expected.reconstruction, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.quantizers[0].codebook, eager.quantizers[0].codebook, rtol=1e-4, atol=1e-5)
