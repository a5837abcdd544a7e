"""The field's feature extractors as exported programs, from weights files that the user downloaded."""

import functools
import importlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.config import require
from components.errors import UsageError
from components.evaluation.features.dinov2 import DinoV2
from components.evaluation.features.lpips import LearnedDistance

EXAMPLE_SIDE = 32
"""Side of the images with which programs of any size are exported."""
INCEPTION_FEATURES = ("2048", "logits_unbiased")
"""Layers of the Inception network, as torch-fidelity names them: features of FID, KID, precision and recall; logits of
the inception score, without the last layer's bias as in TensorFlow's graph."""
DINOV2_SIDE = 224
"""Side in pixels to which torch-fidelity resizes images for DINOv2."""
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]: what DINOv2 was trained with."""


def export_inception(weights: Path) -> bytes:
    """The Inception network of FID with torch-fidelity's resize (TensorFlow 1's bilinear) to 299 inside.

    Input float (n, 3, h, w) in [0, 255], any sides; output features (n, 2048) and logits (n, 1008). Raises UsageError
    without torch-fidelity, ValueError for other weights.
    """
    fidelity = import_fidelity()
    tensors = read_weights(weights)
    with tempfile.TemporaryDirectory() as folder:
        # torch-fidelity unpickles the file that it is given without limits: it gets tensors only.
        checked = Path(folder) / "weights.pth"
        torch.save(tensors, checked)
        try:
            network = fidelity.FeatureExtractorInceptionV3("inception", list(INCEPTION_FEATURES), str(checked))
        except RuntimeError as error:  # names or shapes of tensors
            raise ValueError(
                f"{weights} must hold the weights of torch-fidelity's InceptionV3 "
                f"(weights-inception-2015-12-05-6726825d.pth), but they do not fit: {error}"
            ) from error
    return export(_OfPixels(network), images=1)


def export_dinov2(weights: Path) -> bytes:
    """DINOv2 with torch-fidelity's resize (TensorFlow 1's bilinear) to 224 and ImageNet's normalisation inside.

    Input float (n, 3, h, w) in [0, 255], any sides; output the class token (n, f). Raises as `export_inception` does.
    """
    interpolate = import_fidelity().interpolate_compat_tensorflow.interpolate_bilinear_2d_like_tensorflow1x
    network = DinoV2.from_weights(read_weights(weights), str(weights))
    return export(_Normalised(network, functools.partial(interpolate, size=(DINOV2_SIDE,) * 2, align_corners=False)))


def export_lpips(weights: Path, vgg_weights: Path) -> bytes:
    """LPIPS with VGG-16: two sets of images float (n, 3, h, w) in [0, 255], any sides from 16 -> distances (n,)."""
    network = LearnedDistance.from_weights(read_weights(weights), read_weights(vgg_weights), str(weights))
    return export(network, images=2)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a weights file (.pth) that torch.save wrote; ValueError for anything else. Runs no code."""
    require(path.is_file(), f"the weights must be a file that you downloaded, found nothing at {path}")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the reader raise anything
        raise ValueError(
            f"{path} must hold weights alone, but it cannot be read: {error}: download it again"
        ) from error
    names = isinstance(tensors, dict) and all(isinstance(value, Tensor) for value in tensors.values())
    require(names, f"{path} must hold tensors by name, got {type(tensors).__name__}: is this a file of weights?")
    return dict(tensors)


def export(model: nn.Module, images: int = 1) -> bytes:
    """The .pt2 file of a `model` that takes `images` sets of images (n, 3, h, w) of any n, h and w."""
    any_size = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    # One tensor each: torch.export takes the same tensor twice for one input.
    examples = tuple(torch.zeros(2, 3, EXAMPLE_SIDE, EXAMPLE_SIDE) for _ in range(images))
    with torch.no_grad():
        program = torch.export.export(model.eval(), examples, dynamic_shapes=(any_size,) * images)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


class _OfPixels(nn.Module):
    """An extractor of torch-fidelity, which takes uint8, as a function of floats."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images.round().clamp(0, 255).to(torch.uint8))


class _Normalised(nn.Module):
    """Resizes images in [0, 255], scales them by ImageNet's mean and deviation, and applies a network."""

    def __init__(self, network: nn.Module, resize: Any) -> None:
        super().__init__()
        self.network, self.resize = network, resize
        self.register_buffer("mean", _per_channel(IMAGENET_MEAN))
        self.register_buffer("deviation", _per_channel(IMAGENET_DEVIATION))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((self.resize(images) - self.mean) / self.deviation)


def _per_channel(values: Sequence[float]) -> Tensor:
    return 255 * torch.tensor(values).reshape(1, 3, 1, 1)


# --- torch-fidelity ---------------------------------------------------------------------------------------------------


def import_fidelity() -> Any:
    """The package torch_fidelity; UsageError where it is not installed."""
    try:
        _import_torchvision()
        import torch_fidelity
        import torch_fidelity.interpolate_compat_tensorflow
    except ImportError as error:
        raise UsageError(
            f"this needs torch-fidelity, which is not installed ({error}): pip install -c constraints.txt '.[features]'"
        ) from error
    return torch_fidelity


def _import_torchvision() -> None:
    """torch-fidelity imports all of torchvision and uses none of its compiled operators for Inception.

    PyPI's torchvision, built for CUDA, cannot load them beside a torch for CPUs, and then fails to import: it describes
    two of them to torch. They are declared here, without an implementation.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
