"""The newest snapshot of a source: what it read is not read again, what is equal is not written again.

<folder of snapshots>/newest-<hash of the source>.json    names its folder; only a hint, and no artifact
"""

import json

from components.artifacts import digest_of
from components.errors import StorageError
from components.images.config import SourceConfig
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import objects


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


def _note(folder: str, config: SourceConfig) -> str:
    return objects.join(folder, f"newest-{digest_of([config.source, config.uri])[:16]}.json")
