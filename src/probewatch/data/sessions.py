"""Queries in order to sessions: the one session key, and columns cut into chunks of whole sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from probewatch.data.records import Sessions, offsets_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
KEY = ("client", "model", "session")


@dataclass(frozen=True)
class _Open:
    """Where the rows before this piece ended: its last row, its session's id and queries so far."""

    last: pa.Table
    session: str
    events: int


def iter_sessions(
    batches: Iterable[pa.RecordBatch], *, gap_s: float, chunk_events: int, given: Sequence[str] = ()
) -> Iterator[Sessions]:
    """Chunks of at most ``chunk_events`` queries, each of whole sessions but for one that is longer than that.

    Args:
        batches: queries ordered by client, model, session, time; session "" where the log names none.
        gap_s: there, a pause of more than this many seconds starts a new session.
        chunk_events: at least 1.
        given: names of ready-made feature columns (``given_NAME`` in the batches).
    """
    buffer: list[pa.Table] = []
    rows = 0
    opened: _Open | None = None
    for batch in batches:
        buffer.append(pa.Table.from_batches([batch]))
        rows += len(batch)
        while rows > chunk_events:
            table = pa.concat_tables(buffer).combine_chunks()
            starts = _find_starts(table.slice(0, chunk_events + 1), opened, gap_s)
            cuts = np.flatnonzero(starts[1:]) + 1
            cut = int(cuts[-1]) if len(cuts) else chunk_events
            chunk, opened = _to_sessions(table.slice(0, cut), starts[:cut], opened, bool(starts[cut]), given)
            yield chunk
            buffer, rows = [table.slice(cut)], rows - cut
    if rows:
        table = pa.concat_tables(buffer).combine_chunks()
        yield _to_sessions(table, _find_starts(table, opened, gap_s), opened, True, given)[0]


def _find_starts(table: pa.Table, opened: _Open | None, gap_s: float) -> NDArray[np.bool_]:
    """(N,) True at the rows that begin a session."""
    before = pa.concat_tables([opened.last, table]).combine_chunks() if opened else table
    changed = np.zeros(max(len(before) - 1, 0), bool)
    for name in KEY:
        column = before.column(name).combine_chunks()
        changed |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    unnamed = pc.equal(before.column("session"), "").to_numpy()[1:].astype(bool)
    pause = np.diff(before.column("time_s").to_numpy())
    changed |= unnamed & (pause > gap_s)
    return changed if opened else np.concatenate([np.ones(1, bool), changed])


def _to_sessions(
    table: pa.Table, starts: NDArray[np.bool_], opened: _Open | None, ends: bool, given: Sequence[str]
) -> tuple[Sessions, _Open]:
    first = np.flatnonzero(starts)
    goes_on = not starts[0]
    if goes_on:
        first = np.concatenate([np.zeros(1, np.int64), first])
    heads = table.take(pa.array(first))
    clients, models = _text(heads, "client"), _text(heads, "model")
    names = _text(heads, "session")
    for index in np.flatnonzero(names == ""):
        time = heads.column("time_s")[int(index)].as_py()
        names[index] = f"{clients[index]}/{models[index]}/{to_iso(time)}"
    before = np.zeros(len(first), np.int64)
    if goes_on and opened:
        names[0], before[0] = opened.session, opened.events
    offsets = np.append(first, len(table)).astype(np.int64)
    closed = np.ones(len(first), bool)
    closed[-1] = ends
    label = np.maximum.reduceat(_numbers(table, "label", -1).astype(np.int8), first)
    inputs = table.column("inputs").combine_chunks()
    widths = pc.fill_null(pc.list_value_length(inputs), 0).to_numpy()
    digest = _numbers(table, "digest", 0).astype(np.uint64)
    chunk = Sessions(
        session=names,
        client=clients,
        model=models,
        offsets=offsets,
        time_s=_numbers(table, "time_s", np.nan),
        confidence=_numbers(table, "confidence", np.nan),
        predicted_class=_numbers(table, "predicted", -1).astype(np.int64),
        inputs=np.asarray(pc.list_flatten(inputs).to_numpy(zero_copy_only=False), np.float64),
        input_offsets=offsets_of(widths),
        label=label,
        arrival=np.minimum.reduceat(_numbers(table, "arrival", 0), first),
        before=before,
        ends=closed,
        digest=digest if digest.any() else digest[:0],
        given={name: _numbers(table, f"given_{name}", np.nan) for name in given},
    )
    return chunk, _Open(table.slice(len(table) - 1), names[-1], int(before[-1] + offsets[-1] - offsets[-2]))


def _text(table: pa.Table, name: str) -> NDArray[np.object_]:
    return np.array(table.column(name).to_pylist(), object)


def _numbers(table: pa.Table, name: str, missing: float) -> NDArray[Any]:
    column = table.column(name)
    whole = pc.fill_null(column, pa.scalar(missing, column.type)) if column.null_count else column
    numbers: NDArray[Any] = whole.to_numpy()
    return numbers


def to_iso(time_s: float) -> str:
    """ISO 8601 in UTC, to the microsecond; the last of the year 9999 for what lies behind it.

    >>> to_iso(1772324062.325063), to_iso(1e13)
    ('2026-03-01T00:14:22.325063+00:00', '9999-12-31T23:59:59.999999+00:00')
    """
    return (EPOCH + timedelta(microseconds=min(round(time_s * 1e6), LAST_US))).isoformat()
