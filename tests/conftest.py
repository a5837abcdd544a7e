"""What tests of several components share: a whole generator, tiny and untrained."""

import pytest
import torch

from components.config import TrainingConfig

pytest_plugins = ["tests.services.plugin"]


@pytest.fixture(scope="session")
def generator_parts():
    """Descriptions of a generator's parts by the names of their folders: two levels, 16x16 grayscale, 3 classes."""
    from components.classifier.config import ClassifierConfig
    from components.priors.conditioning import MapSpec
    from components.priors.config import PriorConfig
    from components.store import weights
    from components.tokenizer.config import LevelConfig, VQVAEConfig

    training = TrainingConfig(updates=1, batch_size=1)
    strides = {"top": 8, "bottom": 4}
    levels = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in strides.items())
    vqvae = VQVAEConfig(levels=levels, hidden=16, residual_hidden=8, training=training)
    prior = PriorConfig(hidden=8, residual_hidden=8, layers=2, filter_size=3, attention_heads=2, training=training)
    shared = {"settings": prior, "codebook_size": 8, "classes": 3}
    return {
        "tokenizer": weights.TokenizerDescription(settings=vqvae, channels=1, image_size=16),
        "prior_top": weights.PriorDescription(level="top", shape=(2, 2), above=(), **shared),
        "prior_bottom": weights.PriorDescription(level="bottom", shape=(4, 4), above=(MapSpec(2, 2, 8),), **shared),
        "classifier": weights.ClassifierDescription(
            settings=ClassifierConfig(hidden=4, training=training), channels=1, class_names=("ant", "bee", "cat")
        ),
    }


@pytest.fixture(scope="session")
def generator_folders(generator_parts, tmp_path_factory):
    """Folders of the stored parts, by name."""
    from components.store.weights import pack

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("generator")
    for name, description in generator_parts.items():
        (root / name).mkdir()
        for file, data in pack(description.build(), description).items():
            (root / name / file).write_bytes(data)
    return {name: root / name for name in generator_parts}


@pytest.fixture(scope="session")
def generator(generator_folders):
    """The generator stored in those folders."""
    from components.store.weights import load_generator

    return load_generator(generator_folders)


@pytest.fixture(scope="session")
def mlflow_state(tmp_path_factory):
    """A state folder whose MLflow database is there already: making one takes seconds."""
    from components.tracking.runs import Tracker

    folder = tmp_path_factory.mktemp("state")
    Tracker(uri=f"sqlite:///{folder}/mlflow.db", name="first", state=str(folder))
    return folder
