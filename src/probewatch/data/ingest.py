"""From files to the spool, every line counted."""

from __future__ import annotations

import bisect
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from probewatch.data import spool as codes
from probewatch.data.article import read_tasks
from probewatch.data.fields import RAW, RECORDS, FieldMap, fields_of, suggest_fields
from probewatch.data.formats import Format, recognise
from probewatch.data.jsonl import LineReader
from probewatch.data.lines import NEWLINE, Block, CutShortError, read_blocks, read_bytes
from probewatch.data.rejects import (
    BAD_TASK,
    KINDS,
    NOT_JSON,
    UNREADABLE,
    Counts,
    RejectList,
    explain_length,
    explain_line,
)
from probewatch.data.spelling import Spelling
from probewatch.data.spool import Spool
from probewatch.data.tables import Rows, TableReader, column_paths, open_parquet, read_csv_blocks, read_parquet
from probewatch.data.wording import counted, listed
from probewatch.errors import LogError, MappingError

SAMPLE_LINES = 20  # of a block, and of a whole log ten times as many
MOST_THREADS = 8
UNMAPPED = {KINDS[codes.NO_CLIENT], KINDS[codes.NO_TIME]}
T = TypeVar("T")
R = TypeVar("R")


class Ingest:
    """Reads files into a spool, one after the other, and counts what becomes of their lines."""

    def __init__(
        self, spool: Spool, fields: FieldMap | None, rejects: RejectList, progress: Callable[[int], None]
    ) -> None:
        self._spool = spool
        self._strict = fields not in (None, RECORDS)
        self._fields = fields or RAW
        self.rejects = rejects
        self._progress = progress
        self._read = 0
        self._name = ""
        self._files: list[tuple[int, str]] = []  # arrival before the first line, name
        self._arrival = 0
        self._sample: list[str] = []  # JSON lines, to tell which fields a log has
        self.cut_short: list[str] = []  # names of the files that break off
        self.repeats: list[tuple[str, str]] = []  # names of files that hold the same queries

    def read(self, path: Path, name: str) -> None:
        """Read one file, which rejects call ``name``.

        Raises:
            LogError: it cannot be read, or is no log.
            MappingError: it lacks mapped fields.
        """
        self._name = name
        self._files.append((self._arrival, name))
        try:
            match recognise(path, mapped=self._strict):
                case Format.ARTICLE:
                    self._read_article(path)
                case Format.CSV:
                    self._read_csv(path)
                case Format.PARQUET:
                    self._read_parquet(path)
                case Format.LINES:
                    self._read_lines(path)
        except MappingError as error:
            raise error if str(error).startswith(f"{path}: ") else MappingError(f"{name}: {error}") from error

    def finish(self) -> Counts:
        """Settle what only the whole log can tell: usual vector lengths, duplicates and fields that never came.

        Raises:
            LogError: not one query was found.
            MappingError: mapped fields are in none of the JSON lines.
        """
        for arrival, model, length, usual in self._spool.reject_unusual_lengths():
            reason = explain_length(model, length, usual)
            self.rejects.add(*self._locate(arrival), reason, KINDS[codes.BAD_LENGTH])
        self.rejects.whole = True
        if self._fields.request:
            self._spool.mark_duplicates()
        found = self._spool.counts()
        events, skipped, duplicates = (found.get(p, 0) for p in (codes.EVENT, codes.SKIPPED, codes.DUPLICATE))
        rejects = self.rejects.kinds.total()
        if not events:
            raise self._nothing_found(rejects, skipped)
        absent = [path for path in self._never_seen() if self._strict and self._sample]
        if absent:
            names = listed(repr(path) for path in absent)
            raise MappingError(f"no line has {names}; {suggest_fields(fields_of(self._sample))}.")
        self.repeats = self._spool.repeats(self._files)
        return Counts(self._read, events, duplicates, skipped, rejects)

    def _read_lines(self, path: Path) -> None:
        base, line = self._arrival, 0
        breaks_off = False
        spelling = Spelling(self._fields)

        def prepared() -> Iterator[tuple[Block, LineReader]]:
            for block in self._blocks(path):
                yield block, LineReader(self._spool, spelling.of(block))

        def read(work: tuple[Block, LineReader]) -> tuple[Block, FieldMap, list[tuple[int, int]]]:
            block, reader = work
            return block, reader.fields, reader.read(block, base=base)

        for block, fields, rejects in in_order(read, prepared()):
            line = block.first_line + len(block) - 1
            self._read += len(block) - int(block.blank.sum())
            found = [(index, UNREADABLE, reason) for index, reason in block.rejected]
            found += [(index, *explain_line(problem, block.text(index), fields)) for index, problem in rejects]
            ends_open = len(block.content) > 0 and block.content[-1] != NEWLINE
            breaks_off = ends_open and (len(block) - 1, NOT_JSON) in {(index, kind) for index, kind, _ in found}
            for index, kind, reason in sorted(found):
                self.rejects.add(self._name, block.first_line + index, reason, kind)
            if len(self._sample) < 10 * SAMPLE_LINES:
                self._sample += first_texts(block)
            self._refuse_unmapped({kind for _, kind, _ in found}, len(rejects) == int(block.usable.sum()))
            block.release()
        if breaks_off:
            self.cut_short.append(self._name)
        self._arrival += line

    def _blocks(self, path: Path) -> Iterator[Block]:
        for block in read_blocks(path, self._progress):
            if block.cut_short:
                self.cut_short.append(self._name)
            yield block

    def _refuse_unmapped(self, kinds: set[str], all_rejected: bool) -> None:
        """Stop at the first block already if not one of its events has the fields that each needs."""
        if all_rejected and kinds and kinds <= UNMAPPED and codes.EVENT not in self._spool.counts():
            raise self._nothing_found(0, 0)

    def _read_csv(self, path: Path) -> None:
        line = 0
        reader: TableReader | None = None

        def count(blocks: Iterable[Block]) -> Iterator[Block]:
            nonlocal line
            for block in blocks:
                line = block.first_line + len(block) - 1
                self._read += len(block) - int(block.blank.sum())
                yield block

        blocks = count(self._blocks(path))
        for mapped, rows in read_csv_blocks(blocks, lambda names: self._fields.fit(names, strict=self._strict)):
            if reader is None:
                self._read -= 1  # the header
                reader = TableReader(self._spool, mapped, rows.table)
            self._keep_rows(reader, rows)
        self._arrival += line

    def _read_parquet(self, path: Path) -> None:
        file = open_parquet(path)
        mapped = self._fields.fit(column_paths(file.schema_arrow), strict=self._strict)
        reader: TableReader | None = None
        total = 0
        for rows in read_parquet(file, path, mapped):
            reader = reader or TableReader(self._spool, mapped, rows.table)
            self._read += len(rows.line)
            total += len(rows.line)
            self._keep_rows(reader, rows)
        self._progress(path.stat().st_size)
        self._arrival += total

    def _keep_rows(self, reader: TableReader, rows: Rows) -> None:
        for line, kind, reason in reader.read(rows, base=self._arrival):
            self.rejects.add(self._name, line, reason, kind)

    def _read_article(self, path: Path) -> None:
        try:
            content = b"".join(read_bytes(path, self._progress))
        except CutShortError as error:
            raise LogError(f"{path}: {error}, expected the whole of the feature JSON; fetch it anew.") from error
        tables: list[pa.Table] = []
        for task in read_tasks(path, content, arrival=self._arrival + 1):
            self._read += task.read
            self._arrival += task.read
            for place, reason in task.rejected:
                self.rejects.add(self._name, place, reason, BAD_TASK)
            tables.append(task.columns)
        self._spool.insert_given(tables)

    def _locate(self, arrival: int) -> tuple[str, int]:
        before, name = self._files[bisect.bisect_left(self._files, (arrival, "")) - 1]
        return name, arrival - before

    def _never_seen(self) -> list[str]:
        """Mapped paths that are neither in the sample nor anywhere in the log."""
        valued = self._spool.fields_with_values()
        seen = set(fields_of(self._sample))
        found = []
        for name, path in self._fields.named().items():
            if name not in valued and name != "label" and not _is_in(path, seen):
                found.append(path)
        if isinstance(self._fields.inputs, str) and "inputs" not in valued and not _is_in(self._fields.inputs, seen):
            found.append(self._fields.inputs)
        return found

    def _nothing_found(self, rejects: int, skipped: int) -> LogError:
        names = ", ".join(name for _, name in self._files[:3]) + (", …" if len(self._files) > 3 else "")
        kinds = self.rejects.kinds
        unmapped = [kind for kind in sorted(UNMAPPED) if kinds[kind]]
        if unmapped:
            what = " and ".join(unmapped)
            return MappingError(f"{names}: the lines have {what}; {suggest_fields(fields_of(self._sample))}.")
        if rejects:
            first = self.rejects.kept[0]
            every = "the only line was rejected" if rejects == 1 else f"all {rejects:,} lines were rejected, the first"
            return LogError(f"{names}: {every}: {first}.")
        if skipped:
            events = counted(skipped, "event")
            return LogError(f"{names}: no query is among {events}; check event_type in the mapping.")
        return LogError(f"{names}: holds no lines, expected a log of queries; give another file.")


def first_texts(block: Block) -> list[str]:
    """The first usable lines of a block."""
    return [block.text(index) for index in np.flatnonzero(block.usable)[:SAMPLE_LINES].tolist()]


def _is_in(path: str, names: set[str]) -> bool:
    if path.endswith("*"):
        return any(name.startswith(path[:-1]) for name in names)
    return any(name == path or name.startswith(f"{path}.") for name in names)


def in_order(work: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    """The results of ``work`` on each item, in order, made in a thread for each processor core."""
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > threads:  # one waits, so that no thread does
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
