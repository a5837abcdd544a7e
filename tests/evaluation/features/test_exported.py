"""The exported programs give torch-fidelity's own numbers, and the measures on them its own figures."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from components.errors import UsageError
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.dinov2 import DinoV2, interpolate_positions
from components.evaluation.features.exported import export_lpips, import_fidelity, read_weights
from components.evaluation.features.stored import load_distance, load_features
from components.evaluation.measures.frechet import frechet_distance
from components.evaluation.measures.inception_score import estimate_inception_score
from components.evaluation.measures.kernel import estimate_kernel_distance
from components.evaluation.measures.kinds import ComparisonSettings, FeatureSet
from components.evaluation.measures.moments import Moments
from components.evaluation.measures.neighbours import estimate_precision, estimate_recall

SETTINGS = ComparisonSettings(kernel_subsets=20, kernel_subset_size=20, splits=3, neighbours=3, bootstrap=2)
"""As in with_fidelity.py."""


def pixels_of(folder) -> torch.Tensor:
    """uint8 (n, h, w, 3) of the PNG files of a folder, in the order of their names."""
    return torch.stack([torch.from_numpy(np.asarray(Image.open(path)).copy()) for path in sorted(folder.glob("*.png"))])


@pytest.fixture(scope="module")
def sets(reference):
    """Features of samples and of real images by our Inception program."""
    folder = reference.folder
    program = load_features(FeaturesConfig(name="inception", program=f"{folder}/inception.pt2"), 3, 40)
    found = {}
    for name in ("samples", "real"):
        parts = [program(part) for part in pixels_of(folder / name).split(16)]
        features, logits = (torch.cat(each) for each in zip(*parts, strict=True))
        found[name] = FeatureSet(features, logits.softmax(1), torch.full((len(features),), -1))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name, outputs", [("inception", ("features", "logits")), ("dinov2", ("dinov2",))])
def test_a_program_gives_torch_fidelity_s_features(reference, name, outputs):
    program = load_features(FeaturesConfig(name=name, program=f"{reference.folder}/{name}.pt2"), 3, 40)
    wanted = np.load(reference.folder / "outputs.npz")
    for got, output in zip(program(pixels_of(reference.folder / "real")[::8]), outputs, strict=False):
        torch.testing.assert_close(got, torch.from_numpy(wanted[output]), rtol=1e-4, atol=1e-4)
        assert got.std(dim=0).mean() > 0.005  # images differ: equality says something


@pytest.mark.slow
def test_the_lpips_program_gives_torch_fidelity_s_distances(reference):
    program = load_distance(f"{reference.folder}/lpips.pt2", 3, 40)
    a, b = (pixels_of(reference.folder / name)[::8] for name in ("real", "samples"))
    wanted = torch.from_numpy(np.load(reference.folder / "outputs.npz")["lpips"])
    torch.testing.assert_close(program(a, b), wanted, rtol=1e-4, atol=1e-5)
    assert wanted.min() > 0.01 and program(a, a).max() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "key, measure",
    [
        ("kernel_inception_distance_mean", estimate_kernel_distance),
        ("precision", estimate_precision),
        ("recall", estimate_recall),
        ("inception_score_mean", estimate_inception_score),
    ],
)
def test_figures_equal_torch_fidelity_s_on_the_same_images(reference, sets, key, measure):
    assert measure(sets["real"], sets["samples"], SETTINGS).value == pytest.approx(reference.metrics[key], rel=1e-3)


@pytest.mark.slow
def test_the_frechet_distance_equals_torch_fidelity_s_fid(reference, sets):
    moments = [Moments.of(sets[name].features) for name in ("real", "samples")]
    assert frechet_distance(*moments) == pytest.approx(reference.metrics["frechet_inception_distance"], rel=1e-3)


@pytest.mark.slow
def test_the_reference_figures_are_not_trivial(reference):
    metrics = reference.metrics
    assert 0.05 < metrics["precision"] < 0.95 and 0.05 < metrics["recall"] < 0.95
    assert metrics["inception_score_mean"] > 1.5 and metrics["kernel_inception_distance_mean"] > 0.01


# --- weights ----------------------------------------------------------------------------------------------------------


def test_positions_keep_their_place_when_they_are_interpolated():
    rows = torch.linspace(0, 1, 37).repeat_interleave(37)  # grows from row to row
    positions = torch.cat([torch.tensor([7.0]), rows])[None, :, None]
    changed = interpolate_positions(positions, 16)
    grid = changed[0, 1:, 0].reshape(16, 16)
    assert changed[0, 0, 0] == 7 and torch.equal(interpolate_positions(changed, 16), changed)
    torch.testing.assert_close(grid[:, 0], grid[:, -1])
    centres = (torch.arange(16) + 0.5) * (37 / 16.1) - 0.5  # where the published code samples
    torch.testing.assert_close(grid[2:-2, 3], centres[2:-2] / 36, rtol=0, atol=2e-3)  # a bicubic is not a line
    without_offset = (torch.arange(16) + 0.5) * (37 / 16) - 0.5
    assert (grid[13, 3] - without_offset[13] / 36).abs() > 4e-3


def test_the_largest_size_has_gated_layers():
    """ViT-g: names and shapes as published, and the layer by its formula (Shazeer 2020, equation 6)."""
    published = DinoV2(width=64, depth=1, mlp_width=24, gated=True).state_dict()
    published |= {"pos_embed": torch.randn(1, 1 + 37**2, 64), "mask_token": torch.zeros(1, 64)}
    network = DinoV2.from_weights(published, "giant.pth")
    assert network(torch.randn(2, 3, 224, 224)).shape == (2, 64)
    layer, tokens = network.blocks[0].mlp, torch.randn(2, 5, 64)
    gate, values = (tokens @ half.T for half in layer.w12.weight.split(24))
    gate, values = gate + layer.w12.bias[:24], values + layer.w12.bias[24:]
    wanted = (gate * gate.sigmoid() * values) @ layer.w3.weight.T + layer.w3.bias
    torch.testing.assert_close(layer(tokens), wanted)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    other = read_weights(tmp_path / "other.pth")
    with pytest.raises(ValueError, match="must hold the weights of DINOv2 without registers"):
        DinoV2.from_weights(other, "other.pth")
    with pytest.raises(ValueError, match=r"the 5 weights of LPIPS \(vgg.pth of version 0.1\).*got 0 and 0"):
        export_lpips(tmp_path / "other.pth", tmp_path / "other.pth")


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_weights_file_is_refused_and_its_code_does_not_run(tmp_path):
    torch.save({"fc.weight": Marker(tmp_path / "marker")}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"must hold weights alone, but it cannot be read: .*Weights only load failed"):
        read_weights(tmp_path / "hostile.pth")
    assert not (tmp_path / "marker").exists()
    with pytest.raises(ValueError, match="the weights must be a file that you downloaded, found nothing at"):
        read_weights(tmp_path / "missing.pth")


def test_without_torch_fidelity_the_error_says_how_to_install_it(monkeypatch):
    for name in ("torchvision", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    with pytest.raises(UsageError, match=r"pip install -c constraints.txt '.\[features\]'"):
        import_fidelity()
