"""Every fit measures the same held-out images, spread over the classes, although rows are sorted by class."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.artifacts import Artifact
from components.classifier.config import ClassifierArchitecture, ClassifierConfig
from components.classifier.model import Classifier
from components.codes.config import CodesConfig
from components.codes.dataset import TokenizerFiles, tokenizer_digest
from components.codes.reader import CodeTable
from components.config import StepResources, TrainingConfig
from components.images.commit import commit_snapshot
from components.images.config import AugmentConfig, ImagesConfig
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.sources.registry import list_images
from components.images.split import HELD_OUT, TEST, TRAIN
from components.priors.config import PriorConfig
from components.store import commits
from components.store.lease import acquire_lease
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.workspace import Workspace

pytestmark = pytest.mark.slow  # imports Ray

SIZES = {"ant": 100, "bee": 40, "cat": 100, "dog": 20}
HELD_OUT_SAMPLES = 13
TRAINING = TrainingConfig(updates=2, batch_size=8, evaluate_every=2, held_out_samples=HELD_OUT_SAMPLES)
LEVELS = (LevelConfig(name="top", stride=8, codebook_size=8), LevelConfig(name="bottom", stride=4, codebook_size=8))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A snapshot whose rows are sorted by class, with augmented copies and all three splits."""
    root = tmp_path_factory.mktemp("sorted")
    for name, count in SIZES.items():
        (root / "files" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([number, len(name)]).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "files" / name / f"{number:03}.png")
    augment = AugmentConfig(copies=2, degrees=5)
    settings = {"source": "folder", "uri": str(root / "files"), "image_size": 16, "channels": 1, "augment": augment}
    config, folder = ImagesConfig(**settings, held_out=0.3, test=0.2), str(root / "snapshot")
    digest = commit_snapshot(folder, list_images(config, folder), [], config, seed=0)
    return Artifact(kind="images", uri=folder, digest=digest, fingerprint="", run_id="")


@pytest.fixture
def rows_read(images, monkeypatch):
    """Ids of the rows that a fit reads for measuring, by split, in the order of their first reading."""
    seen = {HELD_OUT: [], TEST: [], TRAIN: []}
    split_of = {row["id"]: row["split"] for row in read_snapshot(images.uri).table.to_pylist()}
    images_of, batch = PixelReader._images, CodeTable.batch

    def read_rows(reader, rows):
        for row_id in rows["id"].to_pylist():
            seen[split_of[row_id]].append(row_id)
        return images_of(reader, rows)

    def read_batch(table, positions):
        seen[table.split] += table.ids[positions].tolist()
        return batch(table, positions)

    monkeypatch.setattr(PixelReader, "_images", read_rows)
    monkeypatch.setattr(CodeTable, "batch", read_batch)
    return seen


@pytest.fixture
def space(tmp_path):
    def make(name):
        lease = acquire_lease(str(tmp_path / f"lease-{name}"), wait_seconds=0, report=print)
        return Workspace(name=name, fingerprint="", uri=str(tmp_path / name), seed=0, lease=lease)

    return make


def assert_spread(images, ids):
    """The ids are those that every fit must read: HELD_OUT_SAMPLES images of all classes, in proportion."""
    snapshot = read_snapshot(images.uri)
    labels = {row["id"]: row["label"] for row in snapshot.originals(HELD_OUT).to_pylist()}
    in_all, in_sample = (np.bincount(list(each), minlength=4) for each in (labels.values(), map(labels.get, ids)))
    assert len(ids) == HELD_OUT_SAMPLES < sum(in_all) and (in_sample > 0).all()
    assert (np.abs(in_sample - HELD_OUT_SAMPLES * in_all / sum(in_all)) < 1).all()
    assert ids == snapshot.sample(HELD_OUT, HELD_OUT_SAMPLES)["id"].to_pylist()


def fit_a_classifier(images, space, **settings):
    from components.classifier.step import fit_classifier

    config = ClassifierConfig(hidden=4, training=TRAINING, **settings)
    return fit_classifier(config, images, resources=StepResources(), workspace=space)


def fit_a_tokenizer(images, space):
    from components.tokenizer.step import fit_tokenizer

    config = VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=4, training=TRAINING)
    return fit_tokenizer(config, images, resources=StepResources(), workspace=space)


def test_a_classifier(images, space, rows_read):
    fit_a_classifier(images, space("classifier"))
    assert_spread(images, rows_read[HELD_OUT])


def test_a_classifier_s_program(images, space, rows_read, tmp_path):
    model, file = Classifier(ClassifierArchitecture(hidden=4), channels=1, classes=4).eval(), io.BytesIO()
    dynamic = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=dynamic), file)
    (tmp_path / "mine.pt2").write_bytes(file.getvalue())
    fit_a_classifier(images, space("classifier"), program=str(tmp_path / "mine.pt2"))
    assert_spread(images, rows_read[HELD_OUT])


def test_a_tokenizer_and_its_pictures_and_the_priors_of_its_codes(images, space, rows_read):
    from components.codes.step import encode_snapshot
    from components.priors.step import fit_prior
    from components.tokenizer.step import IMAGES_SHOWN

    tokenizer_space = space("tokenizer")
    fit_a_tokenizer(images, tokenizer_space)
    ids = list(rows_read[HELD_OUT])
    assert_spread(images, ids[:HELD_OUT_SAMPLES])
    snapshot = read_snapshot(images.uri)
    labels = {row["id"]: row["label"] for row in snapshot.table.to_pylist()}
    pictured = ids[HELD_OUT_SAMPLES:]
    assert pictured == pictured[:IMAGES_SHOWN] * 2  # at the evaluation and at the end
    assert np.bincount([labels[each] for each in pictured[:IMAGES_SHOWN]]).tolist() == [3, 3, 3, 3]

    folder = commits.local_copy(tokenizer_space.uri)
    codes_space = space("codes")
    output = encode_snapshot(
        CodesConfig(rows_per_shard=64, rows_per_wave=64),
        images.uri,
        TokenizerFiles(folder, tokenizer_digest(folder)),
        max_rejects=0,
        resources=StepResources(),
        workspace=codes_space,
    )
    facts = output.facts.record()
    codes = Artifact(kind="codes", uri=codes_space.uri, digest=output.digest, fingerprint="", run_id="", facts=facts)
    config = PriorConfig(hidden=8, residual_hidden=4, layers=1, filter_size=3, training=TRAINING)
    rows_read.update({HELD_OUT: [], TEST: [], TRAIN: []})
    prior = fit_prior(config, "bottom", codes, resources=StepResources(), workspace=space("prior"))
    assert_spread(images, rows_read[HELD_OUT])
    assert rows_read[TEST] == snapshot.sample(TEST, HELD_OUT_SAMPLES)["id"].to_pylist()
    drawn, measured = rows_read[TRAIN][:-HELD_OUT_SAMPLES], rows_read[TRAIN][-HELD_OUT_SAMPLES:]
    assert len(drawn) == TRAINING.updates * TRAINING.batch_size
    assert measured == snapshot.sample(TRAIN, HELD_OUT_SAMPLES)["id"].to_pylist()
    assert prior.facts.test_nats_per_code is not None and facts["test_rows"] == snapshot.split(TEST).num_rows
