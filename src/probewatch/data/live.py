"""A log while it is written: whole lines as they come, and the events in them."""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probewatch.data import spool as codes
from probewatch.data.events import Events
from probewatch.data.fields import RAW, FieldMap, fields_of, suggest_fields
from probewatch.data.formats import foreign
from probewatch.data.ingest import UNMAPPED, first_texts
from probewatch.data.jsonl import LineReader
from probewatch.data.lines import LINE_LIMIT_BYTES, TOO_LONG, make_block
from probewatch.data.rejects import (
    KINDS,
    NOT_JSON,
    UNREADABLE,
    Counts,
    Reject,
    explain_length,
    explain_line,
    explain_longest,
    explain_need,
)
from probewatch.data.spelling import Spelling
from probewatch.data.spool import EVENT, Spool
from probewatch.errors import LogError, MappingError

MEMORY_BYTES = 256 << 20
PIECE_BYTES = 1 << 22  # read at a time
UNMAPPED_LINES = 20  # so many at the start without client or time are no log of this mapping
COLUMNS = "client, model, session, coalesce(request, '') AS request, time_s, confidence, predicted, digest, inputs"


@dataclass(frozen=True)
class Lines:
    """Consecutive whole lines: their bytes, and how many; none when there was nothing for a while."""

    content: bytes
    count: int
    dropped: int = 0  # among them, lines over the limit, whose bytes are left out


def follow_lines(descriptor: int, tick_s: float) -> Iterator[Lines]:
    """Whole lines of an open file as they come, and empty ones each ``tick_s`` in which none do; until its end.

    The last line of all may lack its newline. A line over the limit is dropped and counted.
    """
    carry, dropping = b"", False
    while True:
        if not select.select([descriptor], [], [], tick_s)[0]:
            yield Lines(b"", 0)
            continue
        piece = os.read(descriptor, PIECE_BYTES)
        if not piece:
            break
        cut = piece.rfind(b"\n") + 1
        whole, rest = carry + piece[:cut] if cut else b"", piece[cut:] if cut else carry + piece
        dropped = 0
        if dropping and cut:
            whole, dropped, dropping = whole[whole.index(b"\n") + 1 :], 1, False
        if len(rest) > LINE_LIMIT_BYTES:
            rest, dropping = b"", True
        carry = b"" if dropping else rest
        if whole or dropped:
            yield Lines(whole, whole.count(b"\n") + dropped, dropped)
    if carry or dropping:
        yield Lines(carry, 1, int(dropping))


class LiveReader:
    """Reads whole lines of JSON into events; counts what becomes of them; holds a database until it is closed.

    Args:
        fields: where the log keeps its fields; without it lines are read as the article's raw events.
        widths: length of an input vector of each known model; others are rejected.
        told: called with each reject.
        source: name of the log in rejects.
        needs: ``confidence`` and ``inputs``, where the detector cannot do without; queries that lack them are rejected.
        longest: input vector that the detector can take, 0 for any; longer ones are rejected.
    """

    def __init__(
        self,
        fields: FieldMap | None,
        widths: Mapping[str, int],
        told: Callable[[Reject], None],
        *,
        source: str = "-",
        needs: Collection[str] = (),
        longest: int = 0,
    ) -> None:
        self._spool = Spool(MEMORY_BYTES)
        self._fields = fields or RAW
        self._widths = widths
        self._told = told
        self._source = source
        self._needs, self._longest = needs, longest
        self._spelling = Spelling(self._fields)
        self._line = 0
        self.found: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def close(self) -> None:
        """Free the database."""
        self._spool.close()

    @property
    def counts(self) -> Counts:
        """What became of the lines so far; duplicates are found by who takes the events."""
        return Counts(self.found["read"], self.found["events"], 0, self.found["skipped"], self.kinds.total())

    def skip(self, lines: int) -> None:
        """Count lines that were read in an earlier run."""
        self._line += lines

    def read(self, lines: Lines) -> Events:
        """The events in some lines, in their order.

        Raises:
            LogError: the first lines are packed, or none is JSON.
            MappingError: they have no client or no time at all.
        """
        for _ in range(lines.dropped):
            self.found["read"] += 1
            self._line += 1
            self._reject(self._line, UNREADABLE, TOO_LONG)
        if not lines.content:
            return Events.of([], [])
        if not self._line and (packed := foreign(lines.content)):
            raise LogError(f"{self._source}: is {packed}, expected JSON lines; unpack or convert it before.")
        block = make_block(memoryview(lines.content), self._line + 1)
        self._line += len(block)
        self.found["read"] += len(block) - int(block.blank.sum())
        reader = LineReader(self._spool, self._spelling.of(block))
        found = [(index, UNREADABLE, reason) for index, reason in block.rejected]
        problems = reader.read(block, base=0)
        found += [(index, *explain_line(problem, block.text(index), reader.fields)) for index, problem in problems]
        with self._spool.cursor() as cursor:
            table = cursor.sql(
                f"SELECT {COLUMNS}, arrival FROM spool WHERE problem = {EVENT} ORDER BY arrival"
            ).to_arrow_table()
        self.found["skipped"] += self._spool.counts().get(codes.SKIPPED, 0)
        self._spool.rows(f"CREATE OR REPLACE TABLE spool ({codes.COLUMNS})")
        events, rows = Events.from_table(table), table.column("arrival").to_numpy() - block.first_line
        usual, widths = self._usual_lengths(events), np.diff(events.input_offsets)
        checks: list[tuple[int, NDArray[np.bool_], Callable[[int], str]]] = [
            (
                codes.BAD_LENGTH, (widths > 0) & (usual > 0) & (widths != usual),
                lambda at: explain_length(str(events.model[at]), int(widths[at]), int(usual[at])),
            ),
            (
                codes.BAD_LENGTH, (widths > self._longest) & (self._longest > 0),
                lambda at: explain_longest(int(widths[at]), self._longest),
            ),
            (
                codes.BAD_CONFIDENCE, np.isnan(events.confidence) & ("confidence" in self._needs),
                lambda at: explain_need("confidence"),
            ),
            (codes.BAD_INPUTS, (widths == 0) & ("inputs" in self._needs), lambda at: explain_need("inputs")),
        ]  # fmt: skip
        fits = np.ones(len(events), bool)
        for problem, wrong, explained in checks:
            found += [(int(rows[at]), KINDS[problem], explained(at)) for at in np.flatnonzero(wrong & fits).tolist()]
            fits &= ~wrong
        for index, kind, reason in sorted(found):
            self._reject(block.first_line + index, kind, reason)
        self.found["events"] += int(fits.sum())
        useless = not self.found["events"] and self.kinds.total() >= UNMAPPED_LINES
        if useless and set(self.kinds) <= {NOT_JSON, UNREADABLE}:
            raise LogError(f"{self._source}: no line is JSON, expected JSON lines; `probewatch score` reads CSV too.")
        if useless and set(self.kinds) <= UNMAPPED:
            what = " and ".join(sorted(self.kinds))
            raise MappingError(
                f"{self._source}: the lines have {what}; {suggest_fields(fields_of(first_texts(block)))}."
            )
        return events if fits.all() else events.take(np.flatnonzero(fits))

    def _reject(self, line: int, kind: str, reason: str) -> None:
        self.kinds[kind] += 1
        self._told(Reject(self._source, line, reason))

    def _usual_lengths(self, events: Events) -> NDArray[np.int64]:
        """(N,) the length of an input vector of each query's model, 0 where not known."""
        models = events.model.dictionary_encode()
        usual = [self._widths.get(name, 0) for name in models.dictionary.to_pylist()]
        found: NDArray[np.int64] = np.array([*usual, 0], np.int64)[np.asarray(models.indices)]
        return found
