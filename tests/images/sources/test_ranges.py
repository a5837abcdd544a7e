"""Parts of files compared with slices of their bytes, and the requests that reading them took."""

import numpy as np
import pytest

from components.errors import StorageError
from components.images.sources.ranges import ByteRange, RisingReader, join_ranges
from components.store import objects

MEBI = 1 << 20


@pytest.fixture
def content(tmp_path) -> tuple[str, bytes]:
    """A file of 20 MiB: its URI and its bytes."""
    data = np.random.default_rng(0).bytes(20 * MEBI)
    (tmp_path / "f").write_bytes(data)
    return str(tmp_path / "f"), data


@pytest.mark.parametrize(("step", "most_requests", "most_bytes"), [(4096, 7, 20.1 * MEBI), (512 << 10, 42, 0.4 * MEBI)])
def test_small_parts_are_streamed_and_large_gaps_are_skipped(content, requests, step, most_requests, most_bytes):
    uri, data = content
    reader = RisingReader(uri, len(data))
    assert all(reader.read(start, 512) == data[start : start + 512] for start in range(0, len(data), step))
    assert len(requests) <= most_requests and sum(part.size for part in requests) <= most_bytes


def test_any_order_gives_the_bytes(content):
    uri, data = content
    reader = RisingReader(uri, len(data))
    for start in np.random.default_rng(1).integers(0, len(data), 50).tolist():
        assert reader.read(start, 3000) == data[start : start + 3000]
    assert reader.read(len(data) - 5, 10) == data[-5:] and reader.read(len(data) + 5, 10) == b""


def test_a_file_that_shrinks_is_told(content):
    uri, data = content
    with pytest.raises(StorageError, match="became shorter while it was read"):
        RisingReader(uri, len(data) + 1).read(len(data) - 10, 100)


def test_a_range_file_reads_what_it_is_asked_for(content, requests):
    uri, data = content
    with objects.range_file(uri, len(data)) as file:
        assert file.seek(-100, 2) == len(data) - 100 and file.read(1000) == data[-100:] and file.read(1) == b""
        assert file.seek(5) == file.tell() == 5 and file.read(7) == data[5:12]
    assert requests == [ByteRange(len(data) - 100, 100), ByteRange(5, 7)]


def test_ranges_are_joined_over_small_gaps_up_to_a_size():
    assert list(join_ranges([])) == []
    near, far = [ByteRange(900, 5), ByteRange(0, 10), ByteRange(500, 10)], [ByteRange(MEBI, 10)]
    assert list(join_ranges([*near, *far])) == [[1, 2, 0], [3]]
    assert list(join_ranges([ByteRange(number * 3 * MEBI, 3 * MEBI) for number in range(5)])) == [[0, 1], [2, 3], [4]]
    assert list(join_ranges([ByteRange(0, 9 * MEBI), ByteRange(9 * MEBI, 1)])) == [[0], [1]]
