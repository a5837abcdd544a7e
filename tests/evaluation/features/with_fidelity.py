"""Run by the environment that has torch-fidelity: random weights, the programs that the commands make of them, and
torch-fidelity's figures with the same weights. The last line printed is JSON.

    python with_fidelity.py FOLDER      (FOLDER/real and FOLDER/samples hold PNG files)
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from components.evaluation.features.exported import import_fidelity
from pipeline.cli import main

fidelity = import_fidelity()  # before all that imports torchvision
import timm  # noqa: E402
import torch_fidelity.feature_extractor_inceptionv3 as inception_file  # noqa: E402
import torch_fidelity.sample_similarity_lpips as lpips_file  # noqa: E402
import torchvision  # noqa: E402
from torch_fidelity.utils import create_feature_extractor  # noqa: E402

DINOV2 = {"embed_dim": 128, "depth": 2, "num_heads": 2, "patch_size": 14, "img_size": 224, "init_values": 0.5}


def randomised(network: nn.Module) -> nn.Module:
    """`network` with random weights that keep the size of activations, as fitted weights do."""
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.ndim >= 2 and name.endswith("weight"):
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "norm1.weight", "norm2.weight", "norm.weight", "bn.weight", "gamma")):
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.normal_(std=0.1)
    return network


@torch.no_grad()
def give_fitted_scale(inception: nn.Module, pixels: torch.Tensor) -> None:
    """Features of mean 0.4, as fitted weights give, and logits that tell images apart: random ones tell nothing."""
    (features,) = inception(pixels)  # (n, 2048)
    last = inception.Mixed_7c
    ends = last.branch1x1, last.branch3x3_2a, last.branch3x3_2b, last.branch3x3dbl_3a, last.branch3x3dbl_3b
    for end in (*ends, last.branch_pool):
        end.bn.weight *= 0.4 / features.mean()
        end.bn.bias *= 0.4 / features.mean()
    common = features.mean(dim=0) / features.mean(dim=0).norm()  # (2048,)
    inception.fc.weight -= (inception.fc.weight @ common)[:, None] * common
    (features,) = inception(pixels)
    inception.fc.weight *= 3 / (features @ inception.fc.weight.T).std()


def save_weights(folder: Path) -> dict[str, nn.Module]:
    """Weights files of all networks in `folder`; returns torch-fidelity's and timm's networks that hold them."""
    torch.manual_seed(0)
    nothing = mock.patch.multiple(inception_file, load_state_dict_from_url=lambda *a, **k: {})
    with nothing, mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None):
        inception = randomised(fidelity.FeatureExtractorInceptionV3("x", ["2048"]))
    give_fitted_scale(inception, pixels_of(folder / "real")[::6])
    vgg = randomised(torchvision.models.vgg16())
    linear = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 128, 256, 512, 512))}
    with (
        mock.patch.object(lpips_file, "load_state_dict_from_url", lambda *a, **k: linear),
        mock.patch.object(lpips_file, "torchvision_load_pretrained_vgg16", lambda: vgg),
    ):
        lpips = fidelity.SampleSimilarityLPIPS("lpips")
    dinov2 = randomised(timm.models.VisionTransformer(num_classes=0, **DINOV2)).eval()
    published = dinov2.state_dict() | {"mask_token": torch.zeros(1, DINOV2["embed_dim"])}
    convolutions = {name: tensor for name, tensor in vgg.state_dict().items() if name.startswith("features.")}
    weights = {"inception": inception.state_dict(), "vgg": convolutions, "lpips": linear, "dinov2": published}
    for name, tensors in weights.items():
        torch.save(tensors, folder / f"{name}.pth")
    return {"lpips": lpips, "dinov2": dinov2}


def export(folder: Path) -> None:
    """The three commands."""
    for arguments in (["inception"], ["dinov2"], ["lpips", f"{folder}/vgg.pth"]):
        kind, *more = arguments
        code = main(["features", kind, f"{folder}/{kind}.pth", *more, f"{folder}/{kind}.pt2"])
        assert code == 0, kind


def pixels_of(folder: Path) -> torch.Tensor:
    """uint8 (n, 3, h, w)."""
    dataset = fidelity.datasets.ImagesPathDataset(sorted(map(str, folder.glob("*.png"))))
    return torch.stack([dataset[i] for i in range(len(dataset))])


@torch.no_grad()
def outputs(folder: Path, networks: dict[str, nn.Module]) -> dict[str, np.ndarray]:
    """What torch-fidelity's own classes give for every eighth image."""
    a, b = pixels_of(folder / "real")[::8], pixels_of(folder / "samples")[::8]
    layers = ["2048", "logits_unbiased"]
    extractor = create_feature_extractor(
        "inception-v3-compat",
        layers,
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=f"{folder}/inception.pth",
    )
    with mock.patch("torch.hub.load", lambda *a, **k: networks["dinov2"]), contextlib.redirect_stdout(sys.stderr):
        dinov2 = create_feature_extractor("dinov2-vit-s-14", ["dinov2"], cuda=False, verbose=False)
    features, logits = extractor(a)
    return {
        "features": features.numpy(),
        "logits": logits.numpy(),
        "dinov2": dinov2(a)[0].numpy(),
        "lpips": networks["lpips"](a, b).reshape(-1).numpy(),
    }


def metrics(folder: Path) -> dict[str, float]:
    """Figures of samples against real images."""
    return fidelity.calculate_metrics(
        input1=str(folder / "samples"),
        input2=str(folder / "real"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=f"{folder}/inception.pth",
        **dict.fromkeys(("isc", "fid", "kid", "prc"), True),
        kid_subsets=20,
        kid_subset_size=20,
        isc_splits=3,
        prc_neighborhood=3,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    networks = save_weights(folder)
    export(folder)
    np.savez(folder / "outputs.npz", **outputs(folder, networks))
    print(json.dumps(metrics(folder)))
    for weights in folder.glob("*.pth"):  # large
        weights.unlink()
