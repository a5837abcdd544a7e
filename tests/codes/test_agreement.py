"""How many bfloat16 codes are the float32 tokenizer's, compared with encoding every image of the dataset again."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.codes.agreement import float32_agreement
from components.codes.dataset import read_dataset
from components.codes.facts import CodesFacts
from components.images.pixels import PixelReader
from components.images.snapshot import open_snapshot, read_snapshot
from components.images.split import HELD_OUT
from components.images.tensors import to_images
from components.tokenizer.stored import load_tokenizer
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import SMALL, commit_images, dataset_rows, run_encode_job

BFLOAT16 = replace(SMALL, precision="bfloat16")


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_pictures(tmp_path / "pictures", range(40))
    return tmp_path / "pictures"


@pytest.fixture
def snapshot(pictures, tmp_path) -> str:
    """Every image held out but the one that must be trained on: 40 images in 5 shards are all compared."""
    return commit_images(str(pictures), str(tmp_path / "snapshot"), held_out=0.999)


def expected(folder, snapshot, tokenizer):
    """Fraction of equal codes by level, image by image."""
    model, equal = load_tokenizer(tokenizer.folder), {"top": [], "bottom": []}
    rows = read_snapshot(snapshot).split(HELD_OUT)
    pixels = PixelReader(read_snapshot(snapshot).pixels, 0).read(rows)
    stored = {row["key"]: row for row in dataset_rows(folder)}
    for key, image in zip(rows["key"].to_pylist(), pixels, strict=True):
        with torch.no_grad():
            maps = model.encode(to_images(torch.from_numpy(image[None])))
        for level, codes in zip(equal, maps, strict=True):
            equal[level] += [a == b for a, b in zip(codes.flatten().tolist(), stored[key][level], strict=True)]
    return {level: pytest.approx(np.mean(values)) for level, values in equal.items()}


def test_the_facts_of_bfloat16_codes_say_how_many_are_the_float32_tokenizer_s(fitted, snapshot, tmp_path):
    folder = str(tmp_path / "codes")
    facts = CodesFacts.read(run_encode_job(folder, snapshot, fitted, None, BFLOAT16).facts.record())
    assert facts.float32_agreement == expected(folder, snapshot, fitted)
    assert all(0.5 < fraction <= 1 for fraction in facts.float32_agreement.values())
    assert min(facts.float32_agreement.values()) < 1  # this tokenizer's vectors are close to each other
    assert read_dataset(folder).facts.float32_agreement == facts.float32_agreement
    assert "equal to the served float32 tokenizer's: top " in facts.headline()


def test_codes_of_another_tokenizer_hardly_agree(fitted, snapshot, tmp_path):
    run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)
    dataset = read_dataset(str(tmp_path / "codes"))
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    arguments = (dataset.folder, dataset.schema, dataset.shards, open_snapshot(snapshot))
    assert set(float32_agreement(*arguments, fitted.folder).values()) == {1.0}
    found = float32_agreement(*arguments, other.folder)
    assert found == expected(dataset.folder, snapshot, other) and max(found.values()) < 0.5


def test_images_that_are_gone_are_left_out(fitted, snapshot, pictures, tmp_path):
    run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)
    dataset = read_dataset(str(tmp_path / "codes"))
    for path in sorted(pictures.rglob("*.png"))[5:]:
        path.unlink()
    arguments = (dataset.folder, dataset.schema, dataset.shards, open_snapshot(snapshot), fitted.folder)
    assert set(float32_agreement(*arguments).values()) == {1.0}
    for path in pictures.rglob("*.png"):
        path.unlink()
    assert float32_agreement(*arguments) == {}


def test_show_says_how_the_codes_were_computed(fitted, snapshot, tmp_path, capsys):
    from pipeline.verbs.codes import show_datasets

    for name, config in (("float32", SMALL), ("bfloat16", BFLOAT16)):
        folder = str(tmp_path / name)
        run_encode_job(folder, snapshot, fitted, None, config)
        assert show_datasets(argparse.Namespace(folder=folder)) == 0
        shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("precision"))
        assert shown.split()[1].strip(",") == name
        assert ("equal to the served float32 tokenizer's: top " in shown) == (name == "bfloat16")
