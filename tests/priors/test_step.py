"""The step in this process, on a small code dataset: what it commits and which figures it gives."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.artifacts import Artifact
from components.codes.facts import CodesFacts
from components.codes.reader import read_codes
from components.config import StepResources, TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.facts import PriorFacts
from components.priors.objective import PriorObjective
from components.priors.stored import describe_prior, load_prior
from components.store import commits
from components.store.lease import acquire_lease
from components.workspace import Workspace

pytestmark = pytest.mark.slow  # imports Ray

CONFIG = PriorConfig(
    hidden=8,
    residual_hidden=4,
    layers=1,
    filter_size=3,
    dropout=0.2,
    training=TrainingConfig(updates=4, batch_size=8, evaluate_every=2, held_out_samples=64),
)
DIMENSIONS = 16 * 16 * 3


@pytest.fixture
def fit(codes, tmp_path):
    """Fits the prior of a level; gives the folder and the step's output."""
    from components.priors.step import fit_prior

    splits = ["test" if number % 3 == 0 else split for number, split in enumerate(codes.rows["split"].to_pylist())]
    column = codes.rows.schema.get_field_index("split")
    rows = codes.rows.set_column(column, codes.rows.schema.field(column), pa.array(splits))
    dataset = replace(codes, rows=rows).write(tmp_path / "codes")
    facts = CodesFacts(rows=50, usage={}, classes=3, dimensions=DIMENSIONS, test_rows=splits.count("test"))
    artifact = Artifact(
        kind="codes",
        uri=str(tmp_path / "codes"),
        digest=dataset.digest,
        fingerprint="",
        run_id="",
        facts=facts.record(),
    )

    def run(level: str):
        folder = tmp_path / level
        lease = acquire_lease(str(tmp_path / f"lease_{level}"), wait_seconds=0, report=print)
        space = Workspace(name=f"prior_{level}", fingerprint="", uri=str(folder), seed=0, lease=lease)
        return folder, fit_prior(CONFIG, level, artifact, resources=StepResources(), workspace=space)

    return run


def test_classes_and_maps_come_from_the_code_dataset(fit):
    folder, _ = fit("bottom")
    description = describe_prior(commits.local_copy(str(folder)))
    assert (description.level, description.classes, description.shape) == ("bottom", 3, (4, 6))
    assert description.above == (MapSpec(2, 3, 16),) and description.codebook_size == 512
    assert description.architecture.hidden == CONFIG.hidden


@pytest.mark.parametrize("level, number, positions", [("top", 0, 6), ("bottom", 1, 24)])
def test_figures_are_those_of_the_committed_weights(fit, tmp_path, level, number, positions):
    folder, output = fit(level)
    assert PriorFacts.read(commits.read_manifest(str(folder))["facts"]) == output.facts
    model = load_prior(commits.local_copy(str(folder)))
    objective = PriorObjective(model, dimensions=DIMENSIONS).eval()

    def measure(split):
        table = read_codes(str(tmp_path / "codes"), split)
        with torch.no_grad():
            return objective(table.batch(np.flatnonzero(table.copies == 0)))[0].item()  # fewer than held_out_samples

    nats = measure("held_out")
    assert output.facts.train_nats_per_code == pytest.approx(measure("train"), rel=1e-5)
    assert output.facts.test_nats_per_code == pytest.approx(measure("test"), rel=1e-5)
    assert len({nats, measure("train"), measure("test")}) == 3
    assert output.facts.nats_per_code == pytest.approx(nats, rel=1e-5)
    assert output.facts.bits_per_dimension == pytest.approx(nats / math.log(2) * positions / DIMENSIONS, rel=1e-5)
    assert output.facts.codes_per_image == positions
    assert output.facts.parameters == sum(weight.numel() for weight in model.parameters())
