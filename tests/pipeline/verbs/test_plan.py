"""`plan`: sizes that can be calculated by hand, and the states of the steps."""

import os

import pytest

from pipeline.config_files import load_config
from pipeline.dag import dag_of
from pipeline.verbs.plan import cost_warnings, local_seconds, print_plan
from pipeline.verbs.tables import format_time

FITS = ["tokenizer", "prior_top", "prior_bottom", "classifier", "judge"]


def table_rows(text, title):
    """Rows of a printed table as lists of words."""
    lines = text[text.index(title) :].splitlines()
    return [line.split() for line in lines[2 : lines.index("") if "" in lines else None]]


def test_the_sizes_of_code_maps_are_shown(config_file, capsys):
    assert print_plan(config_file, ["vqvae.levels.1.codebook_size=16"], offline=True) == 0
    out = capsys.readouterr().out
    rows = table_rows(out, "Code maps")
    assert rows[0] == ["top", "2x2", "8", "4", "12"] and rows[1] == ["bottom", "4x4", "16", "16", "64"]
    assert rows[2] == ["all", "20", "76"] and "27 times smaller than the pixels (2,048 bits per image)" in out


def test_a_plan_creates_nothing(config_file, tmp_path, capsys):
    print_plan(config_file, [], offline=False)
    out = capsys.readouterr().out
    assert ["images", "would", "run", "(never", "ran)"] in table_rows(out, "Steps")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_an_offline_plan_looks_nothing_up(config_file, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert print_plan(config_file, [], offline=True) == 0
    assert "Which steps are done was not looked up" in capsys.readouterr().out


def test_a_cluster_is_named_and_not_contacted(config_file, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    print_plan(config_file, ["resources.prior.workers=4"], offline=True)
    assert "on the Ray cluster at 10.0.0.1:6379: all of it at the same time takes 10 CPUs" in capsys.readouterr().out


def test_finished_steps_are_shown(finished, capsys):
    print_plan(finished[0], [], offline=False)
    out = capsys.readouterr().out
    assert all(row[1:] == ["done"] for row in table_rows(out, "Steps") if len(row) > 1 and row[0] != "nothing")
    assert "nothing to do" in out and "for the 30 rows of the snapshot" in out and "for 3 classes" in out


def test_time_and_memory_of_each_fit_are_shown(config_file, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for offline, origin in ((True, "operations at a stated rate"), (False, "updates timed here")):
        print_plan(config_file, [], offline=offline)
        out = capsys.readouterr().out
        rows = table_rows(out, "Time and memory")
        assert [row[0] for row in rows[:6]] == [*FITS, "codes"]
        assert all(" ".join(row).endswith(origin) and row[4] in ("kB", "MB") for row in rows[:5])
        assert "per 1,000 rows" in out and "all fits on this machine: about" in out and "WARNING" not in out


@pytest.mark.parametrize("size", [128, 256])
def test_a_preset_that_would_take_days_on_cpus_warns(capsys, monkeypatch, size):
    """256-pixel photos once gave 5,120 codes per picture, and nothing said that a fit would take weeks."""
    monkeypatch.setattr("pipeline.config_files.local_gpus", lambda: 0)
    print_plan("folder", ["images.uri=/data", f"images.image_size={size}"], offline=True)
    out = capsys.readouterr().out
    assert "WARNING: prior_bottom would take about" in out and "give it a GPU (resources.prior.gpus=1)" in out
    assert table_rows(out, "Code maps")[2][1] == "1,280"


def test_the_same_preset_on_a_gpu_does_not_warn(capsys, monkeypatch):
    monkeypatch.setattr("pipeline.config_files.local_gpus", lambda: 1)
    print_plan("folder", ["images.uri=/data", "images.image_size=256"], offline=True)
    out = capsys.readouterr().out
    assert "WARNING" not in out and "operations at a stated rate" in out


def test_a_warning_starts_above_a_day(config_file):
    config = load_config(config_file)
    fits = {"tokenizer": 86400, "prior_top": 86401, "judge": 10 * 86400}
    assert [line.split()[1] for line in cost_warnings(config, fits)] == ["prior_top", "judge"]


def test_fits_of_a_group_share_the_cores_of_this_machine(config_file, monkeypatch):
    config = load_config(config_file)
    fits = {"tokenizer": 10.0, "prior_top": 4.0, "prior_bottom": 20.0, "classifier": 4.0, "judge": 4.0}
    steps = dag_of(config)
    for cores, seconds in ((1, 18 + 24), (2, 10 + 20), (8, 10 + 20)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert local_seconds(fits, steps) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.26, "0.26 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (5400, "1.5 h"),
        (86400, "24 h"),
        (2.3e5, "2.7 days"),
        (1e9, "11,574 days"),
    ],
)
def test_rough_times_have_a_unit_that_suits_them(seconds, text):
    assert format_time(seconds) == text
