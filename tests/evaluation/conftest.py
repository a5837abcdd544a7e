"""All artifacts behind a tiny generator, for evaluations of it."""

import pytest


@pytest.fixture(scope="package")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation_step")


@pytest.fixture(scope="package")
def inputs(generator_folders, root):
    """Three classes with 30 images each; one classifier is both judge and rejector."""
    from tests.evaluation.artifacts import artifacts_behind

    return artifacts_behind(generator_folders, root, {"ant": 30, "bee": 30, "cat": 30})
