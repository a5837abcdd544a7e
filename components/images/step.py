"""The images step: list a dataset, read every file that is new once, commit the usable ones as a snapshot."""

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import ray
import ray.exceptions

from components.images.commit import check_trainable, commit_snapshot, plan_listing
from components.images.config import ImagesConfig, PixelConfig
from components.images.facts import SnapshotFacts
from components.images.inspection import InspectedListing, InspectorHere, can_take_over, inspect_listing
from components.images.listing import Listing
from components.images.newest import newest_snapshot, note_newest
from components.images.pixels import PixelReader
from components.images.rejects import REJECTS_FILE, Inspection, check_reject_fraction, inspect_rows
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.images.sources.registry import SOURCES, list_images, outputs_below
from components.images.split import TRAIN
from components.pictures import image_grid
from components.store import commits, objects
from components.workspace import StepOutput, Workspace

TASK_RETRIES = 3
"""How often the inspection of some images is started again after its worker or node died."""
PICTURE_ROWS, PICTURE_COLUMNS = 4, 12
"""Training rows in the step's picture."""


def take_snapshot(
    config: ImagesConfig, listing: Listing | None = None, *, outputs: Sequence[str] = (), workspace: Workspace
) -> StepOutput:
    """Commit the snapshot of `listing`, or of the images that `config` names now, under the workspace's URI.

    Files below the folders `outputs` are no images. Raises TooManyRejects when more files than the fraction
    config.max_rejects cannot be used.
    """
    for folder in outputs_below(config, outputs):
        workspace.progress.say(f"images: {folder} is where results go: its files are not images")
    listing = listing or list_images(config, workspace.uri, outputs)
    earlier = newest_snapshot(_snapshots_folder(workspace), config)
    usable, rejects, _ = _inspect(listing, config, earlier, workspace)
    check_reject_fraction(rejects, listing.rows, config.max_rejects)
    plan = plan_listing(usable, [], config)
    check_trainable(plan, usable.classes, config)
    workspace.lease.check()
    digest = commit_snapshot(
        workspace.uri,
        usable,
        rejects,
        config,
        seed=workspace.seed,
        plan=plan,
        earlier=earlier,
        attempt=workspace.lease.attempt,
        base=workspace.base,
    )
    note_newest(_snapshots_folder(workspace), config, workspace.uri)
    facts = SnapshotFacts.read(commits.read_manifest(workspace.uri)["facts"])
    if rejects:
        table = objects.join(workspace.attempt_folder, REJECTS_FILE)
        workspace.progress.say(f"images: {len(rejects)} of {listing.rows} files cannot be used, see {table}")
    return StepOutput(digest=digest, facts=facts, pictures={"images": _picture(workspace.uri)})


def _inspect(
    listing: Listing, config: ImagesConfig, earlier: StoredSnapshot | None, workspace: Workspace
) -> InspectedListing:
    """Read what is new: on the cluster, or in this process where there is none."""
    if SOURCES[config.source].bundled or not config.inspect:
        return InspectedListing(listing, [], 0)
    inspector = InspectorHere(config) if workspace.cluster is None else _InspectorOnRay(config)
    known = earlier if earlier and can_take_over(earlier, config) else None
    started = time.monotonic()

    def report(done: int, read: int, rejects: int) -> None:
        workspace.lease.check()
        rate, note = done / (time.monotonic() - started), f"{read} read, {rejects} rejects"
        workspace.progress.update("images", done=done, total=listing.rows, unit="files", rate=rate, note=note)

    inspected = inspect_listing(listing, inspector, known, report)
    workspace.progress.finish("images")
    if known:
        workspace.progress.say(
            f"images: {listing.rows - inspected.read:,} of {listing.rows:,} files are as an earlier snapshot read them"
        )
    return inspected


class _InspectorOnRay:
    """Inspects in tasks, as many at a time as the cluster has CPUs."""

    def __init__(self, config: PixelConfig) -> None:
        self._task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(inspect_rows)
        self._config = ray.put(config)

    def submit(self, rows: pa.Table) -> Callable[[], Inspection]:
        reference = self._task.remote(rows, self._config)

        def result() -> Inspection:
            try:
                return ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # what the task raised, without Ray's traceback around it
                raise (error.cause if isinstance(error.cause, Exception) else error) from None

        return result


def _snapshots_folder(workspace: Workspace) -> str:
    """Where the snapshots of all fingerprints lie."""
    return objects.absolute(workspace.uri).rpartition("/")[0]


def _picture(folder: str) -> bytes:
    """Training rows of all classes of the snapshot in `folder`, as every model will see them."""
    snapshot = open_snapshot(folder)
    rows = snapshot.gallery(TRAIN, PICTURE_ROWS * PICTURE_COLUMNS)
    pixels, _ = PixelReader(snapshot.pixels, snapshot.seed).read_usable(rows)  # without inspection, some are not
    return image_grid([pixels[start : start + PICTURE_COLUMNS] for start in range(0, len(pixels), PICTURE_COLUMNS)])
