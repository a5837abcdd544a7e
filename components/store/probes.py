"""Whether a store can be written to, and whether it keeps two writers apart."""

import contextlib
import uuid

from components.errors import StorageError
from components.store import objects
from components.store.storage_errors import access_hint

PREFIX = ".probe-"
"""Of the names of probes, in the folder that they probe."""
PROBE_AGE = 86_400.0
"""Seconds after which a probe is one that a killed process has left."""


def probe_uri(root: str) -> str:
    """A new name for a probe of `root`."""
    return objects.join(root, PREFIX + uuid.uuid4().hex)


def check_writable(root: str) -> None:
    """Write, read and delete probes under `root`; raises StorageError with the cure when that fails, or when the store
    lets an object be created twice."""
    probe = probe_uri(root)
    try:
        objects.write_bytes(probe, b"probe")
        content = objects.read_bytes(probe)
        created_twice = objects.create_bytes(probe, b"second")
    except FileNotFoundError as error:
        raise StorageError(f"cannot write below {root}: {error}. {access_hint(root)}") from error
    sweep_probes(root)
    objects.delete(probe)
    if content != b"probe":
        raise StorageError(f"{root} returned other bytes than were written: is another program changing it?")
    if created_twice:
        raise StorageError(
            f"{root} must refuse to create an object that exists (PUT with If-None-Match: *), but it overwrote one: "
            "two runs could not be kept apart. Use a store with conditional writes (AWS S3, MinIO, Ceph, Swift, ...)"
        )


def sweep_probes(root: str, older_than: float = PROBE_AGE) -> None:
    """Remove probes of killed processes that are `older_than` seconds older than the newest, by the store's clock."""
    modified = {}
    for name in objects.names_in(root, "file"):
        if name.startswith(PREFIX):
            with contextlib.suppress(FileNotFoundError):  # its process removed it
                modified[name] = objects.stat_object(objects.join(root, name)).modified
    newest = max(modified.values(), default=0.0)
    for name, written in modified.items():
        if written < newest - older_than:
            objects.delete(objects.join(root, name))
