"""What must hold when everything is done."""

import json
import re
from pathlib import Path
from typing import Any

from components.codes.dataset import read_dataset
from components.codes.verify import check_dataset
from components.images.newest import sweep_snapshots
from components.store import commits, leftovers, objects, parquet
from components.store.lease import LEASE_FOLDER
from components.store.probes import sweep_probes
from pipeline.verbs.output_snapshots import SNAPSHOTS_FOLDER

LAST_ATTEMPT = "999999-chaos"
"""Later than all attempts, so that a sweep may take all of them."""
KEPT = re.compile(
    r"(?:.*/)?(?:manifests/\d{6}\.json|\.lease/\d{6}\.json|(?:pictures|documents)/[^/]+|newest-[0-9a-f]{16}\.json)"
)
"""Paths that no manifest names and that stay: manifests, leases, pictures and documents, the hints of snapshots."""
OLDER_THAN_ANYTHING = -1e6
"""Age for a sweep that takes files whatever their age."""


def store_problems(root: str) -> list[str]:
    """What is wrong with the artifacts below `root`: files that are not what the newest manifest lists, and files that
    stay although no manifest names them, once all are old enough to be swept."""
    problems = []
    sweep_probes(root, OLDER_THAN_ANYTHING)
    folders = sorted(commits.artifact_folders(objects.object_sizes(root)))
    snapshots = objects.join(root, SNAPSHOTS_FOLDER)
    sweep_snapshots(snapshots, [folder.rpartition("/")[2] for folder in folders], OLDER_THAN_ANYTHING)
    for folder in folders:
        artifact = objects.join(root, folder)
        before = objects.object_sizes(artifact)
        if any(path.startswith(f"{LEASE_FOLDER}/") for path in before):  # others are never swept
            leftovers.clear_work(artifact, LAST_ATTEMPT)
            leftovers.sweep(artifact, LAST_ATTEMPT, OLDER_THAN_ANYTHING)
        manifest = commits.read_manifest(artifact)
        problems += commits.artifact_faults(artifact, manifest["digest"])
        problems += [f"{each} was swept" for each in _named(manifest) & before.keys() - objects.object_sizes(artifact)]
        for file in manifest["files"]:
            commits.verify_file(artifact, file)
    return problems + [f"nobody removes {path}" for path in unnamed_files(root)]


def _named(manifest: dict[str, Any]) -> set[str]:
    return {file["path"] for file in manifest["files"]}


def unnamed_files(root: str) -> list[str]:
    """Files below `root` that belong to no artifact."""
    paths = set(objects.object_sizes(root))
    for folder in commits.artifact_folders(paths):
        artifact = objects.join(root, folder)
        numbers = [path for path in objects.object_sizes(artifact) if re.fullmatch(r"manifests/\d{6}\.json", path)]
        for path in numbers:
            manifest = json.loads(objects.read_bytes(objects.join(artifact, path)))
            paths -= {objects.join(folder, name) for name in _named(manifest)}
    return sorted(path for path in paths if not KEPT.fullmatch(path))


def dataset_problems(folder: str, expected: list[dict]) -> list[str]:
    """What is wrong with the code dataset in `folder`, whose rows must be `expected`."""
    problems = [str(fault) for fault in check_dataset(read_dataset(folder))]
    rows = dataset_rows(folder)
    if rows != expected:
        keys, wanted = [row["key"] for row in rows], [row["key"] for row in expected]
        different = sum(row != other for row, other in zip(rows, expected, strict=False))
        problems.append(
            f"the rows must be those of an undisturbed run: {len(wanted)} of them, got {len(rows)}, "
            f"{len(set(wanted) - set(keys))} missing, {len(keys) - len(set(keys))} doubled, {different} different"
        )
    return problems


def dataset_rows(folder: str) -> list[dict]:
    """All rows of the newest version, by key and copy."""
    tables = [
        parquet.from_bytes(objects.read_bytes(objects.join(folder, shard.path)))
        for shard in read_dataset(folder).shards
    ]
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: (row["key"], row["copy"]))


def artifact_digests(root: Path) -> dict[str, set[str]]:
    """Digest of every committed artifact, by step."""
    digests: dict[str, set[str]] = {}
    for manifest in root.glob("*/*/manifests/*.json"):
        digests.setdefault(manifest.parents[2].name, set()).add(json.loads(manifest.read_bytes())["digest"])
    return digests
