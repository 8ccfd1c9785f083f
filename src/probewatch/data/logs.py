"""Readers: query logs of any format to checked, sorted columns; every line accounted for."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from probewatch.data.fields import FieldMap
from probewatch.data.ingest import Ingest
from probewatch.data.records import Sessions
from probewatch.data.rejects import Counts, Reject, RejectList
from probewatch.data.sessions import iter_sessions, to_iso
from probewatch.data.spool import EVENT, Spool
from probewatch.data.tables import first_line
from probewatch.errors import LogError

MEMORY_BYTES = 704 << 20  # of DuckDB; what does not fit is kept on disk
CHUNK_INPUTS = 1 << 22  # numbers in the input vectors of one chunk


class Log:
    """A query log that was read: its counts, its rejects and its sessions; free it with ``close`` or ``with``.

    Attributes:
        counts: what became of the lines.
        rejected: the first thousand rejects.
        reasons: kind of reject to number.
        paths: the files, in the order read.
    """

    def __init__(self, spool: Spool, paths: Sequence[Path], rejects: RejectList, counts: Counts, gap_s: float) -> None:
        self._spool = spool
        self._gap_s = gap_s
        self.paths = tuple(paths)
        self.counts = counts
        self.rejected: list[Reject] = rejects.kept
        self.reasons: dict[str, int] = dict(sorted(rejects.kinds.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the log's memory and disk; its sessions cannot be read any more."""
        self._spool.close()

    def sessions(self, chunk_events: int = 262_144) -> Iterator[Sessions]:
        """The sessions ordered by client, model, session and time, in chunks of at most ``chunk_events`` queries.

        A session that is longer than a chunk is cut; ``before`` and ``ends`` tell. Chunks are smaller
        where input vectors are very long.
        """
        (widest,) = self._spool.rows("SELECT coalesce(max(width), 0) FROM spool")[0]
        rows = max(min(chunk_events, CHUNK_INPUTS // max(widest, 1)), 1)
        try:
            batches = self._spool.batches(rows)
            yield from iter_sessions(batches, gap_s=self._gap_s, chunk_events=rows, given=self._spool.given)
        except duckdb.Error as error:
            raise LogError(f"the log's queries cannot be sorted ({first_line(error)}); free memory or disk.") from error

    def all_sessions(self) -> Sessions:
        """All sessions at once, whole: for logs that fit in memory."""
        return Sessions.concat(list(self.sessions()))

    def summary(self) -> dict[str, Any]:
        """What the log holds, ready for JSON: counts, sessions, clients, models, time span, reasons of rejects."""
        good = f"FROM spool WHERE problem = {EVENT}"
        columns = "model, count(*), coalesce(max(width), 0)"
        models = self._spool.rows(f"SELECT {columns} {good} GROUP BY model ORDER BY model")
        first, last, clients = self._spool.rows(f"SELECT min(time_s), max(time_s), count(DISTINCT client) {good}")[0]
        return {
            **asdict(self.counts),
            "sessions": self._count_sessions(),
            "clients": clients,
            "models": {model: {"events": events, "inputs": width} for model, events, width in models},
            "first": to_iso(first),
            "last": to_iso(last),
            "reasons": self.reasons,
            "given": list(self._spool.given),
            "fields": sorted(self._spool.fields_with_values()),
        }

    def _count_sessions(self) -> int:
        (named,) = self._spool.rows(
            "SELECT count(*) FROM (SELECT DISTINCT client, model, session FROM spool"
            f" WHERE problem = {EVENT} AND session <> '')"
        )[0]
        (unnamed,) = self._spool.rows(
            "SELECT count(*) FROM (SELECT time_s - lag(time_s) OVER (PARTITION BY client, model ORDER BY time_s)"
            f" AS pause FROM spool WHERE problem = {EVENT} AND session = '') WHERE pause IS NULL OR pause > ?",
            self._gap_s,
        )[0]
        return int(named + unnamed)

    @cached_property
    def sha256(self) -> str:
        """Hash of the files' bytes; their names and their order do not matter."""
        try:
            digests = sorted(_hash_file(path) for path in self.paths)
        except OSError as error:
            raise LogError(f"the log's files changed while it was in use ({error}).") from error
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_logs(
    paths: Sequence[str | Path],
    *,
    fields: FieldMap | None = None,
    gap_s: float = 1800.0,
    rejects: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Log:
    """Read files of queries; close the log (or use ``with``) to free its memory and disk.

    Args:
        paths: files, or patterns such as ``logs/*.jsonl.gz``; each the article's feature JSON, its raw
            event log, or JSON lines, CSV or Parquet with a field mapping; plain or gzip.
        fields: where the log keeps its fields; without it JSON lines are read as the article's raw events.
        gap_s: where the log names no session, a client's pause on a model of more than this starts a new one.
        rejects: file that gets a JSON object ``{file, line, reason}`` a line for each reject.
        progress: called with the bytes done and the bytes of all files.

    Raises:
        LogError: a file is missing or unreadable, or not one query was found.
        MappingError: the log lacks the fields of a client and session or of the time, or the mapping is wrong.
    """
    found = expand(paths)
    total = sum(path.stat().st_size for path in found)
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress:
            progress(min(done, total), total)

    spool = Spool(MEMORY_BYTES)
    try:
        with RejectList(Path(rejects) if rejects else None) as kept:
            ingest = Ingest(spool, fields, kept, advance)
            for path in found:
                ingest.read(path)
            spool.filled()
            counts = ingest.finish()
    except BaseException as error:
        spool.close()
        if isinstance(error, duckdb.OutOfMemoryException):
            raise LogError(f"the log does not fit ({first_line(error)}); free memory or disk.") from error
        if isinstance(error, duckdb.Error):
            raise LogError(f"the log cannot be read ({first_line(error)}); check the field mapping.") from error
        raise
    return Log(spool, found, kept, counts, gap_s)


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The files that names and patterns stand for, each once.

    Raises:
        LogError: there are none, or one stands for nothing or for a folder; all such are named.
    """
    found: dict[Path, None] = {}
    mistakes = [] if paths else ["no log was given"]
    for path in paths:
        names = [str(path)] if Path(path).exists() else glob.glob(str(path), recursive=True)  # noqa: PTH207
        matched = [Path(name) for name in sorted(names)]
        files = [match for match in matched if match.is_file()]
        if not files:
            folder = any(match.is_dir() for match in matched)
            mistakes.append(f"{path} is {'a folder' if folder else 'no file' if matched else 'not there'}")
        found.update(dict.fromkeys(files))
    if mistakes:
        raise LogError(f"{'; '.join(mistakes)}; expected files, or patterns that match some.")
    return list(found)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
