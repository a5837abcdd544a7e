"""Artifacts: folders of files, committed by manifests that are numbered, created once and never changed.

<root>/<kind>/<fingerprint>/                        one artifact
<root>/<kind>/<fingerprint>/manifests/000001.json   a commit: its files by path, size and SHA-256; the last one counts
<root>/<kind>/<fingerprint>/<attempt>/              files that one attempt (lease.py) wrote: no other writes there
<root>/<kind>/<fingerprint>/.work/<attempt>/        its unfinished work: checkpoints, records of shards
<root>/<kind>/<fingerprint>/.lease/                 who is working on it

A folder without a manifest is not an artifact, whatever else it holds.

Why nothing is lost when a writer stalls, at any point and for however long, and wakes up when another has taken over:
it writes files into its own attempt's folder only; it commits by creating the manifest after the one that it began
with, which the store refuses if the other has created it; it takes over only files that the manifest which it began
with names, or that attempts after that manifest's recorded; and a sweep removes only files that no manifest names, of
attempts up to the last manifest's, so that nobody can take them over any more. The same holds for requests that a
network delivers late.
tests/store/test_protocol.py explores all orders of two writers' requests.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import CommitConflict, StorageError
from components.store import cache, objects

MANIFESTS_FOLDER = "manifests"
FORMER_MANIFEST = "manifest.json"
"""The only manifest of an artifact that was committed before manifests were numbered; it counts as number 0."""
WORK_FOLDER = ".work"
PICTURES_FOLDER, DOCUMENTS_FOLDER = "pictures", "documents"
"""Subfolders of an artifact with its pictures and documents; they are not part of its content."""
MANIFEST_FORMAT = 2
BYTES_PER_READ = 1 << 23
"""Bytes read at a time while a file is hashed (bounds memory)."""

_ATTEMPT = re.compile(r"[0-9]{6}-[0-9A-Za-z]+")
"""Name of an attempt's folder."""


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


def name_of(path: str) -> str:
    """What `path`, relative to an artifact's folder, is called in it: the path without its attempt's folder."""
    first, _, rest = path.partition("/")
    return rest if rest and _ATTEMPT.fullmatch(first) else path


def attempt_of(path: str) -> str:
    """The attempt that wrote `path`, relative to an artifact's folder or to its work folder; empty for none."""
    first, _, rest = path.partition("/")
    return first if rest and _ATTEMPT.fullmatch(first) else ""


def is_attempt(folder: str) -> bool:
    """Whether `folder` is the name of an attempt's folder."""
    return _ATTEMPT.fullmatch(folder) is not None


def new_attempt() -> str:
    """An attempt of its own, for an artifact that is written without a lease."""
    return f"000000-{uuid.uuid4().hex[:8]}"


def digest_of_files(files: Sequence[FileEntry]) -> str:
    """Digest of the artifact that consists of `files`: SHA-256 over their sorted (name, SHA-256).

    It does not depend on the attempt that wrote a file.
    """
    lines = sorted(f"{name_of(file.path)} {file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# --- committing -------------------------------------------------------------------------------------------------------


def head_number(folder: str) -> int:
    """Number of the newest manifest; 0 where there is none (or the former one, which has no number)."""
    return max(_manifest_numbers(folder), default=0)


def commit_artifact(
    folder: str,
    files: Sequence[FileEntry],
    facts: Mapping[str, Any],
    *,
    attempt: str,
    base: int | None = None,
    beside: Sequence[FileEntry] = (),
) -> str:
    """Create the manifest after number `base`, which makes `files` the content of `folder`; returns the digest.

    All files must be there already: written by `attempt`, recorded by an attempt after that of the manifest `base`, or
    named by it. `base` is the `head_number` that the work began with; None takes the present one. Raises CommitConflict
    when another run has committed other content since. Files `beside` are listed and checked like the others and are
    no part of the digest: they say where the content lies.
    """
    digest = digest_of_files(files)
    entries = [vars(file) for file in sorted([*files, *beside], key=lambda file: file.path)]
    number = (head_number(folder) if base is None else base) + 1
    manifest = {
        "format": MANIFEST_FORMAT,
        "digest": digest,
        "attempt": attempt,
        "files": entries,
        "facts": dict(facts),
    }
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    created = objects.create_bytes(_manifest_uri(folder, number), data)
    # A number may have been removed by a sweep after others were committed: only the highest one counts.
    if created and head_number(folder) == number:
        return digest
    newest = read_manifest(folder)
    if newest["digest"] != digest:
        raise CommitConflict(
            f"{folder} must be at commit {number - 1}, which this run began with, but another run has committed "
            f"{newest['digest'][:12]} since: nothing was overwritten; run again, what is there is reused"
        )
    return digest


def save_artifact(
    folder: str, contents: Mapping[str, bytes], facts: Mapping[str, Any], *, attempt: str = "", base: int | None = None
) -> str:
    """Write `contents` (name -> bytes) below the folder of `attempt` (empty: a new one) and commit them; returns the
    digest. Raises as `commit_artifact` does."""
    attempt = attempt or new_attempt()
    entries = [store_file(folder, f"{attempt}/{name}", data) for name, data in contents.items()]
    return commit_artifact(folder, entries, facts, attempt=attempt, base=base)


def store_file(folder: str, path: str, data: bytes) -> FileEntry:
    """Write one file of an artifact at `path`, which begins with the attempt's folder; returns its entry."""
    objects.write_bytes(objects.join(folder, path), data)
    return file_entry(path, data)


def _manifest_uri(folder: str, number: int) -> str:
    return objects.join(folder, MANIFESTS_FOLDER, f"{number:06d}.json")


def _manifest_numbers(folder: str) -> list[int]:
    names = objects.object_sizes(objects.join(folder, MANIFESTS_FOLDER))
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"[0-9]{6}\.json", name))


# --- reading ----------------------------------------------------------------------------------------------------------


def read_manifest(folder: str) -> dict[str, Any]:
    """The newest manifest of a committed artifact; raises FileNotFoundError when there is none."""
    numbers = _manifest_numbers(folder)
    uri = _manifest_uri(folder, numbers[-1]) if numbers else objects.join(folder, FORMER_MANIFEST)
    return json.loads(objects.read_bytes(uri))


def artifact_folders(paths: Iterable[str]) -> set[str]:
    """Folders of the artifacts to which the manifests among `paths` belong; empty text for the paths' own root."""
    folders = set()
    for path in paths:
        parts = path.split("/")
        if parts[-1] == FORMER_MANIFEST:
            folders.add("/".join(parts[:-1]))
        elif len(parts) > 1 and parts[-2] == MANIFESTS_FOLDER:
            folders.add("/".join(parts[:-2]))
    return folders


def file_names(folder: str) -> list[str]:
    """Names of the committed files of `folder`; raises FileNotFoundError when there is no manifest."""
    return [name_of(file["path"]) for file in read_manifest(folder)["files"]]


def find_manifest(folder: str, digest: str) -> dict[str, Any] | None:
    """The newest manifest of `folder` with the content `digest`; None without one.

    Raises FileNotFoundError when `folder` has no manifest at all, ValueError when one is damaged.
    """
    newest = read_manifest(folder)
    if newest["digest"] == digest:
        return newest
    for number in _manifest_numbers(folder)[-2::-1]:
        manifest = json.loads(objects.read_bytes(_manifest_uri(folder, number)))
        if manifest["digest"] == digest:
            return manifest
    return None


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
        manifest = find_manifest(folder, digest)
    except FileNotFoundError:
        return [f"{folder} has no manifest"]
    except (ValueError, KeyError):
        return [f"the manifest of {folder} cannot be read"]
    if manifest is None:
        return [f"{folder} holds content {read_manifest(folder)['digest'][:12]}, expected {digest[:12]}"]
    sizes = objects.object_sizes(folder)
    faults = []
    for file in manifest["files"]:
        path = file["path"]
        if path not in sizes:
            faults.append(f"{path} is missing from {folder}")
        elif sizes[path] != file["size"]:
            faults.append(f"{path} in {folder} has {sizes[path]} bytes, its manifest says {file['size']}")
    return faults


def local_copy(folder: str, root: Path | None = None) -> Path:
    """Local folder with the committed files of `folder` by name: where they lie when that is local, else a download in
    the cache of this machine (cache.py) below `root`, each file checked against its SHA-256.

    Raises FileNotFoundError when nothing is committed, StorageError when a file is not what its manifest lists.
    """
    manifest = read_manifest(folder)
    attempts = {attempt_of(file["path"]) for file in manifest["files"]}
    if objects.is_local(folder) and len(attempts) <= 1:
        return objects.local_path(folder) / "".join(attempts)
    files = {name_of(file["path"]): file for file in manifest["files"]}

    def download(target: Path) -> None:
        for name, file in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(read_verified(folder, file))

    return cache.fetch(manifest["digest"], download, root)
