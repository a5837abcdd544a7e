"""The images step sees each run's images once, and never what the project itself wrote."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.images.facts import SnapshotFacts
from components.images.snapshot import read_snapshot
from components.images.sources import registry
from pipeline.config_files import parse_config
from pipeline.dag import dag_of, outputs_of
from pipeline.memo import Memo
from tests.pipeline import conftest


def open_memo(config) -> Memo:
    """A memo whose steps work in this process."""
    memo = conftest.open_memo(config)
    return Memo(config, memo.tracker, memo.progress)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(list(path.parent.iterdir()))).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder with two classes of 12 images."""
    for name in ("cat", "dog"):
        for number in range(12):
            photo(tmp_path / "set" / name / f"{number:02}.png")
    return tmp_path / "set"


@pytest.fixture
def config_of(config):
    """config_of(uri, **settings): the tiny config with images of a folder."""

    def make(uri, **settings):
        from components.config import to_plain

        tree = to_plain(config)
        images = {"source": "folder", "uri": str(uri), "image_size": 16, "channels": 1, "held_out": 0.3}
        return parse_config({**tree, "images": images, **settings}, "a test")

    return make


def test_the_snapshot_is_that_of_the_listing_in_the_fingerprint(config_of, photos, monkeypatch):
    listings = []
    monkeypatch.setattr(registry, "list_images", lambda *words: listings.append(words) or list_images(*words))
    memo = open_memo(config_of(photos))
    before = memo.fingerprint(memo.steps["images"], {})
    photo(photos / "cat" / "new.png")  # a live folder: it changes between listing and work
    result = memo.get_or_run(memo.steps["images"], {})
    facts = result.artifact.read(SnapshotFacts)
    assert (len(listings), facts.images, result.artifact.fingerprint) == (1, 24, before)
    assert "cat/new.png" not in read_snapshot(result.artifact.uri).table["key"].to_pylist()
    again = open_memo(config_of(photos))
    assert again.get_or_run(again.steps["images"], {}).artifact.read(SnapshotFacts).images == 25


def test_a_run_below_its_images_sees_the_same_images_again(config_of, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    config = config_of(".", artifact_root="runs/artifacts", state=config_of(".").state)
    first = open_memo(config)
    made = first.get_or_run(first.steps["images"], {})
    photo(photos / "samples" / "grid.png")
    photo(photos / "reconstruction.png")
    photo(photos / "runs" / "artifacts" / "picture.png")
    second = open_memo(config)
    again = second.get_or_run(second.steps["images"], {})
    assert not again.made and again.artifact.digest == made.artifact.digest
    assert dag_of(config)["images"].observe() == dag_of(config)["images"].observe()
    shutil.rmtree(photos / "runs")
    third = open_memo(config)
    third.get_or_run(third.steps["images"], {})
    assert f"{photos}/samples is where results go: its files are not images" in capsys.readouterr().out


def test_a_class_may_be_called_samples(config_of, photos, monkeypatch):
    monkeypatch.chdir(photos)
    photo(photos / "samples" / "1.png")
    config = config_of(".")
    images = registry.list_images(config.images, "", outputs_of(config))
    assert images.classes == ("cat", "dog", "samples")


def test_images_inside_the_results_are_refused(config_of, photos):
    memo = open_memo(config_of(photos / "cat", artifact_root=str(photos)))
    with pytest.raises(
        ValueError, match=r"images\.uri must not lie where results are written, got .*/set/cat, which is in"
    ):
        memo.fingerprint(memo.steps["images"], {})


list_images = registry.list_images
