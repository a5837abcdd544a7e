"""What `vqvae.prefix_share` costs and gives on photos: fits of the preset `folder`'s tokenizer that differ in it alone.

    python -m benchmarks.prefixes PHOTOS --held-out chelsea astronaut --shares 0 0.05 --updates 1500 --out FOLDER

PHOTOS is a folder of a few photos. Crops of three scales are cut from each. Two sets of crops are held out: `parts`,
from the right quarter of the photos whose other part is trained on, and `photos`, from the photos named by --held-out.
Nothing is downloaded.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.processes import describe_machine
from components.images.tensors import to_images
from components.pictures import prefix_grid
from components.tokenizer.config import VQVAEConfig
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.tokenizer.prefixes import decode_prefixes
from components.training.batches import ImageBatch
from components.training.loop import FitData, SilentObserver, fit_objective
from pipeline.config_files import load_config

SCALES = (0.25, 0.5, 1.0)
"""Factors by which a photo is resized before crops are cut."""
SHOWN = 8
"""Held-out crops in the level picture."""


def crops(photo: Path, count: int, size: int, seed: int, columns: tuple[float, float] = (0, 1)) -> np.ndarray:
    """`count` random crops of a photo, uint8 (count, size, size, 3), equally many of each scale.

    `columns` is the part of the photo they come from: fractions of its width.
    """
    draws = np.random.default_rng(seed)
    with Image.open(photo) as opened:
        left, right = (round(fraction * opened.width) for fraction in columns)
        original = opened.convert("RGB").crop((left, 0, right, opened.height))
    cut = []
    for scale in SCALES:
        sides = [max(size, round(side * scale)) for side in original.size]
        pixels = np.asarray(original.resize(sides, Image.Resampling.BICUBIC))  # (height, width, 3)
        for _ in range(count // len(SCALES)):
            top, left = (draws.integers(0, side - size + 1) for side in pixels.shape[:2])
            cut.append(pixels[top : top + size, left : left + size])
    return np.stack(cut)


def fit(config: VQVAEConfig, pixels: torch.Tensor, seed: int) -> Tokenizer:
    """The preset's tokenizer after config.training.updates updates: the last weights."""
    size = config.training.batch_size

    def batches(first: int) -> Iterator[ImageBatch]:
        for update in range(first, config.training.updates):
            draws = torch.Generator().manual_seed(seed * 1_000_003 + update)
            rows = torch.randint(len(pixels), (size,), generator=draws)
            yield ImageBatch(pixels[rows], torch.zeros(size, dtype=torch.int64))

    torch.manual_seed(seed)
    objective = TokenizerObjective(Tokenizer(config, channels=3, fitting=config), beta=config.beta)
    data = FitData(batches=batches, held_out=lambda: list(batches(config.training.updates - 1)))
    fit_objective(objective, config=config.training, seed=seed, data=data, observer=SilentObserver())
    return objective.model.eval()


@torch.no_grad()
def errors(model: Tokenizer, pixels: torch.Tensor) -> dict[str, float]:
    """Mean squared errors of images in [-1, 1] from all levels and from the top level alone; top codes that occur."""
    sums = {"all_levels": 0.0, "top_alone": 0.0}
    used: set[int] = set()
    for chunk in pixels.split(128):
        images = to_images(chunk)  # (n, 3, size, size)
        maps = model.encode(images)
        used |= set(maps[0].flatten().tolist())
        sums["all_levels"] += float((model.decode(maps) - images).square().mean()) * len(chunk)
        sums["top_alone"] += float((model.decode_prefix(maps[:1]) - images).square().mean()) * len(chunk)
    return {name: value / len(pixels) for name, value in sums.items()} | {"top_codes_used": len(used)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--held-out", nargs="+", required=True, help="names of photos without extension")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--crops", type=int, default=399, help="per photo")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    photos = sorted(path for path in chosen.photos.iterdir() if path.suffix in (".jpg", ".png"))
    split: dict[str, list[np.ndarray]] = {"train": [], "parts": [], "photos": []}
    for index, photo in enumerate(photos):
        if photo.stem in chosen.held_out:
            split["photos"].append(crops(photo, chosen.crops // 2, chosen.size, index))
        else:
            split["train"].append(crops(photo, chosen.crops, chosen.size, index, (0, 0.75)))
            split["parts"].append(crops(photo, chosen.crops // 4, chosen.size, index, (0.75, 1)))
    tensors = {name: torch.from_numpy(np.concatenate(cut)) for name, cut in split.items()}
    train = tensors.pop("train")
    mean = to_images(train).mean(dim=0)  # (3, size, size)
    mean_errors = {name: float((to_images(each) - mean).square().mean()) for name, each in tensors.items()}
    counts = {name: len(each) for name, each in {"train": train, **tensors}.items()}
    print(f"{describe_machine()}; crops: {counts}", flush=True)
    preset = load_config("folder", ["images.uri=x"]).vqvae
    schedule = {"updates": chosen.updates, "batch_size": chosen.batch_size, "evaluate_every": chosen.updates}
    training = dataclasses.replace(preset.training, **schedule, checkpoint_every=chosen.updates)
    for seed in chosen.seeds:
        for share in chosen.shares:
            started = time.monotonic()
            model = fit(dataclasses.replace(preset, training=training, prefix_share=share), train, seed)
            found = {name: {**errors(model, each), "mean_image": mean_errors[name]} for name, each in tensors.items()}
            seconds = time.monotonic() - started
            print(json.dumps({"prefix_share": share, "seed": seed, "seconds": seconds, **found}), flush=True)
            shown = tensors["parts"][:: len(tensors["parts"]) // SHOWN][:SHOWN]
            prefixes = decode_prefixes(model, model.encode(to_images(shown)))
            (chosen.out / f"levels_{share:g}_{seed}.png").write_bytes(prefix_grid(shown.numpy(), prefixes))


if __name__ == "__main__":
    main()
