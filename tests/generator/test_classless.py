"""A generator that was fitted without classes: label 0 stands for 'no class', and nothing is rejected."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.generator.config import GeneratorConfig
from components.generator.rejection import generate_samples, kept_share, labels_and_seeds
from components.generator.stored import load_generator
from components.images.tensors import to_pixels
from components.priors.config import SamplingConfig
from components.store import weights
from tests.generator.test_served import decode_base64_png


@pytest.fixture(scope="module")
def served_classless(classless_folders):
    from components.generator.served import ServedGenerator

    model = ServedGenerator()
    model.load_context(SimpleNamespace(artifacts={name: str(folder) for name, folder in classless_folders.items()}))
    return model


def test_its_one_label_is_that_of_no_class(classless_generator):
    assert classless_generator.classes == () and classless_generator.classifier is None
    assert list(classless_generator.labels) == [0] and classless_generator.label_name(0) == ""
    samples = classless_generator.sample(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert torch.equal(samples.probability, torch.ones(3))
    assert torch.equal(samples.pixels, to_pixels(classless_generator.tokenizer.decode(samples.maps)))
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 0, got 1 \.\. 1"):
        classless_generator.sample(torch.ones(1, dtype=torch.int64), torch.arange(1))


def test_likely_codes_are_those_of_the_prior_without_a_class(classless_generator):
    labels, seeds = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    cold = classless_generator.sample(labels, seeds, sampling=SamplingConfig(temperature=1e-4))
    for level, prior in enumerate(classless_generator.priors):
        assert prior.classes == 0
        logits = prior(cold.maps[level], torch.full((3,), prior.classes), cold.maps[:level])
        torch.testing.assert_close(logits.argmax(-1), cold.maps[level])


def test_nothing_is_rejected(classless_generator, generator):
    kept = generate_samples(classless_generator, classes=[0], count=3, seed=5, keep=0.25)
    labels, seeds = labels_and_seeds([0], 3, seed=5)
    assert torch.equal(kept.seeds, seeds) and torch.equal(kept.labels, labels)
    assert kept_share(classless_generator, 0.25) == 1 and kept_share(generator, 0.25) == 0.25


def test_one_class_has_a_name_and_no_classifier(classless_folders, generator_parts, tmp_path):
    root = tmp_path / "one"
    shutil.copytree(classless_folders["tokenizer"].parent, root)
    for name, description in generator_parts.items():
        if name.startswith("prior_"):
            prior = dataclasses.replace(description, classes=1)
            for file, data in weights.pack("prior", prior.build(), prior).items():
                (root / name / file).write_bytes(data)
    path = root / "classifier" / weights.CONFIG_FILE
    config = json.loads(path.read_text())
    config["description"]["class_names"] = ["ant"]
    path.write_text(json.dumps(config))
    generator = load_generator({name: root / name for name in generator_parts})
    assert generator.classes == ("ant",) and generator.classifier is None and list(generator.labels) == [0]
    assert len(generate_samples(generator, classes=[0], count=2, seed=0, keep=0.5)) == 2


# --- served -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_of", [{}, {"label": None}, {"label": "cat"}, {"label": "7"}])
def test_a_label_is_not_needed_and_ignored(classless_generator, served_classless, request_of):
    answers = served_classless.predict(None, [request_of], {"count": 2, "seed": 5, "keep": 0.5})
    expected = generate_samples(classless_generator, classes=[0], count=2, seed=5).pixels
    for answer, pixels in zip(answers, expected, strict=True):
        assert answer.label == request_of.get("label") and answer.probability == 1
        assert np.abs(decode_base64_png(answer.png).astype(int) - pixels[:, :, 0].numpy()).max() <= 1


def test_the_limit_of_draws_does_not_count_rejected_ones(served_classless):
    assert len(served_classless.predict(None, [{}], {"count": 2, "keep": 1e-4})) == 2


def test_it_is_packed_with_a_request_without_a_label(classless_folders):
    from components.generator.served import generator_package

    package = generator_package(classless_folders["tokenizer"].parent, GeneratorConfig(keep=0.25))
    assert package.example == [{}] and package.parameters["keep"] == 1


@pytest.mark.slow
def test_it_is_logged_and_loaded_by_mlflow(classless_folders, tmp_path):
    import mlflow

    import components
    from components.generator.served import generator_package

    package = generator_package(classless_folders["tokenizer"].parent, GeneratorConfig())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("round trip", artifact_location=(tmp_path / "artifacts").as_uri())
    code = shutil.copytree(
        components.__path__[0], tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__")
    )
    with mlflow.start_run(experiment_id=experiment):
        info = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(package.code),
            artifacts={name: str(folder) for name, folder in package.folders.items()},
            code_paths=[str(code)],
            input_example=(package.example, dict(package.parameters)),
            pip_requirements=list(package.requirements),
        )
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    for request in ({}, {"label": "cat"}):
        answers = loaded.predict([request], params={"count": 3})
        assert [decode_base64_png(answer.png).shape for answer in answers] == [(16, 16)] * 3
    mlflow.set_tracking_uri(None)
