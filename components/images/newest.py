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
from components.store.commits import FORMER_MANIFEST, MANIFESTS_FOLDER, read_manifest
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
    and files that no manifest of the others names; returns the paths.

    Only what was written `older_than` seconds before the newest file of `folder` goes, by the store's own clock.
    """
    listed = objects.list_objects(folder)
    youngest = max((each.modified for each in listed), default=0.0) - older_than
    old = {each.path for each in listed if each.modified < youngest}
    files: dict[str, set[str]] = {}  # by snapshot
    notes = set()
    for path in (each.path for each in listed):
        snapshot, _, inside = path.partition("/")
        if inside:
            files.setdefault(snapshot, set()).add(path)
        else:
            notes.add(path)
    temporary = {path for path in notes if is_temporary(path)}
    newest = {json.loads(objects.read_bytes(objects.join(folder, note)))["snapshot"] for note in notes - temporary}
    removed = old & temporary
    for snapshot, paths in files.items():
        if snapshot in newest | set(keep):
            removed |= old & (paths - _committed(folder, snapshot, paths))
        elif paths <= old:
            removed |= paths
    for path in sorted(removed):
        objects.delete(objects.join(folder, path))
    return sorted(removed)


def _committed(folder: str, snapshot: str, paths: Collection[str]) -> set[str]:
    """Those of the `paths` in `folder` that belong to the snapshot; all of them while it is not committed."""
    try:
        files = read_manifest(objects.join(folder, snapshot))["files"]
    except FileNotFoundError:
        return set(paths)
    manifests = {path for path in paths if f"/{MANIFESTS_FOLDER}/" in path and not is_temporary(path)}
    return (
        manifests | {objects.join(snapshot, FORMER_MANIFEST)} | {objects.join(snapshot, file["path"]) for file in files}
    )


def _note(folder: str, config: SourceConfig) -> str:
    return objects.join(folder, f"newest-{digest_of([config.source, config.uri])[:16]}.json")
