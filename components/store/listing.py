"""Every object under a folder, a page at a time: a listing of any length takes the memory of a few pages.

Pages come in any order. objects.py gives the calls of the store.
"""

import contextlib
import posixpath
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from components.store.local_files import identity_of, walk_files
from components.store.storage_errors import as_storage_error, run_retried

OBJECTS_PER_PAGE = 1 << 12
"""Objects per page where the store does not decide it; S3 gives at most 1,000 per request."""
PARALLEL_RANGES = 16
"""Ranges of keys that are listed at the same time: one request of S3 gives one page, in 50 to 200 milliseconds."""
PAGES_FOR_RANGES = 64
"""Pages of folder names that are read to find where ranges begin; all names after them form the last range."""
PAGES_AHEAD = 64
"""Pages that wait for the reader."""
STOP_LOOK_SECONDS = 0.5
"""How often a thread whose page nobody takes looks whether the listing was given up."""


class ObjectPage(NamedTuple):
    """Some objects of a listing; the lists are equally long."""

    paths: list[str]
    """Relative to the folder."""
    sizes: list[int]
    """Bytes."""
    etags: list[str]
    """Each changes when the content does: the store's own or, where it has none, the modification time."""


def list_local(folder: str, without: Collection[str]) -> Iterator[ObjectPage]:
    """Files below a local folder, links followed, without the files and folders `without`."""
    skipped = frozenset(identity for path in without if (identity := identity_of(path)))
    skipped_names = frozenset(posixpath.basename(path) for path in without)
    page, prefix = ObjectPage([], [], []), len(folder.rstrip("/")) + 1
    with as_storage_error(folder):
        for path, status in walk_files(folder, skipped=skipped):
            if posixpath.basename(path) in skipped_names and identity_of(path) in skipped:
                continue
            page.paths.append(path[prefix:])
            page.sizes.append(status.st_size)
            page.etags.append(str(status.st_mtime_ns))
            if len(page.paths) == OBJECTS_PER_PAGE:
                yield page
                page = ObjectPage([], [], [])
    yield page


def list_folders(list_folder: Callable[[str], list[dict[str, Any]]], folder: str, uri: str) -> Iterator[ObjectPage]:
    """Objects of any other store, folder by folder: in memory is one folder."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()

        try:
            infos = run_retried(uri, partial(list_folder, path))
        except FileNotFoundError:
            continue
        waiting += [info["name"] for info in infos if info["type"] == "directory" and info["name"] != path]
        files = [info for info in infos if info["type"] == "file" and info["name"] != folder]
        names = [posixpath.relpath(info["name"], folder) for info in files]
        yield ObjectPage(names, [info["size"] for info in files], [etag_of(info) for info in files])


def list_s3(list_keys: Callable[..., Mapping[str, Any]], folder: str, uri: str) -> Iterator[ObjectPage]:
    """Objects of an S3 bucket, ranges of keys side by side; `list_keys` is the call list_objects_v2."""
    bucket, _, prefix = folder.partition("/")
    prefix = f"{prefix}/" if prefix else ""

    def request(**arguments: Any) -> Mapping[str, Any]:
        return run_retried(uri, partial(list_keys, **{"Bucket": bucket, "Prefix": prefix, **arguments}))

    points = _range_points(request, prefix)
    ranges = list(zip([None, *points], [*points, None], strict=True))
    return _side_by_side([_S3Range(request, len(prefix), after, until) for after, until in ranges])


def etag_of(info: Mapping[str, Any]) -> str:
    """The mark in a store's description of an object that changes with its content."""
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    mark = next((info[name] for name in names if info.get(name)), "")
    return str(mark.timestamp() if isinstance(mark, datetime) else mark).strip('"')


def without_folders(pages: Iterator[ObjectPage], folders: Collection[str]) -> Iterator[ObjectPage]:
    """The pages without the objects below `folders`, which are relative paths."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    for page in pages:
        rows = [row for row in zip(*page, strict=True) if not row[0].startswith(prefixes)]
        yield ObjectPage([path for path, _, _ in rows], [size for _, size, _ in rows], [etag for _, _, etag in rows])


def _range_points(request: Callable[..., Mapping[str, Any]], prefix: str) -> list[str]:
    """At most PARALLEL_RANGES - 1 keys, rising, that cut the keys below `prefix` into ranges."""
    names: list[str] = []
    arguments = {"Delimiter": "/", "Prefix": prefix}
    for _ in range(PAGES_FOR_RANGES):
        reply = request(**arguments)
        names += [each["Prefix"] for each in reply.get("CommonPrefixes", ())]
        if not reply.get("IsTruncated"):
            if len(names) == 1 and not reply.get("Contents"):
                return _range_points(request, names[0])  # one folder holds everything: cut that
            break
        arguments["ContinuationToken"] = reply["NextContinuationToken"]
    ranges = min(PARALLEL_RANGES, len(names))
    return [names[number * len(names) // ranges] for number in range(1, ranges)]


class _S3Range:
    """The objects whose keys lie above `after` and not above `until`."""

    def __init__(
        self, request: Callable[..., Mapping[str, Any]], prefix_length: int, after: str | None, until: str | None
    ) -> None:
        self._request, self._prefix_length, self._after, self._until = request, prefix_length, after, until

    def __iter__(self) -> Iterator[ObjectPage]:
        arguments = {"StartAfter": self._after} if self._after else {}
        while True:
            reply = self._request(**arguments)
            contents = reply.get("Contents", [])
            inside = [each for each in contents if self._until is None or each["Key"] <= self._until]
            files = [each for each in inside if not each["Key"].endswith("/")]  # others mark folders
            keys = [each["Key"][self._prefix_length :] for each in files]
            yield ObjectPage(keys, [each["Size"] for each in files], [etag_of(each) for each in files])
            if len(inside) < len(contents) or not reply.get("IsTruncated"):
                return
            arguments = {"ContinuationToken": reply["NextContinuationToken"]}


def _side_by_side(sources: list[_S3Range]) -> Iterator[ObjectPage]:
    """The pages of all sources, each read by its own thread; raises the first error of any."""
    pages: queue.Queue[ObjectPage | BaseException | None] = queue.Queue(PAGES_AHEAD)
    stopped = threading.Event()

    def put(page: ObjectPage | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                pages.put(page, timeout=STOP_LOOK_SECONDS)
                return

    def read(source: _S3Range) -> None:
        try:
            for page in source:
                if stopped.is_set():
                    return
                put(page)
            put(None)
        except BaseException as error:  # raised by the reader
            put(error)

    with ThreadPoolExecutor(len(sources), thread_name_prefix="listing") as pool:
        for source in sources:
            pool.submit(read, source)
        reading = len(sources)
        try:
            while reading:
                page = pages.get()
                if isinstance(page, BaseException):
                    raise page
                reading -= page is None
                if page is not None:
                    yield page
        finally:
            stopped.set()
