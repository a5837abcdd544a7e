"""How everything before the planner grows: seconds and peak memory of listing, snapshot, opening and comparing.

    python -m benchmarks.growth 100000 1000000 [--write]

A synthetic source lists rows as an object store does, in sorted ranges that arrive interleaved; nothing is read from a
network. Each size is measured in a process of its own. The second snapshot has 1,000 more images in one folder: it is
written beside the first one and compared with it by the names of its parts.
"""

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from benchmarks.processes import describe_machine, peak_memory
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.listing import Listing, ListingBuilder, Numbering
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.images.sources.file_tree import FILES_SCHEMA, image_file_rows
from components.images.sources.labels import number_labels
from components.store.spool import ROWS_PER_RUN

RESULTS = Path(__file__).parent / "results" / "growth.json"
IMAGES_PER_CLASS = 1000
ROWS_PER_PAGE = 1000
"""As S3 gives them."""
RANGES = 16
ADDED = 1000
CONFIG = ImagesConfig(source="folder", uri="s3://bucket/images", image_size=256)


def main() -> None:
    """Measure each size in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--rows-per-run", type=int, default=ROWS_PER_RUN, help="rows sorted in memory at a time")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.sizes[0], options.rows_per_run)))
        return
    results = []
    for size in options.sizes:
        command = [sys.executable, "-m", "benchmarks.growth", "--one", str(size)]
        command += ["--rows-per-run", str(options.rows_per_run)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
    if options.write:
        described = {"machine": describe_machine(), "rows_per_run": options.rows_per_run}
        RESULTS.write_text(json.dumps(described | {"sizes": results}, indent=1) + "\n")


def _measure(images: int, rows_per_run: int) -> dict[str, float]:
    """Seconds and CPU seconds of each part, and the peak of resident memory in bytes after it."""
    figures: dict[str, float] = {"images": images, "start_peak_bytes": peak_memory()}

    @contextlib.contextmanager
    def measured(name: str) -> Iterator[None]:
        started, used = time.monotonic(), time.process_time()
        yield
        figures[f"{name}_seconds"] = round(time.monotonic() - started, 3)
        figures[f"{name}_cpu_seconds"] = round(time.process_time() - used, 3)
        figures[f"{name}_peak_bytes"] = peak_memory()

    with TemporaryDirectory() as folder:
        with measured("list"):
            listing = _list(images, rows_per_run)
        with measured("snapshot"):
            commit_snapshot(f"{folder}/first", listing, [], CONFIG, seed=0)
        with measured("open"):
            first = open_snapshot(f"{folder}/first")
        with measured("read"):
            rows = sum(wave.num_rows for wave in first.waves(1 << 16))
        assert rows == images == first.rows
        more = _list(images, rows_per_run, ADDED)
        with measured("snapshot_beside_it"):
            commit_snapshot(f"{folder}/second", more, [], CONFIG, seed=0, earlier=first)
        with measured("compare"):
            changed = _compare(first, open_snapshot(f"{folder}/second"))
    return figures | changed


def _list(images: int, rows_per_run: int, added: int = 0) -> Listing:
    """The listing of synthetic images; `added` more lie in the folder of the middle class."""
    builder = ListingBuilder(rows_per_run)
    for page in _pages(images):
        builder.add(_rows(page))
    middle = images // IMAGES_PER_CLASS // 2
    if added:
        builder.add(_rows([f"class-{middle:07}/new-{number:04}.jpg" for number in range(added)]))

    def number(folders: Collection[str]) -> Numbering:
        names = sorted(folders)
        numbers, classes = number_labels(names)
        return Numbering(dict(zip(names, numbers, strict=True)), classes)

    return builder.finish(number)


def _pages(images: int) -> Iterator[list[str]]:
    """Keys, a page from each range in turn."""
    bounds = [number * images // RANGES for number in range(RANGES + 1)]
    ranges = [iter(range(start, stop)) for start, stop in pairwise(bounds)]
    while ranges:
        for numbers in list(ranges):
            page = list(islice(numbers, ROWS_PER_PAGE))
            if not page:
                ranges.remove(numbers)
                continue
            yield [f"class-{number // IMAGES_PER_CLASS:07}/image-{number:010}.jpg" for number in page]


def _rows(keys: list[str]) -> pa.Table:
    etags = [hashlib.md5(key.encode()).hexdigest() for key in keys]
    files = pa.table([keys, [100_000] * len(keys), etags], schema=FILES_SCHEMA)
    return image_file_rows(str(CONFIG.uri), files, pa.array([key.partition("/")[0] for key in keys]))


def _compare(first: StoredSnapshot, second: StoredSnapshot) -> dict[str, float]:
    """Parts that the second snapshot does not share with the first, and the rows in them."""
    names = {part.name for part in first.parts}
    changed = [part for part in second.parts if part.name not in names]
    return {
        "parts": len(second.parts),
        "changed_parts": len(changed),
        "changed_rows": sum(part.rows for part in changed),
    }


if __name__ == "__main__":
    main()
