"""Figures that MLflow does not have yet, on disk: they outlive the process, and the next one sends them.

    <state>/unsent/<digest of the tracking URI>/<time>-<process>.db

One SQLite file per process. SQLite in its exclusive locking mode makes the file the process's own until it ends,
however it ends: a file that can be opened belongs to nobody any more. A transaction per entry is safe against a killed
process; after a power failure the last entries may be missing, because not each is synced to the disk.
"""

import contextlib
import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_SPOOL_BYTES = 256 << 20
"""Bytes of one process's entries; above it `Spool.put` thins them. Ten minutes of a fit take about a megabyte."""
MAX_ENTRIES_PER_REQUEST = 100
"""Entries that are read at a time."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS entries "
    "(id INTEGER PRIMARY KEY, run TEXT, kind TEXT, body TEXT, data BLOB, size INTEGER)",
    "CREATE INDEX IF NOT EXISTS entries_of_run ON entries (run, id)",
)
_counter = itertools.count()


@dataclass(frozen=True)
class Entry:
    """One thing to send to a run."""

    id: int
    run_id: str
    kind: str
    """metrics, picture, document, parameters, inputs, failure or end."""
    body: Mapping[str, Any]
    data: bytes
    """Content of a picture or document."""
    size: int
    """Bytes that it takes in the spool."""


class SpoolBusy(Exception):
    """Another process, or another spool of this one, has the file."""


class Spool:
    """The entries of one process, oldest first. Several threads may call its methods."""

    def __init__(self, file: Path) -> None:
        """Open or create `file`; raises SpoolBusy when it belongs to a living process."""
        self.file = file
        self._lock = threading.Lock()
        self._db = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for line in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"):
                self._db.execute(line)
            self._db.execute("BEGIN EXCLUSIVE")
            for line in _TABLES:
                self._db.execute(line)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise SpoolBusy(str(error)) from error
            raise
        self._bytes = self._sum("TRUE")

    def put(self, run_id: str, kind: str, body: Mapping[str, Any], data: bytes = b"") -> int:
        """Append an entry; returns how many others were dropped to make room for it."""
        text = json.dumps(body)
        size = len(text) + len(data)
        with self._lock:
            row = (run_id, kind, text, data, size)
            self._db.execute("INSERT INTO entries (run, kind, body, data, size) VALUES (?, ?, ?, ?, ?)", row)
            self._bytes += size
            return self._thin() if self._bytes > MAX_SPOOL_BYTES else 0

    def _thin(self) -> int:
        """Drop pictures of series; if that is too little, every second of the metrics. The rest is always kept."""
        before = self._db.total_changes
        self._db.execute("DELETE FROM entries WHERE kind = 'picture' AND json_extract(body, '$.step') IS NOT NULL")
        self._bytes = self._sum("TRUE")
        if self._bytes > MAX_SPOOL_BYTES // 2:
            ranked = "SELECT id, ROW_NUMBER() OVER (PARTITION BY run ORDER BY id) AS rank FROM entries"
            odd = f"SELECT id FROM ({ranked} WHERE kind = 'metrics') WHERE rank % 2 = 1"
            self._db.execute(f"DELETE FROM entries WHERE id IN ({odd})")
            self._bytes = self._sum("TRUE")
        return self._db.total_changes - before

    def _sum(self, condition: str, *values: str) -> int:
        query = f"SELECT COALESCE(SUM(size), 0) FROM entries WHERE {condition}"
        return int(self._db.execute(query, values).fetchone()[0])

    def oldest(self) -> list[Entry]:
        """The oldest entry, and those of its run that follow, up to the first of another kind."""
        with self._lock:
            query = (
                "SELECT id, run, kind, body, data, size FROM entries "
                "WHERE run = (SELECT run FROM entries ORDER BY id LIMIT 1) ORDER BY id LIMIT ?"
            )
            first = self._db.execute(query, (1,)).fetchall()
            limit = MAX_ENTRIES_PER_REQUEST if first and first[0][2] == "metrics" else 1
            rows = self._db.execute(query, (limit,)).fetchall()
        entries = [
            Entry(number, run, kind, json.loads(body), data, size) for number, run, kind, body, data, size in rows
        ]
        return list(itertools.takewhile(lambda entry: entry.kind == entries[0].kind, entries))

    def remove(self, entries: list[Entry]) -> None:
        """Forget entries: they were sent, or can never be."""
        with self._lock:
            self._db.executemany("DELETE FROM entries WHERE id = ?", [(entry.id,) for entry in entries])
            self._bytes -= sum(entry.size for entry in entries)

    def forget(self, run_id: str) -> int:
        """Drop everything of one run; returns how many entries that were."""
        with self._lock:
            self._bytes -= self._sum("run = ?", run_id)
            return self._db.execute("DELETE FROM entries WHERE run = ?", (run_id,)).rowcount

    def count(self, run_id: str | None = None) -> int:
        """Entries of one run, or of all."""
        with self._lock:
            where, values = ("WHERE run = ?", (run_id,)) if run_id else ("", ())
            (count,) = self._db.execute(f"SELECT COUNT(*) FROM entries {where}", values).fetchone()
            return int(count)

    def close(self) -> None:
        """Give the file up for the next process; an empty one is deleted."""
        if self.count() == 0:
            for suffix in ("", "-wal"):  # while it is still ours: nobody can open it meanwhile
                self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        with self._lock:
            self._db.close()


def new_spool(folder: Path) -> Spool:
    """The spool of this process in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(SpoolBusy):  # another process found the new file first, and took it for an orphan
            return Spool(folder / f"{time.time_ns()}-{os.getpid()}-{next(_counter)}.db")


def orphaned_spools(folder: Path, but: Collection[Path]) -> Iterator[Spool]:
    """Open the spools of processes that have ended, oldest first, except the files in `but`."""
    for file in sorted(set(folder.glob("*.db")) - set(but)):
        with contextlib.suppress(SpoolBusy, sqlite3.DatabaseError):  # of a living process, or damaged
            yield Spool(file)
