"""Rows on disk, compared with the same rows in memory."""

import gc

import numpy as np
import pyarrow as pa
import pytest

from components.errors import StorageError
from components.store import spool
from components.store.spool import ExternalSort, ScratchFolder, SortedLookup, Spool


def table_of(keys) -> pa.Table:
    return pa.table({"key": pa.array(keys), "value": pa.array([f"of {key}" for key in keys])})


def test_a_spool_gives_its_rows_back_in_batches_and_is_removed_with_its_folder():
    folder = ScratchFolder()
    rows, written = table_of(range(100)), Spool(folder.path / "rows", table_of([0]).schema, 16)
    for start in range(0, 100, 7):
        written.add(rows.slice(start, 7))
    written.close()
    tables = list(written.tables())
    assert [table.num_rows for table in tables] == [16] * 6 + [4] and written.rows == 100
    assert pa.concat_tables(tables).equals(rows)
    path = folder.path
    del folder
    gc.collect()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["shuffled", "rising", "interleaved", "equal"])
@pytest.mark.parametrize("rows_per_run", [1, 60, 10_000])
def test_an_external_sort_is_a_sort(monkeypatch, kind, rows_per_run):
    monkeypatch.setattr(spool, "ROWS_PER_BATCH", 8)
    numbers = np.arange(500) if kind != "equal" else np.zeros(500, int)
    if kind == "shuffled":
        numbers = np.random.default_rng(0).permutation(500)
    if kind == "interleaved":
        numbers = numbers.reshape(5, 100).T.ravel()
    keys = [f"{number:03} é" for number in numbers]
    sort = ExternalSort("key", rows_per_run)
    for start in range(0, 500, 50):
        sort.add(table_of(keys[start : start + 50]))
    for _ in range(2):  # rows can be read again
        assert pa.concat_tables(sort.tables()).to_pylist() == table_of(sorted(keys)).to_pylist()


def test_a_sort_of_nothing_is_empty():
    assert list(ExternalSort("key").tables()) == []


@pytest.mark.parametrize("rows_per_table", [1, 9, 1000])
@pytest.mark.parametrize("keys_per_call", [1, 13, 400])
def test_a_lookup_finds_what_a_dictionary_finds(rows_per_table, keys_per_call):
    random = np.random.default_rng(1)
    stored, asked = (sorted(f"{number:04}" for number in random.choice(900, 300, replace=False)) for _ in range(2))
    values = dict(zip(stored, table_of(stored)["value"].to_pylist(), strict=True))
    tables = (table_of(stored[start : start + rows_per_table]) for start in range(0, 300, rows_per_table))
    lookup = SortedLookup(tables, table_of(["a"]).schema, "key")
    found = []
    for start in range(0, 300, keys_per_call):
        keys = pa.chunked_array([asked[start : start + keys_per_call]])
        found += lookup.find(keys)["value"].to_pylist()
    assert found == [values.get(key) for key in asked] and lookup.found == len(set(stored) & set(asked))


def test_a_full_or_missing_disk_is_named_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match=r"folder for temporary files, cannot write there: .*set TMPDIR"):
        ScratchFolder()
