"""What goes wrong outside the code: each gets a clear error, an exit code, and loses nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.tiny import OVERRIDES
from tests.endtoend.conftest import ROOT, Place, environment, ray_head

pytestmark = pytest.mark.slow


def folder_of_images(root: Path, bad: int) -> Path:
    """Three classes of twenty small pictures each, `bad` of all not pictures at all."""
    random = np.random.default_rng(0)
    for label in ("circle", "cross", "stripe"):
        (root / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, (40, 32 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    for number in range(bad):
        path = root / "circle" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:40] if number % 2 else b"not a picture")
    Image.new("RGBA", (50, 40), (200, 10, 10, 128)).save(root / "cross" / "alpha.png")
    Image.new("CMYK", (40, 40)).save(root / "stripe" / "cmyk.jpg")
    (root / "stripe" / "notes.txt").write_text("no picture, no matter")
    return root


@pytest.mark.ray
def test_a_folder_with_corrupt_and_odd_files_runs_through_and_names_what_it_left_out(tmp_path):
    images = folder_of_images(tmp_path / "pictures", bad=3)
    place = Place(tmp_path)
    result = place.run(
        "images.source=folder",
        f"images.uri={images}",
        "images.channels=3",
        "images.max_rejects=0.1",
        "name=shapes",
        "images.held_out=0.2",
        "evaluation.samples_per_class=4",
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "3 of 62 files cannot be used" in result.stdout
    again = place.run(
        "images.source=folder",
        f"images.uri={images}",
        "images.channels=3",
        "images.max_rejects=0.01",
        "name=shapes",
        "images.held_out=0.2",
        "evaluation.samples_per_class=4",
    )
    assert again.returncode == 1 and "at most 1.00% of the images may be unusable, got 3 of 62" in again.stderr
    assert "not_an_image" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.ray
def test_a_cluster_that_is_too_small_is_told_with_the_number_that_is_needed(tmp_path):
    with ray_head(cpus=1, folder=tmp_path) as cluster:
        result = Place(tmp_path).run(timeout=120, **cluster.environment)
    assert result.returncode == 4, result.stdout + result.stderr
    assert "tokenizer needs 2 CPUs" in result.stderr and "the cluster has 1 CPUs" in result.stderr


def test_a_full_disk_is_named_and_nothing_half_written_counts(tmp_path):
    """On a file system of 300 kB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        "digits",
        *(word for one in (*OVERRIDES, f"artifact_root={disk}/artifacts") for word in ("--set", one)),
    ]
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    script = f"{mount} && {' '.join(map(repr, run))}; code=$?; find {disk} -name manifest.json; exit $code"
    result = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 4, result.stdout + result.stderr
    assert "no space left on the device" in result.stderr and "set artifact_root to another disk" in result.stderr
    assert "manifest.json" not in result.stdout


@pytest.mark.parametrize(
    ("overrides", "variables", "said"),
    [
        ((), {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
        (("artifact_root=s3://bucket/x",), {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot access s3://bucket/x"),
        ((), {"RAY_ADDRESS": "127.0.0.1:9"}, "no Ray cluster accepts us at RAY_ADDRESS=127.0.0.1:9"),
    ],
    ids=["tracking server", "bucket", "cluster"],
)
def test_what_cannot_be_reached_is_told_with_what_to_do(tmp_path, overrides, variables, said):
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
    result = Place(tmp_path).run(*overrides, timeout=120, **keys, **variables)
    assert result.returncode == 4, result.stdout + result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr and "hidden" not in result.stderr


def test_wrong_settings_are_all_told_at_once_before_anything_starts(tmp_path):
    result = Place(tmp_path).run("vqvae.beta=-1", "priors.top.layer=3", "images.image_size=30", "seed=many")
    assert result.returncode == 2 and not (tmp_path / "runs").exists()
    for part in ("vqvae: beta must not be negative", "priors.top.layer", "seed"):
        assert part in result.stderr


def test_every_verb_explains_itself():
    for verb in (
        "plan",
        "validate",
        "run",
        "status",
        "sample",
        "reconstruct",
        "lineage",
        "ui",
        "doctor",
        "encode",
        "verify",
        "show",
    ):
        result = subprocess.run(
            [sys.executable, "-m", "pipeline", verb, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "exit codes:" in result.stdout
