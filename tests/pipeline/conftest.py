"""A config that is small in every way, a memo on a real MLflow database, and a whole DAG made without fitting."""

import copy
import dataclasses
import re

import pytest
import yaml

from components.classifier.facts import ClassifierFacts
from components.codes.facts import CodesFacts
from components.evaluation.facts import EvaluationFacts
from components.generator.facts import GeneratorFacts
from components.images.facts import SnapshotFacts
from components.priors.facts import PriorFacts
from components.store import commits
from components.tokenizer.facts import TokenizerFacts
from components.workspace import StepOutput
from pipeline.config_files import parse_config
from pipeline.session import Session

TRAINING = {"updates": 2, "batch_size": 4}
LEVEL = {"codebook_size": 8}
PRIOR = {"hidden": 8, "residual_hidden": 8, "layers": 2, "filter_size": 3, "attention_heads": 2, "training": TRAINING}
TINY = {
    "name": "tiny",
    "images": {"source": "digits", "image_size": 16, "channels": 1, "upscale": True},
    "vqvae": {
        "levels": [{"name": "top", "stride": 8, **LEVEL}, {"name": "bottom", "stride": 4, **LEVEL}],
        "hidden": 16,
        "residual_hidden": 8,
        "training": TRAINING,
    },
    "priors": {"top": PRIOR, "bottom": PRIOR},
    "classifier": {"hidden": 4, "seed": 1, "training": TRAINING},
    "judge": {"hidden": 4, "seed": 2, "training": TRAINING},
    "gates": {"reconstruction_error": 0.1},
}
FACTS = {
    "images": SnapshotFacts(
        images=30, rows=30, train_images=27, train_rows=27, held_out=3, classes=3, image_size=16, channels=1
    ),
    "tokenizer": TokenizerFacts(reconstruction_error=0.05, psnr=20.0),
    "codes": CodesFacts(rows=30, usage={"top": 1.0, "bottom": 0.75}, classes=3, dimensions=256),
    "prior_top": PriorFacts(nats_per_code=1.0, unigram_nats=2.0),
    "prior_bottom": PriorFacts(nats_per_code=1.0, unigram_nats=2.0),
    "classifier": ClassifierFacts(held_out_accuracy=0.9),
    "judge": ClassifierFacts(held_out_accuracy=0.9),
    "generator": GeneratorFacts(),
    "evaluation": EvaluationFacts(judge_accuracy=0.9, kept_accuracy=0.99),
}


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch):
    """No test talks to what the surroundings name."""
    for variable in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "DAGSTER_HOME", "VQVAE2_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def tree():
    """The tiny config as plain values, to change at will."""
    return copy.deepcopy(TINY)


@pytest.fixture
def config_file(tree, tmp_path):
    """The tiny config as a file; its state and artifacts lie beside it, and nothing has run."""
    tree |= {"state": str(tmp_path / "state"), "artifact_root": str(tmp_path / "artifacts")}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


@pytest.fixture
def config(tree, tmp_path, mlflow_state, request):
    """The tiny config, with an MLflow experiment and an artifact root of this test's own."""
    name = re.sub(r"\W", "-", request.node.name)
    return parse_config(
        tree | {"name": name, "state": str(mlflow_state), "artifact_root": str(tmp_path / "artifacts")}, "a test"
    )


@pytest.fixture
def memo(config):
    """The memo of that config."""
    return open_memo(config)


def open_memo(config):
    """The memo of a config, connected anew as the next run would."""
    return Session(config).memo


@pytest.fixture(scope="session")
def finished(mlflow_state, generator_folders, tmp_path_factory):
    """(config file, config, session) of a DAG that is done: untrained models, figures that pass, registered."""
    folder = tmp_path_factory.mktemp("finished")
    tree = copy.deepcopy(TINY) | {
        "name": "finished",
        "state": str(mlflow_state),
        "artifact_root": str(folder / "artifacts"),
    }
    (folder / "finished.yaml").write_text(yaml.safe_dump(tree))
    config = parse_config(tree, "a test")
    session = Session(config)

    def work_of(name):
        stored = {"generator": generator_folders, "judge": {"": generator_folders["classifier"]}}
        folders = stored.get(name, {"": generator_folders.get(name)})

        def work(inputs, workspace):
            contents = {
                f"{part}/{file.name}".lstrip("/"): file.read_bytes()
                for part, folder in folders.items()
                if folder
                for file in folder.iterdir()
            }
            digest = commits.save_artifact(workspace.uri, contents or {"data": name.encode()}, FACTS[name].record())
            return StepOutput(digest=digest, facts=FACTS[name])

        return work

    for name, step in session.steps.items():
        session.run_step(dataclasses.replace(step, work=work_of(name)))
    session.close(True)
    return str(folder / "finished.yaml"), config, session
