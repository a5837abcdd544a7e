"""Algorithm 1 on Ray Train: fit the hierarchical VQ-VAE."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from components.artifacts import Artifact
from components.cluster.step import Cluster
from components.config import StepResources
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.split import HELD_OUT
from components.pictures import prefix_grid, reconstruction_grid
from components.store import commits
from components.store.weights import TokenizerDescription, pack
from components.tokenizer.config import VQVAEConfig
from components.tokenizer.model import Tokenizer, to_images, to_pixels
from components.tokenizer.objective import TokenizerObjective
from components.training import step as training
from components.workspace import StepOutput, Workspace

IMAGES_SHOWN = 12
"""Held-out images in the pictures."""


def fit_tokenizer(
    config: VQVAEConfig,
    images_config: ImagesConfig,
    images: Artifact,
    *,
    resources: StepResources,
    cluster: Cluster,
    workspace: Workspace,
) -> StepOutput:
    """Fit on the training rows of the snapshot `images` and commit the best weights by held-out loss."""
    feed = training.ImageFeed(
        folder=images.uri,
        images=images_config,
        pixel_seed=workspace.seed,
        config=config.training,
        order_seed=workspace.seed,
        readers=resources.readers,
    )
    painter = _Painter(images.uri, images_config, workspace.seed)
    job = training.FitJob(
        build=functools.partial(_build, config, images_config.channels),
        data=feed,
        pictures=painter,
        config=config.training,
        resources=resources,
    )
    fitted = training.run_fit(job, cluster=cluster, workspace=workspace)
    model = Tokenizer(config, channels=images_config.channels)
    model.load_state_dict(fitted.weights)
    model.eval()
    facts = {
        "reconstruction_error": fitted.fit_progress.held_out["reconstruction_error"],
        "psnr": fitted.fit_progress.held_out["psnr"],
        "best_update": fitted.fit_progress.best_update,
        "updates": fitted.fit_progress.update,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    description = TokenizerDescription(
        settings=config, channels=images_config.channels, image_size=images_config.image_size
    )
    workspace.lease.check()
    digest = commits.save_artifact(workspace.uri, pack(model, description), facts)
    return StepOutput(digest=digest, facts=facts, pictures=painter.paint(model))


def _build(config: VQVAEConfig, channels: int) -> nn.Module:
    return TokenizerObjective(Tokenizer(config, channels=channels))


@dataclass(frozen=True)
class _Painter:
    """Pictures of the same held-out images at every evaluation."""

    folder: str
    images: ImagesConfig
    seed: int

    def __call__(self, objective: nn.Module) -> dict[str, bytes]:
        assert isinstance(objective, TokenizerObjective)
        return self.paint(objective.model)

    @torch.no_grad()
    def paint(self, model: Tokenizer) -> dict[str, bytes]:
        """`reconstruction`: images above their reconstructions; `levels`: decoded from the top, then from more."""
        rows = read_snapshot(self.folder).originals(HELD_OUT).slice(0, IMAGES_SHOWN)
        pixels = PixelReader(self.images, self.seed).read(rows)
        device = next(model.parameters()).device
        maps = model.encode(to_images(torch.from_numpy(pixels)).to(device))
        names = [level.name for level in model.config.levels]
        prefixes = {" + ".join(names[:count]): self._decode(model, maps[:count]) for count in range(1, len(names) + 1)}
        return {
            "reconstruction": reconstruction_grid(pixels, prefixes[" + ".join(names)]),
            "levels": prefix_grid(pixels, prefixes),
        }

    def _decode(self, model: Tokenizer, maps: tuple[torch.Tensor, ...]) -> np.ndarray:
        return to_pixels(model.decode_prefix(maps)).cpu().numpy()
