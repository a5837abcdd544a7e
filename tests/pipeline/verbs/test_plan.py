"""`plan`: sizes that can be calculated by hand, and the states of the steps."""

from pipeline.verbs.plan import print_plan


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
    assert "on the Ray cluster at 10.0.0.1:6379: all of it at the same time takes 12 CPUs" in capsys.readouterr().out


def test_finished_steps_are_shown(finished, capsys):
    print_plan(finished[0], [], offline=False)
    out = capsys.readouterr().out
    assert all(row[1:] == ["done"] for row in table_rows(out, "Steps") if len(row) > 1 and row[0] != "nothing")
    assert "nothing to do" in out and "for the 30 rows of the snapshot" in out and "for 3 classes" in out
