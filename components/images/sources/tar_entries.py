"""The files in a tar by their headers, without reading the files; and the places where a tar is damaged.

Python's tarfile and GNU tar take the first damaged header for the end of the tar. Here the search goes on: a header is
recognised by the checksum in it, wherever it begins.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from components.images.sources.ranges import ByteRange, RisingReader

_BLOCK = tarfile.BLOCKSIZE
_MAGIC, _MAGIC_OFFSET = b"ustar", 257  # in every header but those from before 1988
MAX_EXTENSION_BYTES = 1 << 20
"""Most bytes of one header extension (a long name, pax records): a larger one is taken for damage."""
MAX_PADDING_BYTES = 1 << 20
"""Most zero bytes that end a tar, or lie between tars that were joined; more are taken for lost data."""
_SEARCH_BYTES = 1 << 20
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class TarEntry(NamedTuple):
    """One file in a tar."""

    name: str
    data: ByteRange
    """Of the file's content, within the tar."""
    kind: str
    """file, hard link, symbolic link, sparse (stored without its zeros), or other."""
    target: str
    """Name that a link points to."""


class DamagedPart(NamedTuple):
    """Bytes of a tar in which a header was expected and none can be read: at least one file is lost.

    Empty at the tar's end where the mark is missing that ends a tar.
    """

    start: int
    stop: int


def tar_entries(file: RisingReader) -> Iterator[TarEntry | DamagedPart]:
    """Everything in a tar, by rising offset. The last entry's data may end after the file, if the tar was cut."""
    position, ended = 0, False
    while position < file.size:
        try:
            entry = _read_entry(file, position)
        except tarfile.HeaderError:
            start, position = position, _find_header(file, position + 1)
            ended = _is_padding(file, start, position)
            if not ended:
                yield DamagedPart(start, position)
        else:
            yield entry
            ended = False
            position = entry.data.offset + _whole_blocks(entry.data.size)
    if not ended:
        yield DamagedPart(file.size, file.size)


def _read_entry(file: RisingReader, position: int) -> TarEntry:
    """The entry whose headers begin at `position`; raises tarfile.HeaderError where none does."""
    extensions = b""
    while True:
        block = file.read(position + len(extensions), _BLOCK)
        info = _parse(block)
        if info.type not in _EXTENSIONS:
            break
        if info.size > MAX_EXTENSION_BYTES:
            raise tarfile.HeaderError("a header extension is too long")
        extensions += file.read(position + len(extensions), _BLOCK + _whole_blocks(info.size))
    sparse = info.type == tarfile.GNUTYPE_SPARSE or b" GNU.sparse." in extensions
    data_offset = position + len(extensions) + _BLOCK
    if extensions and not sparse:
        info = _extended(extensions + block)
    size = info.size if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES else 0
    return TarEntry(info.name, ByteRange(data_offset, size), _kind(info, sparse), info.linkname)


def _parse(block: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    if info.size < 0:
        raise tarfile.HeaderError("a size is negative")
    return info


def _extended(headers: bytes) -> tarfile.TarInfo:
    """A header with its extensions applied, by Python's own rules."""
    try:
        with tarfile.TarFile(fileobj=io.BytesIO(headers), encoding="utf-8", errors="backslashreplace") as tar:
            info = tar.next()
    except (tarfile.TarError, ValueError) as error:
        raise tarfile.HeaderError(str(error)) from error
    if info is None or info.size < 0:
        raise tarfile.HeaderError("a header extension belongs to no header")
    return info


def _kind(info: tarfile.TarInfo, sparse: bool) -> str:
    if sparse:
        return "sparse"
    kinds = {tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link"}
    return "file" if info.isreg() else kinds.get(info.type, "other")


def _find_header(file: RisingReader, position: int) -> int:
    """Offset of the first header from `position` on; the file's size where there is none."""
    while position < file.size:
        piece = file.read(position, _SEARCH_BYTES)
        magic = piece.find(_MAGIC, _MAGIC_OFFSET)
        while magic >= 0:
            start = magic - _MAGIC_OFFSET
            try:
                _parse(piece[start : start + _BLOCK] if start + _BLOCK <= len(piece) else b"")
                return position + start
            except tarfile.HeaderError:
                magic = piece.find(_MAGIC, magic + 1)
        # A header may begin in the last bytes of a piece and end in the next.
        position += len(piece) - _BLOCK + 1 if position + len(piece) < file.size else len(piece)
    return file.size


def _is_padding(file: RisingReader, start: int, stop: int) -> bool:
    """Whether these bytes are the zeros that end a tar."""
    return stop - start <= MAX_PADDING_BYTES and not file.read(start, stop - start).strip(b"\0")


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
