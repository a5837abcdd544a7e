"""The images step: list a dataset, decode every file once, commit the usable ones as a snapshot."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
import ray.data

from components.cluster.step import silence_ray_data
from components.images.commit import check_trainable, commit_snapshot
from components.images.config import ImagesConfig, PixelConfig
from components.images.facts import SnapshotFacts
from components.images.pixels import PixelReader
from components.images.rejects import REJECTS_FILE, Reject, check_reject_fraction, inspect_rows
from components.images.snapshot import read_snapshot
from components.images.sources.registry import SOURCES, list_images
from components.images.split import TRAIN
from components.pictures import image_grid
from components.store import commits, objects
from components.workspace import StepOutput, Workspace

IMAGES_PER_INSPECTION_TASK = 256
PICTURE_ROWS, PICTURE_COLUMNS = 4, 12
"""Training rows in the step's picture."""


def take_snapshot(config: ImagesConfig, *, workspace: Workspace) -> StepOutput:
    """Commit the snapshot of `config` under the workspace's URI.

    Raises TooManyRejects when more files than the fraction config.max_rejects cannot be used.
    """
    listing = list_images(config, workspace.uri)
    rejects = [] if SOURCES[config.source].bundled else _inspect(listing.table, config, workspace)
    check_reject_fraction(rejects, listing.table.num_rows, config.max_rejects)
    check_trainable(listing, rejects, config)
    workspace.lease.check()
    attempt, base = workspace.lease.attempt, workspace.base
    digest = commit_snapshot(workspace.uri, listing, rejects, config, seed=workspace.seed, attempt=attempt, base=base)
    facts = SnapshotFacts.read(commits.read_manifest(workspace.uri)["facts"])
    if rejects:
        table = objects.join(workspace.attempt_folder, REJECTS_FILE)
        workspace.progress.say(f"images: {len(rejects)} of {listing.table.num_rows} files cannot be used, see {table}")
    return StepOutput(digest=digest, facts=facts, pictures={"images": _picture(workspace.uri)})


def _inspect(listed: pa.Table, config: ImagesConfig, workspace: Workspace) -> list[Reject]:
    """Decode every listed image once: on the cluster, or in this process where there is none."""
    inspected = _inspect_here(listed, config) if workspace.cluster is None else _inspect_on_cluster(listed, config)
    rejects: list[Reject] = []
    started = time.monotonic()
    for slices_done, rejects_of_slice in enumerate(inspected, start=1):
        rejects += rejects_of_slice
        done = min(slices_done * IMAGES_PER_INSPECTION_TASK, listed.num_rows)
        rate = done / (time.monotonic() - started)
        note = f"{len(rejects)} rejects"
        workspace.progress.update("images", done=done, total=listed.num_rows, unit="files", rate=rate, note=note)
    workspace.progress.finish("images")
    return sorted(rejects)


def _inspect_here(listed: pa.Table, config: PixelConfig) -> Iterator[list[Reject]]:
    """Rejects of each slice of IMAGES_PER_INSPECTION_TASK rows."""
    for start in range(0, listed.num_rows, IMAGES_PER_INSPECTION_TASK):
        yield inspect_rows(listed.slice(start, IMAGES_PER_INSPECTION_TASK), config)


def _inspect_on_cluster(listed: pa.Table, config: PixelConfig) -> Iterator[list[Reject]]:
    """As `_inspect_here`, with one Ray Data task per slice."""
    silence_ray_data()
    table = ray.put(listed)  # once per node, not once per task

    def inspect_slice(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = int(batch["id"][0]) * IMAGES_PER_INSPECTION_TASK
        rejects = inspect_rows(ray.get(table).slice(start, IMAGES_PER_INSPECTION_TASK), config)
        return {"rejects": np.array([json.dumps(rejects)])}  # one value per row, whatever the number of rejects

    tasks = -(-listed.num_rows // IMAGES_PER_INSPECTION_TASK)  # rounded up
    slices = ray.data.range(tasks, override_num_blocks=tasks).map_batches(inspect_slice, batch_size=1)
    for row in slices.iter_rows():
        yield [Reject(*fields) for fields in json.loads(row["rejects"])]


def _picture(folder: str) -> bytes:
    """Training rows of all classes of the snapshot in `folder`, as every model will see them."""
    snapshot = read_snapshot(folder)
    rows = snapshot.gallery(TRAIN, PICTURE_ROWS * PICTURE_COLUMNS)
    pixels = PixelReader(snapshot.pixels, snapshot.seed).read(rows)
    return image_grid([pixels[start : start + PICTURE_COLUMNS] for start in range(0, len(pixels), PICTURE_COLUMNS)])
