"""The sources by the names that `images.source` takes (SourceName in components/images/config.py).

Adding a source: its own file here, one entry below, its name and settings in the config, its test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.config import require
from components.errors import StorageError
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.archives import ArchiveFormat
from components.images.sources.digits import list_digits
from components.images.sources.files import list_files
from components.images.sources.folder import list_folder
from components.images.sources.inventory import list_inventory
from components.images.sources.parquet_tables import PARQUET_ARCHIVE, list_parquet
from components.images.sources.webdataset import TAR_ARCHIVE, list_webdataset
from components.store import objects


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of source of images."""

    list_images: Callable[[ImagesConfig, str, Sequence[str]], Listing]
    """(config, absolute URI of the snapshot's folder, folders to leave out) -> all images. Only a bundled source writes
    to the snapshot's folder."""
    bundled: bool = False
    """Whether the images come with the project: the source takes no `images.uri`, packs its images into the snapshot's
    folder, never changes, and needs no inspection."""
    archive: ArchiveFormat | None = None
    """Format of the files that its images are packed in; None: each image is a file."""


SOURCES: dict[str, Source] = {
    "digits": Source(list_images=list_digits, bundled=True, archive=PARQUET_ARCHIVE),
    "folder": Source(list_images=list_folder),
    "files": Source(list_images=list_files),
    "webdataset": Source(list_images=list_webdataset, archive=TAR_ARCHIVE),
    "parquet": Source(list_images=list_parquet, archive=PARQUET_ARCHIVE),
    "inventory": Source(list_images=list_inventory),
}


def list_images(config: ImagesConfig, snapshot_folder: str, outputs: Sequence[str] = ()) -> Listing:
    """All images of the configured source; raises ValueError when there are none.

    `snapshot_folder` is used by bundled sources only. Files below `outputs`, folders that the project writes, are no
    images; raises ValueError when the images lie in one of them.
    """
    without = outputs_below(config, outputs)
    return SOURCES[config.source].list_images(config, objects.absolute(snapshot_folder), without)


def outputs_below(config: ImagesConfig, outputs: Sequence[str]) -> list[str]:
    """Those of the folders `outputs` that lie below `config.uri`, as absolute URIs; raises ValueError when `config.uri`
    is one of them or lies in one."""
    if config.uri is None:
        return []
    root, folders = _resolved(config.uri), [_resolved(each) for each in outputs]
    holder = next((folder for folder in folders if f"{root}/".startswith(f"{folder}/")), None)
    require(
        holder is None,
        f"images.uri must not lie where results are written, got {config.uri}, which is in {holder}: move the images, "
        "or write the results elsewhere (artifact_root and state, or the output of the command)",
    )
    return sorted(folder for folder in folders if folder.startswith(f"{root.rstrip('/')}/"))


def _resolved(uri: str) -> str:
    """An absolute URI without a slash at its end; links of a local path are followed."""
    return str(objects.local_path(uri).resolve()) if objects.is_local(uri) else uri.rstrip("/")


def archive_format(uri: str) -> ArchiveFormat:
    """Format of a packed file, by its extension; raises StorageError when no source reads such files."""
    formats = {source.archive.extension: source.archive for source in SOURCES.values() if source.archive}
    extension = uri.rsplit(".", 1)[-1].lower()
    if extension not in formats:
        raise StorageError(
            f"{uri} must end with one of {sorted(formats)} for its images to be read: was the snapshot taken by a "
            "version of this project with more sources?"
        )
    return formats[extension]
