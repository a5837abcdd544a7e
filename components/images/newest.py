"""The newest snapshot of a source: what it read is not read again, what is equal is not written again.

`encode` makes one for every listing that differs, and sweeps those that nothing needs any more.

<folder of snapshots>/newest-<hash of the source>.json    names its folder; only a hint, and no artifact
"""

import json
from collections.abc import Collection

from components.artifacts import digest_of
from components.errors import StorageError
from components.images.config import SourceConfig
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import objects
from components.store.leftovers import SWEEP_AGE
from components.store.local_files import is_temporary


def note_newest(folder: str, config: SourceConfig, snapshot: str) -> None:
    """Note in `folder` that `snapshot`, a folder in it, is the newest of its source."""
    objects.write_bytes(_note(folder, config), json.dumps({"snapshot": snapshot.rpartition("/")[2]}).encode())


def newest_snapshot(folder: str, config: SourceConfig) -> StoredSnapshot | None:
    """The newest snapshot of the same source in `folder`; None when there is none, or none that can be read."""
    try:
        name = json.loads(objects.read_bytes(_note(folder, config)))["snapshot"]
        return open_snapshot(objects.join(folder, name))
    except (FileNotFoundError, ValueError, KeyError, StorageError):
        return None


def sweep_snapshots(folder: str, keep: Collection[str], older_than: float = SWEEP_AGE) -> list[str]:
    """Remove the snapshots in `folder` that are neither in `keep` (names of their folders) nor the newest of a source,
    and what killed writers left in the others; returns the paths.

    Only what was written `older_than` seconds before the newest file of `folder` goes, by the store's own clock.
    """
    listed = objects.list_objects(folder)
    notes = [each for each in listed if "/" not in each.path and not is_temporary(each.path)]
    needed = {*keep, *(json.loads(objects.read_bytes(note.uri))["snapshot"] for note in notes)}
    youngest = max((each.modified for each in listed), default=0.0) - older_than
    at_work = {each.path.split("/")[0] for each in listed if "/" in each.path and each.modified >= youngest}
    removed = [
        each
        for each in listed
        if each.modified < youngest
        and (is_temporary(each.path) or ("/" in each.path and each.path.split("/")[0] not in needed | at_work))
    ]
    for each in removed:
        objects.delete(each.uri)
    return [each.path for each in removed]


def _note(folder: str, config: SourceConfig) -> str:
    return objects.join(folder, f"newest-{digest_of([config.source, config.uri])[:16]}.json")
