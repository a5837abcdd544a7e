"""The verbs `encode`, `verify` and `show`, and the work that is lost with a killed driver or a lost node."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.codes.dataset import read_dataset
from pipeline.cli import main
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import commit_images, dataset_rows, shard_write_times
from tests.endtoend.conftest import ROOT, environment, set_options

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = ("codes.rows_per_shard=8", "codes.rows_per_wave=160", "codes.batch_size=4", "resources.workers=2")


def command(verb: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> list[str]:
    return [sys.executable, "-m", "pipeline", verb, *arguments, *set_options(settings)]


def run(folder: Path, verb: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> subprocess.CompletedProcess:
    """A verb in a process of its own: for those that start Ray."""
    line = command(verb, *arguments, settings=settings)
    return subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)


@pytest.fixture
def run_here(place, monkeypatch, capsys):
    """run_here(verb, *arguments): a verb in this process and in the folder `place`; (exit code, stdout, stderr)."""
    monkeypatch.chdir(place)

    def run_verb(verb: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> tuple[int, str, str]:
        code = main([verb, *arguments, *set_options(settings)])
        return (code, *capsys.readouterr())

    return run_verb


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures, a tokenizer, and the dataset encoded from them: codes/<digest>."""
    folder = tmp_path_factory.mktemp("encode")
    (folder / "tokenizer").mkdir()
    tokenizer_with_seed(folder / "tokenizer", 0)
    write_pictures(folder / "pictures", range(300))
    result = run(folder, "encode", "tokenizer", "pictures", "codes", "--source", "folder")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "encode.log").write_text(result.stdout)
    return folder


def dataset(place: Path, output: str = "codes") -> Path:
    return next(path.parent for path in (place / output).glob("*/manifests") if path.parent.name != "snapshots")


def test_progress_and_a_summary_are_printed(place):
    printed = (place / "encode.log").read_text()
    for part in ("300 images, 0 other files", "300/300 images", "images/s", "left", "rejects", "MB written"):
        assert part in printed
    for part in ("300 (", "in 38 shards", "3\n", "per image (", "not registered", "2x2", "4x4"):
        assert part in printed


def test_show_prints_the_same_for_a_dataset_and_for_the_folder_around_it(place, run_here):
    one, around = run_here("show", str(dataset(place)), settings=()), run_here("show", "codes", settings=())
    assert one[0] == 0 and str(dataset(place)) in one[1]
    assert one[1] == around[1]


def test_encoding_again_finds_nothing_to_do_and_needs_no_ray(place, run_here):
    written = shard_write_times(dataset(place))
    code, printed, _ = run_here("encode", "tokenizer", "pictures", "codes", "--source", "folder")
    assert code == 0 and "nothing to do" in printed and "Ray" not in printed
    assert shard_write_times(dataset(place)) == written


def test_verify_names_a_fault_and_repair_mends_it(place, run_here):
    whole = read_dataset(str(dataset(place))).digest
    assert run_here("verify", "codes", settings=())[0] == 0
    damaged = next(dataset(place).glob("*/part-*"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    code, printed, _ = run_here("verify", "codes", settings=())
    assert code == 1 and f"{damaged.name}: has" in printed and "1 faults" in printed
    result = run(place, "verify", "codes", "--repair", settings=())
    assert result.returncode == 0 and "whole" in result.stdout, result.stdout + result.stderr
    assert read_dataset(str(dataset(place))).digest == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "pictures", "out"), "no model is registered yet"),
        (("tokenizer", "nothing", "out"), "found no file under"),
        (("tokenizer", "pictures", "out", "--labels", "missing.csv"), "found nothing at"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_starts(place, run_here, arguments, message):
    code, _, errors = run_here("encode", *arguments)
    assert code in (1, 2) and message in errors and not (place / "out").exists()


def test_wrong_settings_are_reported_before_anything_starts(place, run_here):
    settings = ("codes.batch=3", "resources.workers=0")
    code, _, errors = run_here("encode", "tokenizer", "pictures", "out", settings=settings)
    assert code == 2 and "2 faults" in errors and not (place / "out").exists()


def test_show_refuses_a_folder_without_a_dataset(run_here):
    assert run_here("show", "pictures", settings=())[0] == 2


def test_a_killed_driver_repeats_at_most_one_block_per_worker(place):
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
    assert 13 <= len(before) < 38 and not (place / "killed" / digest / "manifests").exists()
    result = run(place, "encode", "tokenizer", "pictures", "killed", "--source", "folder")
    assert result.returncode == 0, result.stdout + result.stderr
    names = [Path(path).name for path in shard_write_times(place / "killed" / digest)]  # of both attempts
    assert len(names) - len(set(names)) <= 4  # two encoders, two shards each
    assert read_dataset(str(dataset(place, "killed"))).digest == read_dataset(str(dataset(place))).digest


def test_a_lost_node_costs_no_row(place, tmp_path):
    snapshot = commit_images(str(place / "pictures"), str(tmp_path / "snapshot"), source="folder")
    line = [sys.executable, "-m", "tests.codes.node_loss", snapshot, str(place / "tokenizer"), str(tmp_path / "codes")]
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)
    assert result.returncode == 0 and "nodes alive: 1" in result.stdout, result.stdout + result.stderr
    assert dataset_rows(str(tmp_path / "codes")) == dataset_rows(str(dataset(place)))
