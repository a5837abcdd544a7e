"""`encode`, `verify` and `show` from the command line, and what the death of a driver or a node costs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.codes.dataset import read_dataset
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import commit_images, dataset_rows, shard_write_times
from tests.endtoend.conftest import ROOT, environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = ("codes.rows_per_shard=8", "codes.rows_per_wave=160", "codes.batch_size=4", "resources.workers=2")


def command(verb: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pipeline",
        verb,
        *arguments,
        *(word for one in settings for word in ("--set", one)),
    ]


def run(folder: Path, verb: str, *arguments: str, settings: tuple[str, ...] = SETTINGS):
    line = command(verb, *arguments, settings=settings)
    return subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures, a tokenizer, and the dataset that one made of the other: codes/<digest>."""
    folder = tmp_path_factory.mktemp("encode")
    (folder / "tokenizer").mkdir()
    tokenizer_with_seed(folder / "tokenizer", 0)
    write_pictures(folder / "pictures", range(300))
    result = run(folder, "encode", "tokenizer", "pictures", "codes", "--source", "folder")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "encode.log").write_text(result.stdout)
    return folder


def dataset(place: Path, output: str = "codes") -> Path:
    return next(path.parent for path in (place / output).glob("*/manifest.json"))


def test_a_person_is_told_how_far_it_is_and_what_came_of_it(place):
    told = (place / "encode.log").read_text()
    for part in ("300 images, 0 other files", "300/300 images", "images/s", "left", "rejects", "MB written"):
        assert part in told
    for part in ("300 (", "in 38 shards", "3\n", "per image (", "not registered", "2x2", "4x4"):
        assert part in told


def test_show_tells_the_same_for_a_dataset_and_for_a_folder_of_them(place):
    one, all_of_them = run(place, "show", str(dataset(place)), settings=()), run(place, "show", "codes", settings=())
    assert one.returncode == 0 and one.stdout == all_of_them.stdout and str(dataset(place)) in one.stdout


def test_encoding_again_finds_nothing_to_do_and_needs_no_ray(place):
    written = shard_write_times(dataset(place))
    result = run(place, "encode", "tokenizer", "pictures", "codes", "--source", "folder")
    assert result.returncode == 0 and "nothing to do" in result.stdout and "Ray" not in result.stdout
    assert shard_write_times(dataset(place)) == written


def test_verify_names_what_is_wrong_and_repair_mends_it(place):
    whole = read_dataset(str(dataset(place))).digest
    assert run(place, "verify", "codes", settings=()).returncode == 0
    damaged = next(dataset(place).glob("part-*"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    result = run(place, "verify", "codes", settings=())
    assert result.returncode == 1 and f"{damaged.name}: has" in result.stdout and "1 faults" in result.stdout
    result = run(place, "verify", "codes", "--repair", settings=())
    assert result.returncode == 0 and "whole" in result.stdout, result.stdout + result.stderr
    assert read_dataset(str(dataset(place))).digest == whole


def test_wrong_arguments_are_told_before_anything_starts(place):
    for arguments, message in (
        (("nowhere", "pictures", "out"), "no registry"),
        (("tokenizer", "nothing", "out"), "found no file under"),
        (("tokenizer", "pictures", "out", "--labels", "missing.csv"), "found nothing at"),
    ):
        result = run(place, "encode", *arguments)
        assert result.returncode in (1, 2) and message in result.stderr, result.stderr
    result = run(place, "encode", "tokenizer", "pictures", "out", settings=("codes.batch=3", "resources.workers=0"))
    assert result.returncode == 2 and "2 faults" in result.stderr
    assert run(place, "show", "pictures", settings=()).returncode == 2 and not (place / "out").exists()


def test_a_driver_that_is_killed_goes_on_and_redoes_at_most_a_block_a_worker(place):
    line = command("encode", "tokenizer", "pictures", "killed", "--source", "folder")
    driver = subprocess.Popen(line, cwd=place, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    digest = read_dataset(str(dataset(place))).facts.tokenizer
    while len(shard_write_times(place / "killed" / digest)) < 13:
        assert driver.poll() is None
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # its workers end with it
    before = shard_write_times(place / "killed" / digest)
    assert 13 <= len(before) < 38 and not (place / "killed" / digest / "manifest.json").exists()
    result = run(place, "encode", "tokenizer", "pictures", "killed", "--source", "folder")
    assert result.returncode == 0, result.stdout + result.stderr
    after = shard_write_times(place / "killed" / digest)
    assert sum(after[path] != written for path, written in before.items()) <= 4  # two encoders, two shards each
    assert read_dataset(str(dataset(place, "killed"))).digest == read_dataset(str(dataset(place))).digest


def test_a_node_that_is_lost_costs_no_row(place, tmp_path):
    snapshot = commit_images(str(place / "pictures"), str(tmp_path / "snapshot"), source="folder")
    line = [sys.executable, "-m", "tests.codes.node_loss", snapshot, str(place / "tokenizer"), str(tmp_path / "codes")]
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)
    assert result.returncode == 0 and "nodes alive: 1" in result.stdout, result.stdout + result.stderr
    assert dataset_rows(str(tmp_path / "codes")) == dataset_rows(str(dataset(place)))
