"""`plan`: figures that can be worked out by hand, and states that a memo knows."""

import torch

from components.classifier.model import Classifier
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.tokenizer.model import Tokenizer
from components.training.state import FitState
from pipeline.config_files import load_config
from pipeline.sizes import level_sizes, model_sizes
from pipeline.verbs.plan import print_plan
from pipeline.verbs.tables import format_bytes


def table(text, title):
    """Rows of a printed table as lists of words."""
    lines = text[text.index(title) :].splitlines()
    return [line.split() for line in lines[2 : lines.index("") if "" in lines else None]]


def test_the_sizes_of_code_maps_are_worked_out(config_file, capsys):
    assert print_plan(config_file, ["vqvae.levels.1.codebook_size=16"], offline=True) == 0
    out = capsys.readouterr().out
    rows = table(out, "Code maps")
    assert rows[0] == ["top", "2x2", "8", "4", "12"] and rows[1] == ["bottom", "4x4", "16", "16", "64"]
    assert rows[2] == ["all", "20", "76"] and "27 times smaller than the pixels (2,048 bits per image)" in out


def test_parameters_are_those_of_the_models_that_are_fitted(config_file):
    config = load_config(config_file)
    above = (MapSpec(2, 2, 8),)
    models = {
        "tokenizer": Tokenizer(config.vqvae, channels=1),
        "prior_top": Prior(config.priors["top"], shape=(2, 2), codebook_size=8, classes=3, above=()),
        "prior_bottom": Prior(config.priors["bottom"], shape=(4, 4), codebook_size=8, classes=3, above=above),
        "classifier": Classifier(config.classifier, channels=1, classes=3),
        "judge": Classifier(config.judge, channels=1, classes=3),
    }
    wanted = {name: sum(value.numel() for value in model.parameters()) for name, model in models.items()}
    assert {size.name: size.parameters for size in model_sizes(config, 3)} == wanted


def test_the_size_of_a_checkpoint_is_that_of_the_file(config_file, tmp_path):
    config = load_config(config_file)
    model = Classifier(config.judge, channels=1, classes=3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 1, 16, 16)).sum().backward()
    optimizer.step()
    state = FitState(model, optimizer, 0.0)
    state.keep_best()
    state.save(tmp_path)
    written = (tmp_path / "state.safetensors").stat().st_size
    told = {size.name: size.checkpoint_bytes for size in model_sizes(config, 3)}["judge"]
    assert 0.7 < told / written <= 1  # the file's header comes on top


def test_three_levels_are_planned_too(tree, tmp_path):
    path = tmp_path / "three.yaml"
    path.write_text(
        "base: digits\n"
        "vqvae: {levels: [{name: top, stride: 16}, {name: middle, stride: 8}, {name: bottom, stride: 4}]}\n"
        "priors: {middle: {hidden: 8, residual_hidden: 8, layers: 1, training: {updates: 1, batch_size: 1}}}\n"
    )
    config = load_config(str(path))
    assert [(level.height, level.codes) for level in level_sizes(config)] == [(2, 4), (4, 16), (8, 64)]
    assert [size.name for size in model_sizes(config, 0)][1:4] == ["prior_top", "prior_middle", "prior_bottom"]


def test_a_plan_makes_nothing(config_file, tmp_path, capsys):
    print_plan(config_file, [], offline=False)
    out = capsys.readouterr().out
    assert ["images", "would", "run", "(never", "ran)"] in table(out, "Steps")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_plan_offline_looks_nothing_up(config_file, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert print_plan(config_file, [], offline=True) == 0
    assert "Which steps are done was not looked up" in capsys.readouterr().out


def test_a_cluster_is_named_and_not_asked(config_file, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    print_plan(config_file, ["resources.prior.workers=4"], offline=True)
    assert "on the Ray cluster at 10.0.0.1:6379: all of it at the same time takes 12 CPUs" in capsys.readouterr().out


def test_what_is_done_is_told(finished, capsys):
    print_plan(finished[0], [], offline=False)
    out = capsys.readouterr().out
    assert all(row[1:] == ["done"] for row in table(out, "Steps") if len(row) > 1 and row[0] != "nothing")
    assert "nothing to do" in out and "for the 30 rows of the snapshot" in out and "for 3 classes" in out


def test_bytes_are_readable():
    assert [format_bytes(count) for count in (999, 1500, 2.5e6, 3e9, 4e12)] == [
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
