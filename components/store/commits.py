"""Artifacts: folders of files, committed by a manifest that is written last.

<root>/<kind>/<fingerprint>/        one artifact: its files and manifest.json
<root>/<kind>/<fingerprint>/.work/  a step's unfinished work: checkpoints, shards that are not committed yet
<root>/leases/<fingerprint>/        who is working on it (lease.py)

A folder without manifest.json is not an artifact, whatever else it holds.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import StorageError
from components.store import objects

MANIFEST_FILE = "manifest.json"
WORK_FOLDER = ".work"
MANIFEST_FORMAT = 1
CACHE_FOLDER = "vqvae2-cache"
"""Folder of downloads, in the system's folder for temporary files."""
BYTES_PER_READ = 1 << 23
"""Bytes read at a time while a file is hashed (bounds memory)."""


@dataclass(frozen=True)
class FileEntry:
    """One committed file."""

    path: str
    """Relative to the artifact's folder."""
    size: int
    """Bytes."""
    sha256: str
    """Hex digest of the content."""


def file_entry(path: str, data: bytes) -> FileEntry:
    """The manifest's entry for `data` stored at `path` relative to the artifact's folder."""
    return FileEntry(path, len(data), hashlib.sha256(data).hexdigest())


def digest_of_files(files: Sequence[FileEntry]) -> str:
    """Digest of the artifact that consists of `files`: SHA-256 over their sorted (path, SHA-256)."""
    lines = "".join(f"{file.path} {file.sha256}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def commit_artifact(
    folder: str, files: Sequence[FileEntry], facts: Mapping[str, Any], *, beside: Sequence[FileEntry] = ()
) -> str:
    """Write manifest.json, which makes `folder` an artifact; all files must be there already. Returns the digest.

    `beside` are listed and checked like `files` and are no part of the digest: they say where content lies.
    """
    digest = digest_of_files(files)
    entries = [vars(file) for file in sorted([*files, *beside], key=lambda file: file.path)]
    manifest = {"format": MANIFEST_FORMAT, "digest": digest, "files": entries, "facts": dict(facts)}
    objects.write_bytes(objects.join(folder, MANIFEST_FILE), json.dumps(manifest, indent=1, sort_keys=True).encode())
    return digest


def save_artifact(folder: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> str:
    """Write `contents` (relative path -> bytes) and commit them; returns the digest."""
    for path, data in contents.items():
        objects.write_bytes(objects.join(folder, path), data)
    return commit_artifact(folder, [file_entry(path, data) for path, data in contents.items()], facts)


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a committed artifact; raises FileNotFoundError when there is none."""
    return json.loads(objects.read_bytes(objects.join(folder, MANIFEST_FILE)))


def read_verified(folder: str, file: Mapping[str, Any]) -> bytes:
    """Content of one entry of a manifest's `files`, checked against its SHA-256; raises StorageError if it differs."""
    data = objects.read_bytes(objects.join(folder, file["path"]))
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise _content_differs(folder, file)
    return data


def verify_file(folder: str, file: Mapping[str, Any]) -> None:
    """Check one entry of a manifest's `files`, as `read_verified`, for a file that may be larger than memory."""
    hashed = hashlib.sha256()
    with objects.open_object(objects.join(folder, file["path"])) as source:
        while chunk := source.read(BYTES_PER_READ):
            hashed.update(chunk)
    if hashed.hexdigest() != file["sha256"]:
        raise _content_differs(folder, file)


def is_whole(folder: str, file: FileEntry) -> bool:
    """Whether the file is there with the content that its entry says."""
    try:
        verify_file(folder, vars(file))
    except (FileNotFoundError, StorageError):
        return False
    return True


def _content_differs(folder: str, file: Mapping[str, Any]) -> StorageError:
    return StorageError(f"{file['path']} in {folder} is not the file that its manifest lists: run the step again")


def artifact_faults(folder: str, digest: str) -> list[str]:
    """What is wrong with a committed artifact: no manifest, another digest, missing files, files of other sizes.

    Empty when nothing is. Contents are not read; `read_verified` and `verify_file` do that.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return [f"{objects.join(folder, MANIFEST_FILE)} is missing"]
    except (ValueError, KeyError):
        return [f"{objects.join(folder, MANIFEST_FILE)} is not a manifest"]
    if manifest["digest"] != digest:
        return [f"{folder} holds content {manifest['digest'][:12]}, expected {digest[:12]}"]
    sizes = objects.object_sizes(folder)
    faults = []
    for file in manifest["files"]:
        path = file["path"]
        if path not in sizes:
            faults.append(f"{path} is missing from {folder}")
        elif sizes[path] != file["size"]:
            faults.append(f"{path} in {folder} has {sizes[path]} bytes, its manifest says {file['size']}")
    return faults


def local_copy(folder: str, cache: Path | None = None) -> Path:
    """Local folder with the committed files of `folder`: itself when local, else a download cached by digest."""
    if objects.is_local(folder):
        return objects.local_path(folder)
    manifest = read_manifest(folder)
    target = (cache or Path(tempfile.gettempdir()) / CACHE_FOLDER) / manifest["digest"]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent))
        for file in manifest["files"]:
            (staging / file["path"]).parent.mkdir(parents=True, exist_ok=True)
            (staging / file["path"]).write_bytes(objects.read_bytes(objects.join(folder, file["path"])))
        with contextlib.suppress(OSError):  # raised when another process was faster: its copy has the same content
            staging.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
    return target
