"""Algorithm 1 on Ray Train: fit the hierarchical VQ-VAE."""

import functools
from dataclasses import dataclass

import torch
from torch import nn

from components.artifacts import Artifact
from components.config import StepResources
from components.images.feed import ImageFeed
from components.images.mapped_rows import map_rows
from components.images.pixels import PixelReader
from components.images.snapshot import open_snapshot
from components.images.split import HELD_OUT
from components.images.tensors import to_images
from components.pictures import prefix_grid, reconstruction_grid
from components.tokenizer.config import VQVAEConfig
from components.tokenizer.facts import TokenizerFacts
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.tokenizer.prefixes import decode_prefixes
from components.tokenizer.stored import TokenizerDescription, pack_tokenizer
from components.training.job import FitJob
from components.training.step import run_fit
from components.workspace import StepOutput, Workspace

IMAGES_SHOWN = 12
"""Held-out images in the pictures."""


def fit_tokenizer(
    config: VQVAEConfig, images: Artifact, *, resources: StepResources, workspace: Workspace
) -> StepOutput:
    """Fit on the training rows of the snapshot `images` and commit the best weights by held-out loss."""
    pixels = open_snapshot(images.uri).pixels
    painter = _Painter(images.uri)
    job = FitJob(
        build=functools.partial(_build_objective, config, pixels.channels, workspace.seed),
        data=ImageFeed(
            folder=images.uri, schedule=config.training, order_seed=workspace.seed, readers=resources.readers
        ),
        pictures=painter,
        config=config.training,
        resources=resources,
    )
    result = run_fit(job, workspace=workspace)
    description = TokenizerDescription(architecture=config, channels=pixels.channels, image_size=pixels.image_size)
    model = description.build()
    model.load_state_dict(result.weights)
    model.eval()
    facts = TokenizerFacts(
        reconstruction_error=result.fit_progress.held_out["reconstruction_error"],
        psnr=result.fit_progress.held_out["psnr"],
        best_update=result.fit_progress.best_update,
        updates=result.fit_progress.update,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    digest = workspace.save(pack_tokenizer(model, description), facts)
    return StepOutput(digest=digest, facts=facts, pictures=painter.paint(model))


def _build_objective(config: VQVAEConfig, channels: int, seed: int) -> nn.Module:
    return TokenizerObjective(Tokenizer(config, channels=channels, fitting=config, seed=seed), beta=config.beta)


@dataclass(frozen=True)
class _Painter:
    """Pictures of the same held-out images at every evaluation."""

    folder: str
    """URI of the snapshot."""

    def __call__(self, objective: nn.Module) -> dict[str, bytes]:
        assert isinstance(objective, TokenizerObjective)
        return self.paint(objective.model)

    @torch.no_grad()
    def paint(self, model: Tokenizer) -> dict[str, bytes]:
        """`reconstruction`: images above their reconstructions; `levels`: decoded from ever more levels."""
        snapshot = open_snapshot(self.folder)
        rows = map_rows(snapshot, HELD_OUT).gallery(IMAGES_SHOWN)
        pixels = PixelReader(snapshot.pixels, snapshot.seed).read(rows)  # uint8 (n, height, width, c)
        device = next(model.parameters()).device
        maps = model.encode(to_images(torch.from_numpy(pixels)).to(device))  # (n, h, w) per level
        prefixes = decode_prefixes(model, maps)
        *_, from_all_levels = prefixes.values()
        return {
            "reconstruction": reconstruction_grid(pixels, from_all_levels),
            "levels": prefix_grid(pixels, prefixes),
        }
