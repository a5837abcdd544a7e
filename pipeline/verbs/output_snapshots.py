"""The snapshots of `encode`: one in its output for every listing that differs, until nothing needs it any more."""

import contextlib

from components.artifacts import digest_of
from components.codes.dataset import read_dataset
from components.config import result_settings
from components.errors import StorageError
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.newest import newest_snapshot, note_newest, sweep_snapshots
from components.progress import Progress
from components.store import commits, objects
from components.store.lease import lease_folder, read_sign_of_life

SNAPSHOTS_FOLDER = "snapshots"


def output_snapshot(config: ImagesConfig, listing: Listing, output: str, progress: Progress) -> str:
    """Folder in `output` of a snapshot of the source's current images.

    Nothing is decoded: encoding finds unusable images.
    """
    settings = {name: value for name, value in result_settings(config).items() if name != "uri"}
    folder = objects.join(output, SNAPSHOTS_FOLDER, digest_of([settings, config.uri, listing.digest()])[:16])
    snapshots = objects.join(output, SNAPSHOTS_FOLDER)
    with contextlib.suppress(FileNotFoundError):
        commits.read_manifest(folder)
        note_newest(snapshots, config, folder)  # so that no sweep takes it
        progress.say(f"{listing.rows:,} images, as listed before ({folder})")
        return folder
    commit_snapshot(folder, listing, [], config, seed=0, earlier=newest_snapshot(snapshots, config))  # no rejects yet
    note_newest(snapshots, config, folder)
    progress.say(f"{listing.rows:,} images, {listing.ignored:,} other files passed over ({folder})")
    return folder


def sweep_output_snapshots(output: str) -> None:
    """Remove old snapshots that no dataset in `output`, of any tokenizer, was made from; none while another is encoded,
    or was left half done."""
    datasets = [objects.join(output, name) for name in objects.names_in(output, "directory")]
    if any(read_sign_of_life(lease_folder(folder)) for folder in datasets):
        return
    used = set()
    for folder in datasets:
        try:
            used.add(read_dataset(folder).facts.snapshot_uri.rpartition("/")[2])
        except FileNotFoundError:
            continue
        except StorageError:
            return  # nobody knows what it was made from
    sweep_snapshots(objects.join(output, SNAPSHOTS_FOLDER), used)
