"""What attempts leave behind: unfinished work that the next one may take over, and files that nobody needs any more.

commits.py says why a stalled process that removes files harms nobody.
"""

import json
import re

from components.store import objects
from components.store.commits import MANIFESTS_FOLDER, WORK_FOLDER, attempt_of, is_attempt, read_manifest
from components.store.local_files import is_temporary

MANIFESTS_KEPT = 2
"""Manifests that a sweep leaves: the newest, and the one before it, whose readers can finish."""
SWEEP_AGE = 86_400.0
"""Seconds for which a sweep leaves what was replaced, so that its readers can finish."""

_MANIFEST = re.compile(rf"{MANIFESTS_FOLDER}/[0-9]{{6}}\.json")
"""Path of a manifest in its artifact: a killed writer may have left temporary files beside them."""


def open_work(folder: str) -> dict[str, int]:
    """Bytes of each file of unfinished work in `folder` that the next commit may take over, by path in the work folder.

    What attempts up to that of the newest manifest left belongs to commits that were made: a sweep may be removing it.
    """
    try:
        committed = read_manifest(folder).get("attempt", "")[:6]
    except FileNotFoundError:
        committed = ""
    sizes = objects.object_sizes(objects.join(folder, WORK_FOLDER))
    return {path: size for path, size in sizes.items() if attempt_of(path)[:6] > committed}


def clear_work(folder: str, attempt: str) -> None:
    """Remove the unfinished work in `folder`, except that of attempts after `attempt`, which may be at work."""
    work = objects.join(folder, WORK_FOLDER)
    for name in sorted({path.split("/")[0] for path in objects.object_sizes(work)}):
        if not is_attempt(name) or name[:6] <= attempt[:6]:
            objects.delete(objects.join(work, name))


def sweep(folder: str, attempt: str, older_than: float = SWEEP_AGE) -> list[str]:
    """Remove what no manifest of `folder` names: old manifests, and files of attempts up to `attempt`; returns the
    paths.

    Only what was written `older_than` seconds before the newest manifest goes, by the store's own clock. Call it under
    the artifact's lease, after a commit.
    """
    # In this order: a manifest that is created after the listing names no other files of these attempts than the newest
    # one of the listing does.
    listed = {each.path: each for each in objects.list_objects(folder)}
    manifests = sorted(path for path in listed if _MANIFEST.fullmatch(path))
    if not manifests:
        return []
    youngest = max(listed[path].modified for path in manifests) - older_than
    retired = [path for path in manifests[:-MANIFESTS_KEPT] if listed[path].modified < youngest]
    named = {path for path in listed if path.startswith(f"{WORK_FOLDER}/")}
    for path in set(manifests) - set(retired):
        named |= {file["path"] for file in json.loads(objects.read_bytes(objects.join(folder, path)))["files"]}
    files = [
        path
        for path, each in listed.items()
        if path not in named
        and each.modified < youngest
        and ("" < attempt_of(path)[:6] <= attempt[:6] or is_temporary(path))
    ]
    for path in [*files, *retired]:
        objects.delete(objects.join(folder, path))
    return [*files, *retired]
