"""Faults outside the code: each gives a clear error and its exit code, and no finished work is lost."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.endtoend.conftest import ROOT, Place, environment, ray_head, run_command

pytestmark = pytest.mark.slow

VERBS = (
    *("plan", "validate", "run", "status", "sample", "reconstruct"),
    *("lineage", "ui", "doctor", "encode", "verify", "show"),
)


def folder_of_images(root: Path, bad: int) -> Path:
    """Three classes of twenty small pictures; `bad` files of the first class hold something else."""
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
    (root / "stripe" / "notes.txt").write_text("not an image file")
    return root


def test_a_folder_with_corrupt_and_odd_files_is_used_without_them_unless_they_are_too_many(tmp_path):
    images = folder_of_images(tmp_path / "pictures", bad=3)
    settings = [
        "images.source=folder",
        f"images.uri={images}",
        "images.channels=3",
        "images.held_out=0.2",
        "evaluation.samples=12",
        "name=shapes",
    ]
    result = Place(tmp_path).run_without_ray(*settings, "images.max_rejects=0.01")
    assert result.returncode == 1 and "at most 1.00% of the images may be unusable, got 3 of 62" in result.stderr
    assert "not_an_image" in result.stderr and "Traceback" not in result.stderr
    result = Place(tmp_path).run_without_ray(*settings, "images.max_rejects=0.1")
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "3 of 62 files cannot be used" in result.stdout


@pytest.mark.ray
def test_a_cluster_that_is_too_small_is_refused_with_the_number_of_cpus_needed(tmp_path):
    with ray_head(cpus=1, folder=tmp_path) as cluster:
        result = Place(tmp_path).run(timeout=120, **cluster.environment)
    assert result.returncode == 4, result.stdout + result.stderr
    assert "tokenizer needs 2 CPUs" in result.stderr and "the cluster has 1 CPUs" in result.stderr


def test_a_full_disk_is_named_and_nothing_is_committed(tmp_path):
    """On a file system of 300 kB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    run = shlex.join(run_command(f"artifact_root={disk}/artifacts"))
    script = f"{mount} && {run}; code=$?; find {disk} -name '000001.json' -path '*/manifests/*'; exit $code"
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
    assert "manifests/" not in result.stdout


@pytest.mark.parametrize(
    ("overrides", "variables", "message"),
    [
        ((), {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
        (("artifact_root=s3://bucket/x",), {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot access s3://bucket/x"),
        ((), {"RAY_ADDRESS": "127.0.0.1:9"}, "no Ray cluster accepts us at RAY_ADDRESS=127.0.0.1:9"),
    ],
    ids=["tracking server", "bucket", "cluster"],
)
def test_an_unreachable_service_is_named(tmp_path, overrides, variables, message):
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
    result = Place(tmp_path).run(*overrides, timeout=120, **keys, **variables)
    assert result.returncode == 4, result.stdout + result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr and "hidden" not in result.stderr


def test_all_wrong_settings_are_reported_before_anything_starts(tmp_path):
    result = Place(tmp_path).run("vqvae.beta=-1", "priors.top.layer=3", "images.image_size=30", "seed=many")
    assert result.returncode == 2 and not (tmp_path / "runs").exists()
    for part in ("vqvae: beta must not be negative", "priors.top.layer", "seed"):
        assert part in result.stderr


def test_every_verb_explains_itself():
    for verb in VERBS:
        result = subprocess.run(
            [sys.executable, "-m", "pipeline", verb, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "exit codes:" in result.stdout
