"""Artifacts: folders of files that a manifest, written last, makes one.

<root>/<kind>/<fingerprint>/        one artifact: its files, and manifest.json, written last
<root>/<kind>/<fingerprint>/.work/  what a running step keeps: checkpoints, half-done shards
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


@dataclass(frozen=True)
class FileEntry:
    """One committed file: path relative to the artifact's folder, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


def file_entry(path: str, data: bytes) -> FileEntry:
    """The manifest's line for `data` stored at `path` relative to the artifact's folder."""
    return FileEntry(path, len(data), hashlib.sha256(data).hexdigest())


def digest_of_files(files: Sequence[FileEntry]) -> str:
    """SHA-256 over the sorted (path, SHA-256) of the files: the digest of the artifact they make."""
    lines = "".join(f"{file.path} {file.sha256}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def commit_artifact(folder: str, files: Sequence[FileEntry], facts: Mapping[str, Any]) -> str:
    """Write manifest.json, last of all and whole: from now on `folder` is an artifact. Returns its digest."""
    digest = digest_of_files(files)
    listed = [vars(file) for file in sorted(files, key=lambda file: file.path)]
    manifest = {"format": 1, "digest": digest, "files": listed, "facts": dict(facts)}
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
    """Content of one line of a manifest's `files`, checked against its SHA-256; raises StorageError when it differs."""
    data = objects.read_bytes(objects.join(folder, file["path"]))
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise _content_differs(folder, file)
    return data


def verify_file(folder: str, file: Mapping[str, Any]) -> None:
    """As `read_listed`, for a file that may be larger than memory."""
    hashed = hashlib.sha256()
    with objects.open_object(objects.join(folder, file["path"])) as source:
        while piece := source.read(1 << 23):
            hashed.update(piece)
    if hashed.hexdigest() != file["sha256"]:
        raise _content_differs(folder, file)


def _content_differs(folder: str, file: Mapping[str, Any]) -> StorageError:
    return StorageError(f"{file['path']} in {folder} is not the file that its manifest lists: run the step again")


def artifact_faults(folder: str, digest: str) -> list[str]:
    """What is wrong with a committed artifact: no manifest, another digest, missing or cut files. Empty: whole."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return [f"{objects.join(folder, MANIFEST_FILE)} is missing"]
    except (ValueError, KeyError):
        return [f"{objects.join(folder, MANIFEST_FILE)} is not a manifest"]
    if manifest["digest"] != digest:
        return [f"{folder} holds content {manifest['digest'][:12]}, expected {digest[:12]}"]
    found = objects.object_sizes(folder)
    wrong = []
    for file in manifest["files"]:
        if file["path"] not in found:
            wrong.append(f"{file['path']} is missing from {folder}")
        elif found[file["path"]] != file["size"]:
            wrong.append(
                f"{file['path']} in {folder} has {found[file['path']]} bytes, its manifest says {file['size']}"
            )
    return wrong


def local_copy(folder: str, cache: Path | None = None) -> Path:
    """Local folder with the committed files of `folder`: itself when local, else a download cached by its digest."""
    if objects.is_local(folder):
        return objects.local_path(folder)
    manifest = read_manifest(folder)
    target = (cache or Path(tempfile.gettempdir()) / "vqvae2-cache") / manifest["digest"]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent))
        for file in manifest["files"]:
            (staging / file["path"]).parent.mkdir(parents=True, exist_ok=True)
            (staging / file["path"]).write_bytes(objects.read_bytes(objects.join(folder, file["path"])))
        with contextlib.suppress(OSError):  # another process was first: its copy is the same
            staging.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
    return target
