"""`features`: the field's feature extractors as programs, and reference statistics of a dataset."""

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.errors import MissingArtifact, UsageError
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.program import FeatureProgram
from components.evaluation.features.stored import load_features
from components.evaluation.measures.moments import Moments
from components.images.config import PixelConfig
from components.images.pixels import PixelReader
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.images.split import TRAIN
from components.progress import Progress
from components.store.programs import program_digest
from pipeline.commands import nothing_has_run
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.session import Session, look_up_memo
from pipeline.verbs.image_files import list_image_files, model_device, read_image_files

IMAGES_PER_CHUNK = 64
"""Images decoded and passed through the program at a time."""
IMAGES_PER_PRODUCT = 1024
"""Features collected before their covariance is added: its cost per call is the square of their number."""
IMAGES_PER_FEATURE = 2
"""Images per feature below which a covariance says little."""


class _Chunk(NamedTuple):
    """Some images, and how far the reading is."""

    pixels: Tensor
    """uint8 (n, h, w, c)."""
    done: int
    """Rows or files read, of `total`."""
    total: int


# --- programs ---------------------------------------------------------------------------------------------------------


def write_inception(options: argparse.Namespace) -> int:
    """Export torch-fidelity's InceptionV3 with the given weights; print how a config names it."""
    from components.evaluation.features.exported import export_inception

    _write_program(Path(options.out), export_inception(Path(options.weights)))
    _print_extractor(options.out, "inception")
    return 0


def write_dinov2(options: argparse.Namespace) -> int:
    """Export DINOv2 with the given weights; print how a config names it."""
    from components.evaluation.features.exported import export_dinov2

    _write_program(Path(options.out), export_dinov2(Path(options.weights)))
    _print_extractor(options.out, "dinov2")
    return 0


def write_lpips(options: argparse.Namespace) -> int:
    """Export LPIPS with the given weights; print how a config names it."""
    from components.evaluation.features.exported import export_lpips

    _write_program(Path(options.out), export_lpips(Path(options.weights), Path(options.vgg_weights)))
    print(f"in the config:\n  evaluation:\n    lpips: {options.out}")
    return 0


def _write_program(out: Path, data: bytes) -> None:
    _write(out, data)
    print(f"{out}: {len(data) / 1e6:.1f} MB, SHA-256 {program_digest(data)}")


def _print_extractor(out: str, name: str) -> None:
    print(f"in the config:\n  evaluation:\n    features:\n      - {{name: {name}, program: {out}}}")


def _write(out: Path, data: bytes) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_bytes(data)
    part.replace(out)  # an interrupted command leaves no half file under the name


# --- reference statistics ---------------------------------------------------------------------------------------------


def write_statistics(options: argparse.Namespace) -> int:
    """Mean and covariance of an extractor's features over the training images, or over a folder, as an .npz file."""
    config = load_config(options.config, options.overrides)
    extractor = _extractor_of(config, options.features, options.config)
    chunks = _of_folder(options.images, config.images) if options.images else _of_snapshot(config, options.config)
    program = load_features(extractor, config.images.channels, config.images.image_size, device=model_device())
    moments = accumulate_moments(program, chunks, Progress())
    file = io.BytesIO()
    moments.to_npz(file)
    _write(Path(options.out), file.getvalue())
    count, width = moments.count or 0, moments.mean.numel()
    print(f"{options.out}: mean and covariance of {width} features over {count:,} images, program {program.digest}")
    if count < IMAGES_PER_FEATURE * width:
        print(
            f"  fewer than {IMAGES_PER_FEATURE * width:,} images: no Fréchet distance should be measured against them"
        )
    return 0


def accumulate_moments(program: FeatureProgram, chunks: Iterator[_Chunk], progress: Progress) -> Moments:
    """Moments of the features of all images; UsageError when there are none."""
    moments, pending, started, images = None, [], time.monotonic(), 0
    for chunk in chunks:
        if len(chunk.pixels):
            pending.append(program(chunk.pixels).features.cpu())  # (n, f)
        images += len(chunk.pixels)
        if sum(map(len, pending)) >= IMAGES_PER_PRODUCT:
            moments, pending = _merged(moments, pending), []
        rate = images / max(time.monotonic() - started, 1e-9)
        progress.update("features", done=chunk.done, total=chunk.total, unit="images", rate=rate)
    progress.finish("features")
    moments = _merged(moments, pending) if pending else moments
    if moments is None or (moments.count or 0) < 2:
        raise UsageError("statistics need at least two images, found none or one")
    return moments


def _merged(moments: Moments | None, pending: list[Tensor]) -> Moments:
    added = Moments.of(torch.cat(pending))
    return added if moments is None else moments.merge(added)


def _extractor_of(config: PipelineConfig, name: str, source: str) -> FeaturesConfig:
    extractors = {extractor.name: extractor for extractor in config.evaluation.features}
    if name not in extractors:
        listed = ", ".join(extractors) or "none"
        raise UsageError(f"evaluation.features of {source} must have an extractor named {name!r}, it has {listed}")
    return extractors[name]


def _of_snapshot(config: PipelineConfig, source: str) -> Iterator[_Chunk]:
    memo = look_up_memo(config)
    if memo is None:
        raise MissingArtifact(f"{nothing_has_run(source)}, or give --images")
    return training_images(open_snapshot(Session(config, memo=memo).artifact("images").uri))


def training_images(snapshot: StoredSnapshot) -> Iterator[_Chunk]:
    """The training images of a snapshot, without augmented copies."""
    reader, done = PixelReader(snapshot.pixels, snapshot.seed), 0
    for rows in snapshot.waves(IMAGES_PER_CHUNK):
        kept = pc.and_(pc.equal(rows["split"], TRAIN), pc.equal(rows["copy"], 0))
        done += rows.num_rows
        yield _Chunk(torch.from_numpy(reader.read(rows.filter(kept))), done, snapshot.rows)


def _of_folder(folder: str, config: PixelConfig) -> Iterator[_Chunk]:
    """Every image file below `folder`, cropped and resized as the config's images are."""
    files = list_image_files(folder)
    for first in range(0, len(files), IMAGES_PER_CHUNK):
        _, pixels = read_image_files(files[first : first + IMAGES_PER_CHUNK], config)
        yield _Chunk(torch.from_numpy(np.asarray(pixels)), min(first + IMAGES_PER_CHUNK, len(files)), len(files))
