"""What a stream needs to go on after it was killed, in an SQLite file: a commit holds all of it, or nothing.

Sessions' state, the position in the input and the alerts that it led to are committed together. Alerts
are delivered after the commit, and each sink's progress is noted, so that a restart delivers what lacks.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.errors import ConfigError, OutputError

VERSION = 2
TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS sessions (slot INTEGER PRIMARY KEY, record BLOB);
CREATE TABLE IF NOT EXISTS requests (first INTEGER PRIMARY KEY, keys BLOB);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, line TEXT);
CREATE TABLE IF NOT EXISTS sinks (name TEXT PRIMARY KEY, upto INTEGER, mark INTEGER);
"""


class Journal:
    """An open state file; one process at a time has it.

    Args:
        path: is made if it is not there, readable by its owner only: it holds sketches of inputs.
        layout: what the records consist of, and which bundle made them.

    Raises:
        ConfigError: it cannot be opened, another process has it, or it belongs to another bundle.
    """

    def __init__(self, path: Path, layout: Mapping[str, Any]) -> None:
        self.path = path
        told = json.dumps({"version": VERSION, **layout}, sort_keys=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._run("PRAGMA locking_mode = EXCLUSIVE")
            self._run("PRAGMA journal_mode = WAL")
            self._run("PRAGMA synchronous = FULL")
            self._connection.executescript("BEGIN IMMEDIATE;" + TABLES + "COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"{path}: cannot be used as state ({error}); it may be in use, or no state: choose another --state."
            ) from error
        known = self.get("layout")
        if known is not None and known.decode() != told:
            self._connection.close()
            raise ConfigError(
                f"{path}: it is the state of another bundle, other profiles or another release; choose another --state."
            )
        if known is None:
            with self.transaction():
                self.put({"layout": told.encode(), "secret": os.urandom(16)})
        self.secret = np.frombuffer(self.get("secret") or b"", np.uint64)

    def close(self) -> None:
        """Give the file back; nothing is committed."""
        self._connection.close()

    def _run(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Any:
        """What is written inside is there as a whole, or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            self._run("BEGIN IMMEDIATE")
            yield
            self._run("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._run("ROLLBACK")
            raise OutputError(f"{self.path}: the state cannot be written ({error}); free the disk.") from error

    def get(self, name: str) -> bytes | None:
        """A value by its name."""
        rows = self._run("SELECT value FROM meta WHERE name = ?", [name])
        return bytes(rows[0][0]) if rows else None

    def put(self, values: Mapping[str, bytes]) -> None:
        """Write some values."""
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def put_sessions(self, columns: Sequence[NDArray[Any]], slots: NDArray[np.int64], freed: NDArray[np.int64]) -> None:
        """Write the rows ``slots`` of all columns, and forget the slots ``freed``."""
        self._connection.executemany("DELETE FROM sessions WHERE slot = ?", [(slot,) for slot in freed.tolist()])
        for at in range(0, len(slots), 1024):
            chosen = slots[at : at + 1024]
            parts = [np.ascontiguousarray(column[chosen].reshape(len(chosen), -1)).view(np.uint8) for column in columns]
            records = np.concatenate(parts, axis=1)
            rows = zip(chosen.tolist(), records, strict=True)
            self._connection.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?)", rows)

    def load_sessions(self, columns: Sequence[NDArray[Any]], latest: int) -> NDArray[np.int64]:
        """Fill the columns; the slots that are taken.

        Sessions that do not fit are left out, the least recently used first: those with the lowest whole number
        at byte ``latest`` of their record. The file is written anew then, with other slots.
        """
        size = len(columns[0])
        bounds = np.cumsum([0, *(column[:1].nbytes for column in columns)])
        ((count, highest),) = self._run("SELECT count(*), coalesce(max(slot), -1) FROM sessions")
        if highest >= size:
            self._shrink(latest, size, count)
        taken = []
        for slot, record in self._connection.execute("SELECT slot, record FROM sessions ORDER BY slot"):
            for column, start, end in zip(columns, bounds[:-1], bounds[1:], strict=True):
                column[slot] = np.frombuffer(record[start:end], column.dtype).reshape(column.shape[1:])
            taken.append(slot)
        return np.array(taken, np.int64)

    def _shrink(self, offset: int, size: int, count: int) -> None:
        keys = [
            (int.from_bytes(record[offset : offset + 8], "little", signed=True), slot)
            for slot, record in self._connection.execute("SELECT slot, record FROM sessions")
        ]
        keep = [slot for _, slot in sorted(keys)[max(count - size, 0) :]]
        with self.transaction():
            self._run("CREATE TEMP TABLE kept AS SELECT 0 AS slot, 0 AS new WHERE false")
            self._connection.executemany(
                "INSERT INTO kept VALUES (?, ?)", zip(sorted(keep), range(len(keep)), strict=True)
            )
            self._run("CREATE TEMP TABLE moved AS SELECT new, record FROM sessions JOIN kept USING (slot)")
            self._run("DELETE FROM sessions")
            self._run("INSERT INTO sessions SELECT new, record FROM moved")
            self._run("DROP TABLE kept")
            self._run("DROP TABLE moved")

    def put_requests(self, ring: NDArray[np.int64], done: int, count: int) -> None:
        """Write what came into the ring after the first ``done``, and forget what it lost."""
        size = len(ring)
        turns = np.arange(max(done, count - size), count) % size
        if len(turns):
            self._run("INSERT OR REPLACE INTO requests VALUES (?, ?)", [count - len(turns), ring[turns].tobytes()])
            self._run("DELETE FROM requests WHERE first < ? - 2 * ?", [count, size])

    def load_requests(self) -> tuple[NDArray[np.int64], int]:
        """The keys that came last, and the number of the first of them."""
        rows = self._run("SELECT first, keys FROM requests ORDER BY first")
        keys = np.concatenate([np.frombuffer(row[1], np.int64) for row in rows] or [np.zeros(0, np.int64)])
        return keys, int(rows[0][0]) if rows else 0

    def put_lines(self, lines: Sequence[tuple[int, str]]) -> None:
        """Add alerts to the outbox."""
        self._connection.executemany("INSERT INTO outbox VALUES (?, ?)", lines)

    def load_lines(self) -> list[tuple[int, str]]:
        """The alerts that some sink may lack."""
        return [(int(number), str(line)) for number, line in self._run("SELECT id, line FROM outbox ORDER BY id")]

    def sinks(self) -> dict[str, tuple[int, int]]:
        """Each sink's last alert, and what it noted of itself."""
        return {str(name): (int(upto), int(mark)) for name, upto, mark in self._run("SELECT * FROM sinks")}

    def put_sinks(self, sinks: Mapping[str, tuple[int, int]]) -> None:
        """Note the progress of all sinks that there are, and forget the alerts that all have."""
        self._run("DELETE FROM sinks")
        self._connection.executemany(
            "INSERT INTO sinks VALUES (?, ?, ?)", [(name, *noted) for name, noted in sinks.items()]
        )
        if sinks:
            self._run("DELETE FROM outbox WHERE id <= ?", [min(upto for upto, _ in sinks.values())])
