"""The look at the images that `validate` and `plan` take: counts, a few opened files, faults before anything runs."""

import numpy as np
import pytest
from PIL import Image

from components.errors import ConfigError, ExitCode
from components.images.config import ImagesConfig
from components.store import objects
from pipeline import cli
from pipeline.verbs.look import OPENED_IMAGES, look_at_images


@pytest.fixture
def photos(tmp_path):
    """photos(names): a folder with an image file of each name."""
    root = tmp_path / "photos"

    def make(names):
        for number, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name)
        return root

    return make


def config_of(root, **changes):
    return ImagesConfig(**{"source": "folder", "uri": str(root), "image_size": 16, "held_out": 0.3, **changes})


def run(verb, config_file, root, *words, source="folder"):
    """Exit code of a verb on the tiny config with these images."""
    settings = [f"images.source={source}", f"images.uri={root}", "images.held_out=0.3", "images.upscale=false"]
    return cli.main([verb, config_file, *words, *(word for each in settings for word in ("--set", each))])


FLAT = [f"{number:02}.png" for number in range(40)]
TWO_CLASSES = [f"{name}/{number:02}.png" for name, count in (("cat", 30), ("dog", 5)) for number in range(count)]


def test_images_are_counted_by_class_and_only_a_few_are_opened(photos, monkeypatch):
    root = photos(TWO_CLASSES)
    (root / "cat" / "notes.txt").write_text("no image")
    read = []
    monkeypatch.setattr(objects, "read_bytes", lambda uri, read_=objects.read_bytes: read.append(uri) or read_(uri))
    look = look_at_images(config_of(root), "mine")
    assert (look.images, look.ignored, look.class_sizes) == (35, 1, (("cat", 30), ("dog", 5)))
    assert look.opened == len(read) == len(set(read)) == OPENED_IMAGES
    first, classes, opened = look.describe()
    assert first == f"35 images in {root}, 1 other files passed over" and opened == "all 8 that were opened can be used"
    assert classes == "2 classes of 5 to 30 images: cat 30, dog 5"


def test_images_without_classes_and_of_one_class_are_told(photos):
    look = look_at_images(config_of(photos(FLAT)), "mine")
    assert look.class_sizes == () and list(look.describe())[1].startswith("no labels: the model has no classes")


def test_one_class_is_told(photos):
    look = look_at_images(config_of(photos([f"it/{name}" for name in FLAT])), "mine")
    assert list(look.describe())[1].startswith("one class (it 40): no sample is rejected")


def test_unusable_images_among_the_opened_are_told(photos):
    root = photos(FLAT)
    (root / FLAT[0]).write_text("oops")
    look = look_at_images(config_of(root), "mine")
    assert list(look.describe())[2].startswith(
        "1 of 8 that were opened cannot be used, for example 00.png: not_an_image"
    )


def test_images_that_are_all_unusable_are_a_fault(photos):
    with pytest.raises(
        ConfigError, match=r"none of 8 that were opened, for example 00\.png: too_small: .*upscale is on"
    ):
        look_at_images(config_of(photos(FLAT), image_size=64), "mine")


def test_bundled_images_are_not_looked_at():
    assert look_at_images(ImagesConfig(source="digits", image_size=16), "mine") is None


def test_validate_shows_the_look(photos, config_file, capsys):
    assert run("validate", config_file, photos(FLAT)) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "40 images in" in out and "no labels" in out and "is valid" in out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/cat/1.png", "val/cat/2.png"], "found only train, val, which are splits"),
        (["1.png", "cat/2.png"], "move each image into the folder of its class"),
        ([], "found no file under"),
        (["1.png"], "every split must hold images|both splits must hold images"),
    ],
)
def test_images_that_no_model_can_be_fitted_to_are_not_valid(photos, tmp_path, config_file, capsys, names, message):
    photos(names)
    for verb in ("validate", "plan"):
        assert run(verb, config_file, tmp_path / "photos") == ExitCode.USAGE
        output = capsys.readouterr()
        assert any(part in output.err for part in message.split("|")) and "is valid" not in output.out
    assert not (tmp_path / "state").exists() and not (tmp_path / "artifacts").exists()


def test_a_plan_shows_the_look_and_counts_models_for_its_classes(photos, config_file, capsys):
    assert run("plan", config_file, photos(FLAT)) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "Images\n40 images in" in out and "\nwithout classes\n" in out
    assert not any(line.startswith("classifier ") and line.split()[1].isdigit() for line in out.splitlines()[:60])


def test_offline_nothing_is_looked_at(config_file, tmp_path, capsys):
    for verb in ("validate", "plan"):
        assert run(verb, config_file, tmp_path / "gone", "--offline") == ExitCode.DONE
    assert "Images\n" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_named(config_file, capsys, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert run("validate", config_file, "s3://bucket/photos") == ExitCode.UNREACHABLE
