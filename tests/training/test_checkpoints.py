"""The newest whole checkpoint of a fit, whichever attempt wrote it."""

import pytest
import torch
from torch import nn

from components.store import objects
from components.training.checkpoints import newest_checkpoint
from components.training.job import CHECKPOINT_FILES
from components.training.state import FitState


@pytest.fixture(params=["local", "memory"])
def artifact(request, tmp_path) -> str:
    return str(tmp_path / "artifact") if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.fixture
def write(artifact, tmp_path):
    """write(attempt, update): store a checkpoint; returns its URI."""

    def store(attempt: str, update: int) -> str:
        model = nn.Linear(2, 2)
        state = FitState(model, torch.optim.Adam(model.parameters()), 0.0)
        state.fit_progress.update = update
        local = tmp_path / f"{attempt}-{update}"
        local.mkdir()
        state.save(local)
        uri = objects.join(artifact, ".work", attempt, "fit", f"checkpoint_{update}")
        for name in CHECKPOINT_FILES:
            objects.write_bytes(objects.join(uri, name), (local / name).read_bytes())
        return uri

    return store


def test_the_one_with_the_most_updates_counts(artifact, write):
    assert newest_checkpoint(artifact) is None
    further = write("000001-aaaaaaaa", 20)
    write("000002-bbbbbbbb", 10)
    assert newest_checkpoint(artifact) == further


@pytest.mark.parametrize("harm", ["cut tensors", "cut numbers", "no tensors", "mixed"])
def test_one_that_a_crash_cut_is_passed_over(artifact, write, harm):
    whole, broken = write("000001-aaaaaaaa", 10), write("000001-aaaaaaaa", 20)
    tensors, numbers = (objects.join(broken, name) for name in CHECKPOINT_FILES)
    if harm == "no tensors":
        objects.delete(tensors)
    elif harm == "mixed":
        objects.write_bytes(tensors, objects.read_bytes(objects.join(whole, CHECKPOINT_FILES[0])))
    else:
        cut = tensors if harm == "cut tensors" else numbers
        objects.write_bytes(cut, objects.read_bytes(cut)[:-5])
    assert newest_checkpoint(artifact) == whole
