"""The tokenizer step in this process: the committed weights, their measured error, and their description."""

import pytest
import torch
from torch.nn import functional as F

from components.artifacts import Artifact
from components.config import StepResources, TrainingConfig
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.sources.registry import list_images
from components.images.split import HELD_OUT
from components.images.tensors import to_images
from components.store import commits
from components.store.lease import acquire_lease
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.facts import TokenizerFacts
from components.tokenizer.stored import TokenizerDescription, describe_tokenizer, load_tokenizer
from components.workspace import Workspace

pytestmark = pytest.mark.slow  # imports Ray

IMAGES = ImagesConfig(source="digits", image_size=16, channels=1, upscale=True)
LEVELS = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in (("top", 8), ("bottom", 4)))
TRAINING = TrainingConfig(updates=4, batch_size=16, evaluate_every=2, checkpoint_every=4, held_out_samples=32)
CONFIG = VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=4, beta=0.5, training=TRAINING)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("images"))
    digest = commit_snapshot(folder, list_images(IMAGES, folder), [], IMAGES, seed=0)
    return Artifact(kind="images", uri=folder, digest=digest, fingerprint="", run_id="")


@pytest.fixture(scope="module")
def fitted(images, tmp_path_factory):
    """(output of the step, URI of its artifact)."""
    from components.tokenizer.step import fit_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    lease = acquire_lease(str(folder / "lease"), wait_seconds=0, report=print)
    space = Workspace(name="tokenizer", fingerprint="", uri=str(folder / "made"), seed=0, lease=lease)
    return fit_tokenizer(CONFIG, images, resources=StepResources(), workspace=space), space.uri


def test_the_committed_weights_have_the_error_in_the_facts(images, fitted):
    output, uri = fitted
    snapshot = read_snapshot(images.uri)
    rows = snapshot.sample(HELD_OUT, TRAINING.held_out_samples)
    held_out = to_images(torch.from_numpy(PixelReader(snapshot.pixels, snapshot.seed).read(rows)))
    with torch.no_grad():
        reconstruction = load_tokenizer(commits.local_copy(uri))(held_out).reconstruction
    assert float(F.mse_loss(reconstruction, held_out)) == pytest.approx(output.facts.reconstruction_error, rel=1e-4)
    assert TokenizerFacts.read(commits.read_manifest(uri)["facts"]) == output.facts


def test_the_description_has_the_image_size_of_the_snapshot_and_no_fitting_settings(fitted):
    folder = commits.local_copy(fitted[1])
    assert describe_tokenizer(folder) == TokenizerDescription(architecture=CONFIG, channels=1, image_size=16)
    assert "beta" not in (folder / "config.json").read_text()


def test_the_pipeline_s_seed_reaches_the_quantizers():
    from components.tokenizer.step import _build_objective

    seeds = [[each.seed for each in _build_objective(CONFIG, 1, seed).model.quantizers] for seed in (0, 1)]
    assert len({*seeds[0], *seeds[1]}) == 4 and max(seeds[0] + seeds[1]) < 2**32  # all bits that torch keeps


def test_the_pictures_show_reconstructions_and_levels(fitted):
    output, _ = fitted
    assert set(output.pictures) == {"reconstruction", "levels"} and output.facts.updates == TRAINING.updates
