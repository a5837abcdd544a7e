"""Pictures that a verb writes do not become training data."""

import pytest

from components.errors import ExitCode, UsageError
from pipeline import cli
from pipeline.verbs.image_files import check_outside_images


@pytest.mark.parametrize("words", [["sample", "folder"], ["reconstruct", "folder", "a.png"]])
def test_pictures_below_the_images_of_the_config_are_refused(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--set", "images.uri=."]) == ExitCode.USAGE
    assert "--out must not lie in images.uri=., where the next run would train on it" in capsys.readouterr().err


def test_pictures_elsewhere_are_written(tmp_path):
    check_outside_images("folder", [f"images.uri={tmp_path}/images"], str(tmp_path / "images2"))
    check_outside_images("folder", ["images.uri=s3://bucket/x"], "samples")
    check_outside_images("digits", [], "samples")
    check_outside_images("models:/x@champion", [], str(tmp_path))
    with pytest.raises(UsageError):
        check_outside_images("folder", [f"images.uri={tmp_path}/images"], str(tmp_path / "a" / ".." / "images" / "s"))
