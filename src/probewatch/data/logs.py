"""Readers: query logs of any format to checked, sorted columns; every line accounted for."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from probewatch.data.artefacts import files_like
from probewatch.data.events import Events
from probewatch.data.fields import FieldMap
from probewatch.data.ingest import Ingest
from probewatch.data.records import Sessions
from probewatch.data.rejects import Counts, Reject, RejectList
from probewatch.data.sessions import iter_sessions, to_iso
from probewatch.data.spool import BY_SESSION, EVENT, IN_TIME, Order, Spool
from probewatch.data.tables import first_line
from probewatch.data.wording import listed
from probewatch.errors import ConfigError, LogError, OutputError

MEMORY_BYTES = 704 << 20  # of DuckDB; what does not fit is kept on disk
STDIN = "-"
STDIN_NAME = "standard input"
EARLY_S = 1e8  # 1973-03-03: no API's log is older
CHUNK_INPUTS = 1 << 22  # numbers in the input vectors of one chunk


class Log:
    """A query log that was read: its counts, its rejects and its sessions; free it with ``close`` or ``with``.

    Attributes:
        counts: what became of the lines.
        rejected: the first thousand rejects.
        reasons: kind of reject to number.
        paths: the files, in the order read.
        cut_short: names of the compressed files whose end is missing; what came before was read.
        repeats: pairs of names of files that hold the same queries, which were read twice.
    """

    def __init__(self, spool: Spool, paths: Sequence[Path], ingest: Ingest, counts: Counts, gap_s: float) -> None:
        self._spool = spool
        self._gap_s = gap_s
        self.paths = tuple(paths)
        self.counts = counts
        self.rejected: list[Reject] = ingest.rejects.kept
        self.reasons: dict[str, int] = dict(sorted(ingest.rejects.kinds.items()))
        self.cut_short = tuple(ingest.cut_short)
        self.repeats = tuple(ingest.repeats)

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
        batches = self._sorted(rows, BY_SESSION)
        yield from iter_sessions(batches, gap_s=self._gap_s, chunk_events=rows, given=self._spool.given)

    def _sorted(self, rows: int, order: Order) -> Iterator[pa.RecordBatch]:
        """The queries in an order, ``rows`` at a time.

        Raises:
            OutputError: there is no disk to sort them on.
            LogError: there is no memory to sort them in.
        """
        try:
            yield from self._spool.batches(rows, order)
        except (duckdb.IOException, OSError) as error:
            raise _scratch_error(self._spool.folder, error) from error
        except duckdb.Error as error:
            raise LogError(f"the log's queries cannot be sorted ({first_line(error)}); free memory or disk.") from error

    def events(self, rows: int = 8192) -> Iterator[Events]:
        """The queries of all clients in order of time, as they would have come, ``rows`` at a time.

        Raises:
            LogError: the log has ready-made features instead of what they are made of.
        """
        if self._spool.given:
            raise LogError("the log holds the article's ready-made features, expected queries; use `probewatch score`.")
        for batch in self._sorted(rows, IN_TIME):
            yield Events.from_table(batch)

    def all_sessions(self) -> Sessions:
        """All sessions at once, whole: for logs that fit in memory."""
        return Sessions.concat(list(self.sessions()))

    def distinct(self, column: str) -> set[str]:
        """The log's different values of ``client`` or ``model``."""
        return {value for (value,) in self._spool.rows(f"SELECT DISTINCT {column} FROM spool WHERE problem = {EVENT}")}

    def lengths(self) -> dict[tuple[str, int], int]:
        """How many queries to a model came with an input vector of so many numbers."""
        counted = f"SELECT model, width, count(*) FROM spool WHERE problem = {EVENT} AND width IS NOT NULL GROUP BY ALL"
        return {(model, width): count for model, width, count in sorted(self._spool.rows(counted))}

    @cached_property
    def early(self) -> int:
        """How many queries lie before 1973: most likely counts or clocks of their own that are read as seconds."""
        if self._spool.given:  # the feature JSON tells pauses alone, so its clock starts at 0
            return 0
        return int(self._spool.rows(f"SELECT count(*) FROM spool WHERE problem = {EVENT} AND time_s < {EARLY_S}")[0][0])

    @cached_property
    def fields(self) -> set[str]:
        """Names of our fields that some query has a value for."""
        return self._spool.fields_with_values()

    @property
    def given(self) -> list[str]:
        """Names of the features that the log holds itself."""
        return self._spool.given

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
            "cut_short": list(self.cut_short),
            "before_1973": self.early,
            "given": list(self.given),
            "fields": sorted(self.fields),
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
    paths: Sequence[str | Path] | str | Path,
    *,
    fields: FieldMap | None = None,
    gap_s: float = 1800.0,
    rejects: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Log:
    """Read files of queries; close the log (or use ``with``) to free its memory and disk.

    Args:
        paths: one or several files, or patterns such as ``logs/*.jsonl.gz``; each the article's feature JSON, its raw
            event log, or JSON lines, CSV or Parquet with a field mapping; plain or gzip. ``-`` is what comes in
            on standard input, which is first written to disk.
        fields: where the log keeps its fields; without it JSON lines are read as the article's raw events.
        gap_s: where the log names no session, a client's pause on a model of more than this starts a new one.
        rejects: file that gets a JSON object ``{file, line, reason}`` a line for each reject.
        progress: called with the bytes done and the bytes of all files.

    Raises:
        LogError: a file is missing or unreadable, or not one query was found.
        ConfigError: ``rejects`` is one of the files.
        OutputError: the rejects, or the scratch files that sorting needs, cannot be written.
        MappingError: the log lacks the fields of a client and session or of the time, or the mapping is wrong.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    found = expand(paths)
    if rejects and Path(rejects).resolve() in {path.resolve() for path in found}:
        raise ConfigError(f"{rejects}: it is the log itself, expected another file; choose another --rejects.")
    total = done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress:
            progress(min(done, total), total)

    spool = _new_spool()
    try:
        names = {path: str(path) for path in found}
        if Path(STDIN) in names and STDIN in paths:
            del names[Path(STDIN)]
            names[_keep_stdin(spool.folder)] = STDIN_NAME
        total = sum(path.stat().st_size for path in names)
        with RejectList(Path(rejects) if rejects else None) as kept:
            ingest = Ingest(spool, fields, kept, advance)
            for path, name in names.items():
                ingest.read(path, name)
            spool.filled()
            counts = ingest.finish()
    except BaseException as error:
        spool.close()
        if isinstance(error, LogError) and f"{spool.folder}/" in str(error):  # what was standard input
            raise type(error)(str(error).replace(f"{spool.folder}/", "")) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise LogError(f"the log does not fit ({first_line(error)}); free memory or disk.") from error
        if isinstance(error, duckdb.IOException) or (isinstance(error, OSError) and not isinstance(error, OutputError)):
            raise _scratch_error(spool.folder, error) from error
        if isinstance(error, duckdb.Error):
            raise LogError(f"the log cannot be read ({first_line(error)}); check the field mapping.") from error
        raise
    return Log(spool, list(names), ingest, counts, gap_s)


def _new_spool() -> Spool:
    try:
        return Spool(MEMORY_BYTES)
    except (duckdb.IOException, OSError) as error:
        raise _scratch_error(Path(tempfile.gettempdir()), error) from error


def _scratch_error(folder: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{folder}: the scratch files of the log cannot be kept there ({first_line(error)});"
        " free disk, or name another folder in TMPDIR."
    )


def _keep_stdin(folder: Path) -> Path:
    """Standard input as a file: it is looked at before it is read, and hashed after."""
    path = folder / STDIN_NAME
    if sys.stdin is None:
        raise LogError("standard input is closed, expected a log; give a file.")
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return path


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The files that names and patterns stand for, each once.

    Raises:
        LogError: there are none, or one stands for nothing or for a folder; all such are named.
    """
    found: dict[Path, Path] = {}  # by where it really is
    mistakes = [] if paths else ["no log was given"]
    for path in paths:
        if path == STDIN:
            found[Path(STDIN)] = Path(STDIN)
            continue
        matched = [Path(name) for name in files_like(path)]
        files = [match for match in matched if match.is_file()]
        if not files:
            folder = any(match.is_dir() for match in matched)
            mistakes.append(f"{path} is {'a folder' if folder else 'no file' if matched else 'not there'}")
        for file in files:
            found.setdefault(file.resolve(), file)
    if mistakes:
        raise LogError(f"{listed(mistakes, joint='; ')}; expected files, or patterns that match some.")
    return list(found.values())


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
