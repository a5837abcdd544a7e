"""Checkpoints of one fit in the store, whichever attempt wrote them."""

import contextlib
import posixpath
import tempfile
from pathlib import Path

from components.store import commits, objects
from components.training.state import STATE_NUMBERS, is_whole_state, parse_fit_progress


def newest_checkpoint(artifact: str) -> str | None:
    """URI of the checkpoint with the most updates below the work folder of the artifact; None without a whole one.

    A checkpoint that a crash cut is passed over: its files do not belong together.
    """
    work = objects.join(artifact, commits.WORK_FOLDER)
    folders = [posixpath.dirname(path) for path in objects.object_sizes(work) if path.endswith(f"/{STATE_NUMBERS}")]
    updates: dict[str, int] = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # removed by its attempt meanwhile, or cut
            data = objects.read_bytes(objects.join(work, folder, STATE_NUMBERS))
            updates[folder] = parse_fit_progress(data)[0].update
    for folder in sorted(updates, key=lambda folder: (updates[folder], folder), reverse=True):
        uri = objects.join(work, folder)
        if _is_whole(uri):
            return uri
    return None


def _is_whole(uri: str) -> bool:
    if objects.is_local(uri):
        return is_whole_state(objects.local_path(uri))
    with tempfile.TemporaryDirectory() as folder:
        objects.download(uri, Path(folder))
        return is_whole_state(Path(folder))
