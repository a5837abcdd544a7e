"""The images step: list a dataset, look at every file once, commit what can be used as a snapshot."""

import json
import time

import numpy as np
import pyarrow as pa
import ray
import ray.data

from components.cluster.step import silence_ray_data
from components.images.commit import check_trainable, commit_snapshot
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader
from components.images.rejects import Reject, check_reject_fraction, inspect_rows
from components.images.snapshot import read_snapshot
from components.images.sources import list_images
from components.images.split import TRAIN
from components.pictures import image_grid
from components.store import commits, objects
from components.workspace import StepOutput, Workspace

ROWS_PER_TASK = 256
"""Images a task looks at."""


def take_snapshot(config: ImagesConfig, *, workspace: Workspace) -> StepOutput:
    """Commit the snapshot of `config` under the workspace's URI.

    Raises TooManyRejects when more files than config.max_rejects cannot be used.
    """
    listing = list_images(config, workspace.uri)
    rejects = [] if config.source == "digits" else _inspect(listing.table, config, workspace)
    check_reject_fraction(rejects, listing.table.num_rows, config.max_rejects)
    check_trainable(listing, rejects, config)
    workspace.lease.check()
    digest = commit_snapshot(workspace.uri, listing, rejects, config, seed=workspace.seed)
    facts = commits.read_manifest(workspace.uri)["facts"]
    if rejects:
        table = objects.join(workspace.uri, "rejects.parquet")
        workspace.progress.say(f"images: {len(rejects)} of {listing.table.num_rows} files cannot be used, see {table}")
    return StepOutput(digest=digest, facts=facts, pictures={"images": _picture(config, workspace)})


def _inspect(listed: pa.Table, config: ImagesConfig, workspace: Workspace) -> list[Reject]:
    """Decode every listed image once, side by side on the cluster."""
    silence_ray_data()
    table = ray.put(listed)

    def look(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = int(batch["id"][0]) * ROWS_PER_TASK
        found = inspect_rows(ray.get(table).slice(start, ROWS_PER_TASK), config)
        return {"rejects": np.array([json.dumps(found)])}

    tasks = -(-listed.num_rows // ROWS_PER_TASK)
    rejects: list[Reject] = []
    started = time.monotonic()
    for done, row in enumerate(
        ray.data.range(tasks, override_num_blocks=tasks).map_batches(look, batch_size=1).iter_rows(), start=1
    ):
        rejects += [Reject(*fields) for fields in json.loads(row["rejects"])]
        seen = min(done * ROWS_PER_TASK, listed.num_rows)
        rate = seen / (time.monotonic() - started)
        workspace.progress.update(
            "images", done=seen, total=listed.num_rows, unit="files", rate=rate, note=f"{len(rejects)} rejects"
        )
    workspace.progress.finish("images")
    return sorted(rejects)


def _picture(config: ImagesConfig, workspace: Workspace) -> bytes:
    snapshot = read_snapshot(workspace.uri)
    rows = snapshot.split(TRAIN).slice(0, 48)
    pixels = PixelReader(config, workspace.seed).read(rows)
    return image_grid([pixels[start : start + 12] for start in range(0, len(pixels), 12)])
