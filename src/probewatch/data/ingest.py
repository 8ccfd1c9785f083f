"""From files to the spool: which format a file has, and its reading, every line counted."""

from __future__ import annotations

import bisect
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from probewatch.data import spool as codes
from probewatch.data.article import looks_like_article, read_tasks
from probewatch.data.fields import FieldMap, suggest
from probewatch.data.jsonl import LineReader
from probewatch.data.lines import Block, CutShort, read_blocks, read_bytes
from probewatch.data.rejects import BAD_TASK, KINDS, UNREADABLE, Counts, RejectList, explain_length, explain_line
from probewatch.data.spool import Spool
from probewatch.errors import LogError, MappingError

HEAD_BYTES = 1 << 20
SAMPLE_LINES = 20
MOST_THREADS = 8
T = TypeVar("T")
R = TypeVar("R")


class Ingest:
    """Reads files into a spool, one after the other, and counts what becomes of their lines."""

    def __init__(
        self, spool: Spool, fields: FieldMap, rejects: RejectList, progress: Callable[[int], None]
    ) -> None:
        self._spool = spool
        self._fields = fields
        self._rejects = rejects
        self._progress = progress
        self._read = 0
        self._files: list[tuple[int, str]] = []  # arrival before the first line, name
        self._arrival = 0
        self._sample: list[str] = []

    def read(self, path: Path) -> None:
        """Read one file.

        Raises:
            LogError: it cannot be read, or holds nothing that the mapping fits.
        """
        self._files.append((self._arrival, str(path)))
        head = read_head(path)
        if looks_like_article(head):
            self._read_article(path)
        else:
            self._read_lines(path)

    def finish(self) -> Counts:
        """Settle what only the whole log can tell: usual vector lengths and duplicates.

        Raises:
            LogError: not one query was found.
        """
        for arrival, model, length, usual in self._spool.reject_unusual_lengths():
            reason = explain_length(model, length, usual)
            self._rejects.add(*self._locate(arrival), reason, KINDS[codes.BAD_LENGTH])
        if self._fields.request:
            self._spool.mark_duplicates()
        events, skipped, duplicates = (self._spool.count(code) for code in (codes.EVENT, codes.SKIPPED, codes.DUPLICATE))
        rejects = self._rejects.kinds.total()
        if not events:
            raise self._nothing_found(rejects, skipped)
        return Counts(self._read, events, duplicates, skipped, rejects)

    def _read_lines(self, path: Path) -> None:
        reader = LineReader(self._spool, self._fields)
        base, line = self._arrival, 0
        blocks = read_blocks(path, self._progress)
        for block, rejects in in_order(lambda block: (block, reader.read(block, base=base)), blocks):
            line = block.first_line + len(block) - 1
            self._read += len(block) - int(block.blank.sum())
            self._report(path, block, rejects)
        self._arrival += line

    def _report(self, path: Path, block: Block, rejects: list[tuple[int, int]]) -> None:
        """Keep a block's rejects, in the order of its lines."""
        found = [(index, UNREADABLE, reason) for index, reason in block.rejected]
        found += [(index, *explain_line(problem, block.text(index), self._fields)) for index, problem in rejects]
        for index, kind, reason in sorted(found):
            self._rejects.add(str(path), block.first_line + index, reason, kind)
        if len(self._sample) < SAMPLE_LINES:
            self._sample += [block.text(index) for index in np.flatnonzero(block.usable)[:SAMPLE_LINES].tolist()]

    def _read_article(self, path: Path) -> None:
        try:
            content = b"".join(read_bytes(path, self._progress))
        except CutShort as error:
            raise LogError(f"{path}: {error}, expected the whole of the feature JSON; fetch the file anew.") from error
        tables = []
        for task in read_tasks(path, content, arrival=self._arrival + 1):
            self._read += task.read
            self._arrival += task.read
            for place, reason in task.rejected:
                self._rejects.add(str(path), place, reason, BAD_TASK)
            tables.append(task.columns)
        self._spool.insert_given(tables)

    def _locate(self, arrival: int) -> tuple[str, int]:
        before, name = self._files[bisect.bisect_left(self._files, (arrival, "")) - 1]
        return name, arrival - before

    def _nothing_found(self, rejects: int, skipped: int) -> LogError:
        names = ", ".join(name for _, name in self._files[:3]) + (", …" if len(self._files) > 3 else "")
        kinds = self._rejects.kinds
        unmapped = [kind for kind in (KINDS[codes.NO_CLIENT], KINDS[codes.NO_TIME]) if kinds[kind]]
        if unmapped:
            return MappingError(f"{names}: no line has a {' and a '.join(unmapped)}; {suggest(self._sample)}.")
        if rejects:
            first = self._rejects.kept[0]
            return LogError(f"{names}: all {rejects} lines were rejected, the first: {first}.")
        if skipped:
            return LogError(f"{names}: none of the {skipped} events is a query; check event_type in the mapping.")
        return LogError(f"{names}: holds no lines, expected a log of queries; give another file.")


def read_head(path: Path) -> bytes:
    """The first bytes of a file's content."""
    head = b""
    try:
        for piece in read_bytes(path, lambda size: None):
            head += piece
            if len(head) >= HEAD_BYTES:
                break
    except CutShort:
        pass
    return head


def in_order(work: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    """The results of ``work`` on each item, in order, made in a thread for each processor core."""
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
