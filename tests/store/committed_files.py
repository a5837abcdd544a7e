"""Where committed files and manifests lie, for tests that damage or read them."""

from pathlib import Path

from components.store import commits, objects


def newest_manifest(folder: str | Path) -> Path:
    """The newest manifest of a local artifact; one that does not exist where nothing is committed."""
    number = commits.head_number(str(folder))
    return Path(folder) / commits.MANIFESTS_FOLDER / f"{number:06d}.json"


def stored_uri(folder: str | Path, name: str) -> str:
    """URI of the committed file called `name`."""
    paths = [file["path"] for file in commits.read_manifest(str(folder))["files"]]
    (path,) = [path for path in paths if commits.name_of(path) == name]
    return objects.join(str(folder), path)


def stored_path(folder: str | Path, name: str) -> Path:
    """As `stored_uri`, for a local artifact."""
    return Path(stored_uri(folder, name))
