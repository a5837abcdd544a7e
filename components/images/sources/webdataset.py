"""Source `webdataset`: tar files in which files whose names are equal up to the first dot form one sample.

The member of a row is "offset:size", in bytes from the start of the tar.
"""

import json
import tarfile
from collections.abc import Sequence

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.archives import ArchiveFormat, ArchiveIndex, ArchiveMember, list_archives
from components.images.sources.file_tree import IMAGE_EXTENSIONS
from components.images.sources.labels import Label
from components.store import objects


def list_webdataset(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """The images of all tars below `config.uri`."""
    return list_archives(config, TAR_ARCHIVE, without)


def _index_tar(file: objects.StoredObject, config: ImagesConfig) -> ArchiveIndex:
    """Images of one tar; only headers and labels are read."""
    try:
        # Mode "r:" reads uncompressed tars only: members must have positions in the file.
        with objects.open_object(file.uri) as source, tarfile.open(fileobj=source, mode="r:") as tar:
            index = _index_samples(tar, config)
    except tarfile.TarError as error:
        raise ValueError(
            f"{file.uri} must be a whole, uncompressed tar: {error}. Write it again or take it out"
        ) from None
    repeated = len(index.members) - len({member.name for member in index.members})
    require(repeated == 0, f"{file.uri} must hold each sample once, found {repeated} repeated names")
    return index


def _index_samples(tar: tarfile.TarFile, config: ImagesConfig) -> ArchiveIndex:
    """Every sample that has an image; a sample's label may come before or after its image."""
    labels: dict[str, Label] = {}
    images: dict[str, tarfile.TarInfo] = {}
    ignored = 0
    for entry in tar:
        # a/0001.seg.png -> folder a, sample a/0001, kind seg.png
        folder, _, name = entry.name.rpartition("/")
        stem, _, extension = name.partition(".")
        sample, kind = f"{folder}/{stem}" if folder else stem, extension.lower()
        if not entry.isfile():
            continue
        if name.startswith("."):
            ignored += 1
        elif kind in ("cls", "json"):
            # With both a .cls and a .json file, the first one in the tar counts.
            labels.setdefault(sample, _read_label(tar, entry, kind, config))
        elif kind in IMAGE_EXTENSIONS:
            require(
                sample not in images, f"a sample must have one image, '{sample}' in {tar.name!r} has more: keep one"
            )
            images[sample] = entry
        else:
            ignored += 1
    members = [
        ArchiveMember(entry.name, labels.get(sample), f"{entry.offset_data}:{entry.size}", entry.size)
        for sample, entry in images.items()
    ]
    return ArchiveIndex(members, ignored=ignored)


def _read_label(tar: tarfile.TarFile, entry: tarfile.TarInfo, kind: str, config: ImagesConfig) -> Label:
    """Label in a .cls file, or in one field of a .json file; None where there is none."""
    data = tar.extractfile(entry)
    text = data.read().decode("utf-8", "replace").strip() if data else ""
    if kind == "json":
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        value = fields.get(config.label_column) if isinstance(fields, dict) else None
        return value if isinstance(value, int | str) else None
    return int(text) if text.lstrip("-").isdigit() else text or None


def _read_tar_member(uri: str, member: str, version: str) -> bytes:
    offset, size = map(int, member.split(":"))
    return objects.read_range(uri, offset, offset + size)


TAR_ARCHIVE = ArchiveFormat(extension="tar", index=_index_tar, read_member=_read_tar_member)
