"""`sample`: from the registry and from a config, and errors for wrong arguments."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from components import progress
from components.artifacts import Artifact
from components.errors import MissingArtifact, UnknownModel, UsageError
from components.generator.facts import GeneratorFacts
from components.generator.rejection import generate_samples, sample_seeds
from components.images.tensors import to_images
from components.pictures import from_png
from pipeline.models import FoundModel
from pipeline.verbs.sample import sample_model


@pytest.mark.parametrize(
    "model", ["finished-generator", "models:/finished-generator/1", "models:/finished-generator@challenger", None]
)
def test_samples_are_those_of_the_generator(finished, generator, options, tmp_path, capsys, model):
    assert sample_model(options("sample", model=model or finished[0], classes="cat,ant", seed=5, keep=0.5)) == 0
    expected = generate_samples(generator, classes=[2, 0], count=2, seed=5, keep=0.5).pixels.numpy()
    names = ["cat-0-seed5.png", "cat-1-seed5.png", "ant-0-seed5.png", "ant-1-seed5.png"]
    pixels = np.stack([from_png((tmp_path / "out" / name).read_bytes(), 1) for name in names])
    np.testing.assert_array_equal(pixels, expected)
    printed = capsys.readouterr().out.splitlines()[1:]
    assert printed == [str(tmp_path / "out" / name) for name in ("grid.png", *names)]


def test_samples_like_an_image_keep_its_upper_codes(finished, generator, options, pictures, tmp_path):
    sample_model(options("sample", like=str(pictures / "a.png"), classes="bee"))
    with Image.open(pictures / "a.png") as image:
        size, box = (16, 16), (0, 8, 24, 32)
        real = np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))
    images = to_images(torch.from_numpy(real.copy())[None, :, :, None].expand(2, -1, -1, -1))
    labels, seeds = torch.tensor([1, 1]), sample_seeds(0, 1, 2)
    expected = generator.resample(images, labels, seeds, kept_levels=1).pixels.numpy()
    pixels = [from_png((tmp_path / "out" / f"bee-{index}-seed0.png").read_bytes(), 1) for index in range(2)]
    np.testing.assert_array_equal(np.stack(pixels), expected)


def test_like_must_name_one_image(finished, options, pictures):
    with pytest.raises(UsageError, match="--like must name one image file, found 2 readable images"):
        sample_model(options("sample", like=str(pictures)))


def test_guidance_of_a_model_without_label_dropout_is_refused(finished, options):
    with pytest.raises(UsageError, match="needs a prior that knows 'no class'"):
        sample_model(options("sample", guidance=2.0))


def test_the_progress_of_many_samples_is_shown(finished, options, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    sample_model(options("sample", count=30))
    out = capsys.readouterr().out
    assert " 71%  64/90 images, " in out and "images/s, 0:00 left" in out


@pytest.fixture
def classless(classless_folders, monkeypatch):
    """Makes `sample` find the generator without classes."""
    facts = GeneratorFacts(keep=0.5).record()
    artifact = Artifact(kind="generator", uri="", digest="", fingerprint="", run_id="", facts=facts)
    model = FoundModel("classless", classless_folders, artifact)
    monkeypatch.setattr("pipeline.verbs.sample.find_model", lambda *_: contextlib.nullcontext(model))


@pytest.mark.usefixtures("classless")
def test_a_model_without_classes_is_sampled_without_classes_and_rejection(
    classless_generator, options, tmp_path, capsys
):
    sample_model(options("sample", count=12))
    expected = generate_samples(classless_generator, classes=[0], count=12, seed=0).pixels.numpy()
    paths = [tmp_path / "out" / f"sample-{number}-seed0.png" for number in range(12)]
    np.testing.assert_array_equal(np.stack([from_png(path.read_bytes(), 1) for path in paths]), expected)
    out = capsys.readouterr().out
    assert "no classifier to reject samples by: all are kept, keep 0.5 is ignored" in out
    assert "classless: 12 images, without classes, seed 0" in out and "keep 1\n" in out


@pytest.mark.usefixtures("classless")
def test_classes_of_a_model_without_classes_are_refused(options):
    with pytest.raises(UsageError, match="must be left out: this model was fitted without classes, got 'cat'"):
        sample_model(options("sample", classes="cat"))


def test_an_unknown_class_is_reported_with_the_known_classes(finished, options):
    with pytest.raises(UsageError, match=r"classes of the model \(ant, bee, cat\), got 'cats': did you mean 'cat'\?"):
        sample_model(options("sample", classes="ant,cats"))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"keep": 0.0},
        {"keep": 1.5},
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 2.0},
        {"guidance": -1.0},
        {"seed": -1},
    ],
)
def test_a_number_out_of_range_is_reported_before_anything_is_loaded(options, changes):
    with pytest.raises(UsageError, match="must"):
        sample_model(options("sample", model="models:/not/asked", **changes))


def test_a_model_of_another_kind_is_refused(finished, options):
    with pytest.raises(UsageError, match="finished-tokenizer/1 is a tokenizer, a generator is needed"):
        sample_model(options("sample", model="finished-tokenizer"))


def test_an_unregistered_model_is_reported(finished, options):
    with pytest.raises(UnknownModel, match="no model 'other' is registered"):
        sample_model(options("sample", model="other"))


def test_a_state_folder_without_a_registry_is_reported(options, tmp_path):
    with pytest.raises(UsageError, match=r"no model is registered yet at sqlite:.* name its state by --state"):
        sample_model(options("sample", state=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_overrides_of_a_registered_model_are_refused(finished, options):
    with pytest.raises(UsageError, match="--set overrides settings of a config"):
        sample_model(options("sample", overrides=["seed=1"]))


def test_a_config_that_has_not_run_is_reported(config_file, finished, options):
    with pytest.raises(MissingArtifact, match="nothing has run yet"):
        sample_model(options("sample", model=config_file))
    with pytest.raises(MissingArtifact, match="step 'tokenizer' has no finished artifact"):
        sample_model(options("sample", model=finished[0], overrides=["vqvae.beta=0.5"]))
