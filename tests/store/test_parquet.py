"""Tables in memory: round trip, equal bytes, and a clean end of the process."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from components.store import parquet

TABLE = pa.table({"a": np.arange(1000), "b": [str(number) for number in range(1000)]})


def test_tables_survive_the_round_trip_whole_and_in_part():
    assert parquet.from_bytes(parquet.to_bytes(TABLE)).equals(TABLE)
    assert parquet.from_bytes(parquet.to_bytes(TABLE), columns=["b"]).equals(TABLE.select(["b"]))


def test_equal_tables_give_equal_bytes():
    parts = pa.concat_tables([TABLE.slice(0, 300), TABLE.slice(300)])
    assert parquet.to_bytes(parts) == parquet.to_bytes(TABLE)


@pytest.mark.parametrize("data", [b"", b"PAR1", parquet.to_bytes(TABLE)[:-9]])
def test_damaged_bytes_raise(data):
    with pytest.raises((pa.ArrowException, OSError)):
        parquet.from_bytes(data)


def test_reading_starts_no_threads():
    probe = (
        "import os, pyarrow as pa\n"
        "from components.store import parquet\n"
        "data = parquet.to_bytes(pa.table({'a': range(1000), 'b': range(1000)}))\n"
        "before = os.listdir('/proc/self/task'); parquet.from_bytes(data)\n"
        "assert os.listdir('/proc/self/task') == before"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
