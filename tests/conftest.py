"""Fixtures that tests of several components share; the distribution of the tests over worker processes."""

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two test workers share the cores

import pytest
import torch

from components.workspace import ComputeCluster
from tests.worker_groups import GroupScheduling, check_groups, start_order

pytest_plugins = ["tests.services.plugin", "tests.tracking.mlflow_in_process"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the longest groups first; within a group the order of collection stays."""
    check_groups(items)
    items.sort(key=lambda item: start_order(item.nodeid))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log) -> GroupScheduling:
    """Two worker processes share the groups."""
    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[ComputeCluster]:
    """The one Ray of this process, with four logical CPUs, for every test that needs any Ray."""
    import ray

    from components.cluster.step import Cluster

    yield Cluster(local_cpus=4)
    ray.shutdown()


@pytest.fixture(scope="session")
def generator_parts():
    """Descriptions of a generator's parts by the names of their folders: two levels, 16x16 grayscale, 3 classes."""
    from components.classifier.config import ClassifierArchitecture
    from components.classifier.stored import ClassifierDescription
    from components.priors.conditioning import MapSpec
    from components.priors.config import PriorArchitecture
    from components.priors.stored import PriorDescription
    from components.tokenizer.config import LevelConfig, VQVAEArchitecture
    from components.tokenizer.stored import TokenizerDescription

    strides = {"top": 8, "bottom": 4}
    levels = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in strides.items())
    vqvae = VQVAEArchitecture(levels=levels, hidden=16, residual_hidden=8)
    prior = PriorArchitecture(hidden=8, residual_hidden=8, layers=2, filter_size=3, attention_heads=2)
    shared = {"architecture": prior, "codebook_size": 8, "classes": 3}
    return {
        "tokenizer": TokenizerDescription(architecture=vqvae, channels=1, image_size=16),
        "prior_top": PriorDescription(level="top", shape=(2, 2), above=(), **shared),
        "prior_bottom": PriorDescription(level="bottom", shape=(4, 4), above=(MapSpec(2, 2, 8),), **shared),
        "classifier": ClassifierDescription(
            architecture=ClassifierArchitecture(hidden=4), channels=1, class_names=("ant", "bee", "cat")
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
        for file, data in pack(name.split("_")[0], description.build(), description).items():
            (root / name / file).write_bytes(data)
    return {name: root / name for name in generator_parts}


@pytest.fixture(scope="session")
def classless_folders(generator_parts, tmp_path_factory):
    """Folders of the stored parts of a generator that was fitted to images without classes, by name."""
    import dataclasses

    from components.classifier.stored import ClassifierDescription, pack_empty
    from components.store.weights import pack

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("classless")
    empty = pack_empty(ClassifierDescription(architecture=None, channels=1, class_names=()))
    for name, description in generator_parts.items():
        (root / name).mkdir()
        if name.startswith("prior_"):
            description = dataclasses.replace(description, classes=0)
        stored = empty if name == "classifier" else pack(name.split("_")[0], description.build(), description)
        for file, data in stored.items():
            (root / name / file).write_bytes(data)
    return {name: root / name for name in generator_parts}


@pytest.fixture(scope="session")
def generator(generator_folders):
    """The generator stored in those folders."""
    from components.generator.stored import load_generator

    return load_generator(generator_folders)


@pytest.fixture(scope="session")
def classless_generator(classless_folders):
    """The generator without classes stored in those folders."""
    from components.generator.stored import load_generator

    return load_generator(classless_folders)


@pytest.fixture(scope="session")
def mlflow_state(tmp_path_factory):
    """A state folder whose MLflow database is there already: making one takes seconds."""
    from components.tracking.runs import Tracker

    folder = tmp_path_factory.mktemp("state")
    Tracker(uri=f"sqlite:///{folder}/mlflow.db", name="first", state=str(folder))
    return folder
