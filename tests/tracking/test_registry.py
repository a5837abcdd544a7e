"""The model registry: the contents of a version, and ways to find it."""

import pytest

from components.errors import UnknownModel
from components.tracking.registry import CODE_PACKAGE, DIGEST_TAG, ModelPackage

SERVED = """
import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return [text + str(params["count"]) for text in model_input]


mlflow.models.set_model(Echo())
"""


@pytest.fixture
def package(tmp_path):
    """A package whose model appends its parameter to its input."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    (tmp_path / "served.py").write_text(SERVED)
    return ModelPackage(
        code=tmp_path / "served.py",
        folders={"tokenizer": tmp_path / "weights"},
        example=["a"],
        parameters={"count": 1},
        requirements=["mlflow"],
    )


@pytest.fixture
def registered(tracker, package):
    """The package as a registered model with the name of the test."""
    run = tracker.pipeline_run("p", {})
    return tracker.registry.register(name=tracker.name, package=package, run_id=run, digest="d1")


def test_a_version_is_registered_once_per_digest(tracker, package, registered):
    registry, name = tracker.registry, registered.name
    again = registry.register(name=name, package=package, run_id=registered.run_id, digest="d1")
    assert again == registered and registry.versions(name) == [registered]
    assert registry.version_of(name, "d1") == registered and registry.version_of(name, "d2") is None


def test_a_version_is_found_by_number_alias_and_name(tracker, registered):
    registry, name = tracker.registry, registered.name
    assert registered.uri == f"models:/{name}/1" and registered.aliases == ("challenger",)
    assert tracker.client.get_run(registered.run_id).info.experiment_id == tracker.experiment_id
    for uri in (registered.uri, f"models:/{name}@challenger", f"models:/{name}", name):
        assert registry.find(uri) == registered
    registry.promote(registered)
    assert set(registry.find(f"models:/{name}@champion").aliases) == {"challenger", "champion"}


def test_a_model_holds_its_folders_and_the_whole_components_package(tracker, registered, tmp_path):
    parts = tracker.registry.model_parts(registered, tmp_path / "download")
    assert list(parts) == ["tokenizer"] and (parts["tokenizer"] / "config.json").read_text() == "{}"
    packed = [path.relative_to(tmp_path) for path in (tmp_path / "download").rglob("*") if path.is_file()]
    code = {"/".join(path.parts[2:]) for path in packed if path.parts[:2] == ("download", "code")}
    source = {path.relative_to(CODE_PACKAGE.parent).as_posix() for path in CODE_PACKAGE.rglob("*.py")}
    assert source <= code and not any("__pycache__" in name for name in code)


@pytest.mark.parametrize("name", ["nothing", "models:/nothing/1", "models:/nothing@champion"])
def test_an_unknown_model_is_reported(tracker, name):
    with pytest.raises(UnknownModel, match="nothing"):
        tracker.registry.find(name)


@pytest.mark.parametrize(("files", "program"), [(["model.pt2"], b"program"), ([], None), (["a.pt2", "b.pt2"], None)])
def test_the_program_of_a_registered_model_is_its_only_pt2_file(tracker, tmp_path, files, program):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MLmodel").write_text("")
    for file in files:
        (tmp_path / "data" / file).write_bytes(b"program")
    name = f"programs-{len(files)}"
    tracker.client.create_registered_model(name)
    tracker.client.create_model_version(name, source=tmp_path.as_uri())
    if program:
        assert tracker.registry.model_program(f"models:/{name}/1") == program
    else:
        with pytest.raises(ValueError, match=r"must hold one \.pt2 file, a torch\.export program, got"):
            tracker.registry.model_program(f"models:/{name}/1")


def test_a_registration_that_was_interrupted_is_completed(tracker, package, registered):
    """The version exists; its alias, and the tag that says all is done, were not written."""
    registry, name = tracker.registry, registered.name
    tracker.client.delete_registered_model_alias(name, "challenger")
    tracker.client.delete_model_version_tag(name, "1", DIGEST_TAG)
    again = registry.register(name=name, package=package, run_id=registered.run_id, digest="d1")
    assert again == registered and registry.versions(name) == [registered]
