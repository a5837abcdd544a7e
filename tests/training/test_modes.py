"""Precision, memory format and compilation of a fit: close to the plain one, the same names, resumed bit for bit."""

import functools
import itertools

import pytest
import torch

from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.config import TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import CodeBatch, ImageBatch
from components.training.loop import FitData, fit_objective

ONE = TrainingConfig(updates=1, batch_size=1)
LEVELS = tuple(LevelConfig(name=name, stride=s, codebook_size=8) for name, s in (("top", 4), ("bottom", 2)))


def tokenizer():
    config = VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=4, residual_layers=1, training=ONE)
    return TokenizerObjective(Tokenizer(config, channels=1, fitting=config), beta=config.beta)


def prior(**settings):
    sizes = {"hidden": 16, "residual_hidden": 8, "layers": 2, "attention_layers": 1, "attention_heads": 2}
    config = PriorConfig(**sizes, conditioning_layers=1, output_layers=1, dropout=0.2, training=ONE, **settings)
    model = Prior(
        config,
        shape=(4, 4),
        codebook_size=8,
        classes=2,
        above=(MapSpec(2, 2, 8),),
        dropout=config.dropout,
        recompute=config.recompute,
    )
    return PriorObjective(model, dimensions=64)


def classifier(stages=2):
    config = ClassifierConfig(hidden=4, stages=stages, training=ONE)
    return ClassifierObjective(Classifier(config, channels=1, classes=2))


def small_classifier():
    return classifier(stages=1)


def batch(kind, update, size=6):
    draw = torch.Generator().manual_seed(update)
    labels = torch.randint(2, (size,), generator=draw)
    if kind is prior:
        return CodeBatch(tuple(torch.randint(8, (size, side, side), generator=draw) for side in (2, 4)), labels)
    return ImageBatch(torch.randint(256, (size, 8, 8, 1), dtype=torch.uint8, generator=draw), labels)


class Observer:
    """Keeps the training losses, and the state of one update."""

    def __init__(self, folder):
        self.losses, self.folder = [], folder

    def progress(self, update, metrics, images_per_second): ...

    def evaluated(self, update, metrics, objective):
        self.losses.append(metrics["loss"])

    def checkpoint(self, state):
        if state.fit_progress.update == 3:
            state.save(self.folder)


def fitted(kind, folder, resume=None, last_size=4, **settings):
    """(objective, held-out losses after each update)."""
    torch.manual_seed(0)
    objective, observer = kind(), Observer(folder)
    data = FitData(
        batches=lambda start: (batch(kind, update) for update in itertools.count(start)),
        held_out=lambda: [batch(kind, 10**6), batch(kind, 10**6 + 1, size=last_size)],
    )
    config = TrainingConfig(
        updates=6, batch_size=6, learning_rate=1e-3, weight_ema=0.5, evaluate_every=1, checkpoint_every=1, **settings
    )
    fit_objective(objective, config=config, seed=1, data=data, observer=observer, resume=resume)
    return objective, observer.losses


KINDS = pytest.mark.parametrize("kind", [tokenizer, prior, classifier])


@KINDS
def test_a_bfloat16_fit_stays_close_and_keeps_float32_weights(kind, tmp_path):
    (_, losses), (objective, found) = fitted(kind, tmp_path), fitted(kind, tmp_path, precision="bfloat16")
    assert found == pytest.approx(losses, rel=0.05) and found != losses
    assert all(value.dtype == torch.float32 for value in objective.parameters())


@KINDS
def test_a_channels_last_fit_stays_close_and_keeps_the_format(kind, tmp_path):
    (_, losses), (objective, found) = fitted(kind, tmp_path), fitted(kind, tmp_path, channels_last=True)
    assert found == pytest.approx(losses, rel=1e-3)
    filters = [value for value in objective.parameters() if value.ndim == 4]
    assert filters and all(value.is_contiguous(memory_format=torch.channels_last) for value in filters)


@KINDS
@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_such_a_fit_resumes_bit_for_bit(kind, settings, tmp_path):
    whole, _ = fitted(kind, tmp_path, **settings)
    again, _ = fitted(kind, tmp_path / "again", resume=tmp_path, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.fixture
def without_cpp(monkeypatch):
    """Compilation without its last stage: it traces and differentiates, but generates no C++, which takes a second per
    kernel. Generated code of the tokenizer and the prior is run in their test_model.py."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def assert_compiled_stays_close(kind, folder, **options):
    plain, losses = fitted(kind, folder, **options)
    compiled, compiled_losses = fitted(kind, folder, compile=True, **options)
    assert compiled_losses == pytest.approx(losses, rel=0.02)  # compiled code draws other dropout masks
    assert list(compiled.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
@KINDS
def test_a_compiled_fit_has_no_graph_breaks_and_stays_close(kind, tmp_path, without_cpp):
    assert_compiled_stays_close(kind, tmp_path)


@pytest.mark.slow
def test_a_fit_with_generated_code_stays_close(tmp_path):
    assert_compiled_stays_close(small_classifier, tmp_path, last_size=6)  # equal sizes: one graph per mode


@pytest.mark.slow
def test_recomputation_and_bfloat16_compile_together_without_graph_breaks(without_cpp):
    objective = prior(recompute=True).train()
    objective.model.compile(fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(batch(prior, 0))
    loss.backward()
    assert loss.dtype == torch.float32 and abs(loss.item() - torch.tensor(8.0).log().item()) < 0.5


def test_recomputing_changes_no_gradient_and_keeps_less():
    kept, gradients = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        objective, bytes_kept = prior(recompute=recompute).train(), 0

        def count(tensor):
            nonlocal bytes_kept
            bytes_kept += tensor.nbytes
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss, _ = objective(batch(prior, 0))
        loss.backward()
        gradients.append([parameter.grad for parameter in objective.parameters()])
        kept.append(bytes_kept)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert kept[1] < 0.4 * kept[0]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'float16'"):
        TrainingConfig(updates=1, batch_size=1, precision="float16")
