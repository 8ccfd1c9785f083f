"""The spool: all queries of a log in a DuckDB table that is checked, sorted and, if need be, kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from probewatch.data.fields import FieldMap
from probewatch.data.shuffle import Shuffle

EVENT, SKIPPED, DUPLICATE = 0, 1, 2
NO_CLIENT, BAD_CLIENT, NO_TIME, BAD_TIME, BAD_CONFIDENCE, BAD_INPUTS, BAD_LABEL, BAD_LENGTH = range(3, 11)

COLUMNS = """arrival BIGINT, problem UTINYINT, client VARCHAR, session VARCHAR, model VARCHAR,
    time_s DOUBLE, confidence DOUBLE, predicted BIGINT, inputs DOUBLE[], width INTEGER,
    request VARCHAR, label TINYINT, digest UBIGINT"""


class Order(NamedTuple):
    """How queries are sorted, and which columns of them are wanted then."""

    keys: str
    columns: tuple[str, ...]


ASKED = ("client", "model", "session", "time_s", "confidence", "predicted", "inputs")
BY_SESSION = Order("client, model, session, time_s, arrival", (*ASKED, "label", "arrival", "digest"))
IN_TIME = Order("time_s, arrival", (*ASKED, "request", "digest"))
SHUFFLED_ROWS = 8192
WIDE = 128  # inputs a query, from where DuckDB's sort may give up for want of memory

# our field to its column in what the spool checks
TEXTS = {
    "event_type": "event_type",
    "client": "client",
    "session": "session",
    "model": "model",
    "time": "time",
    "confidence": "confidence",
    "predicted_class": "predicted",
    "label": "label",
    "request": "request",
    "digest": "digest",
}

# A number's unit shows in its size: seconds below 1e11 (the year 5138), then milli-, micro- and nanoseconds.
# The offset of a text is honoured by TIMESTAMPTZ only; TIMESTAMP drops it silently. Every expression stands
# here once: DuckDB computes repeated ones ahead for all rows, though coalesce would need them for a few.
TYPED = """SELECT *,
    coalesce(
        epoch_us(TRY_CAST("time" AS TIMESTAMPTZ)) / 1e6,
        list_transform(
            [TRY_CAST("time" AS DOUBLE)],
            lambda number: number / pow(1e3, least(floor(log10(greatest(abs(number), 1e8) * 10) / 3 - 3), 3))
        )[1]
    ) AS time_s,
    TRY_CAST(confidence AS DOUBLE) AS probability,
    TRY_CAST(predicted AS DOUBLE) AS class_number,
    nullif(len(inputs), 0) AS width,
    CASE lower(label) WHEN '1' THEN 1 WHEN 'true' THEN 1 WHEN '0' THEN 0 WHEN 'false' THEN 0 END AS mark
FROM ({raw})"""

# 253402300800 is the first second of the year 10000; NaN is greater than every number here.
JUDGED = """SELECT *, CASE
    WHEN event_type <> {query_event} THEN {SKIPPED}
    WHEN client IS NULL AND session IS NULL THEN {NO_CLIENT}
    WHEN no_name THEN {BAD_CLIENT}
    WHEN "time" IS NULL THEN {NO_TIME}
    WHEN time_s IS NULL OR NOT time_s BETWEEN 0 AND 253402300800 THEN {BAD_TIME}
    WHEN confidence IS NOT NULL AND (probability IS NULL OR NOT probability BETWEEN 0 AND 1) THEN {BAD_CONFIDENCE}
    WHEN {bare_is_wrong} AND width IS NULL THEN {BAD_INPUTS}
    WHEN no_list OR list_position(inputs, NULL) IS NOT NULL THEN {BAD_INPUTS}
    WHEN CASE WHEN isfinite(list_sum(inputs)) THEN false
        ELSE len(list_filter(inputs, lambda value: NOT isfinite(value))) > 0 END THEN {BAD_INPUTS}
    WHEN label IS NOT NULL AND mark IS NULL THEN {BAD_LABEL}
    ELSE {EVENT} END AS problem
FROM ({typed})"""

# md5 gives a text the same class code on every machine and in every version.
INSERT = """INSERT INTO spool SELECT {base} + line, problem,
    coalesce(client, session), coalesce(session, ''), coalesce(model, ''), time_s, probability,
    CASE WHEN class_number BETWEEN 0 AND {EXACT} AND class_number = floor(class_number)
        THEN CAST(class_number AS BIGINT) WHEN predicted IS NULL THEN -1
        ELSE CAST(md5_number_lower(predicted) >> 2 AS BIGINT) END,
    inputs, width, nullif(request, ''), mark, md5_number_lower(nullif(digest, ''))
FROM ({judged})"""

WORDS = 1 << 20  # numbers that words of an input vector stand for
EXACT = 1 << 53  # whole numbers up to here are whole in a DOUBLE

CODES = {name: value for name, value in globals().items() if isinstance(value, int)}


def insert_statement(raw: str, fields: FieldMap, *, base: int) -> str:
    """SQL that checks the rows of the query ``raw`` and puts them into the spool.

    ``raw`` has the columns line (BIGINT), event_type, client, session, model, time, confidence, predicted, label,
    request, digest (VARCHAR), inputs (DOUBLE[]), no_list (BOOLEAN: something else stands where they should) and no_name
    (BOOLEAN: a list or an object stands where client or session should).
    Rows without inputs are rejected if the lines are records.
    """
    typed = TYPED.format(raw=raw)
    judged = JUDGED.format(
        typed=typed, query_event=quote_text(fields.query_event), bare_is_wrong=fields.records, **CODES
    )
    return INSERT.format(judged=judged, base=base, **CODES)


def quote_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def absent(stand_in: str | None) -> str:
    """SQL of a field that is not mapped."""
    return "CAST(NULL AS VARCHAR)" if stand_in is None else quote_text(stand_in)


def quote_name(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def number_of(value: str, *, words: bool) -> str:
    """SQL of the number that the text ``value`` stands for, null if none; with ``words`` every text, and a missing one.

    A word has the same number in every log: 20 bits of its MD5.
    """
    number = f"TRY_CAST({value} AS DOUBLE)"
    flag = f"CASE lower({value}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"
    if not words:
        return f"coalesce({number}, {flag})"
    word = f"CAST(md5_number_lower(coalesce({value}, '')) & {WORDS - 1} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} ELSE coalesce({flag}, {word}) END"


def vector_of(values: Sequence[str], numbers: Sequence[str], *, words: bool) -> str:
    """SQL for the input vector whose elements are ``numbers``, made of ``values``: up to the last that is not null.

    A log of several models has a column for each input of the widest, and the others' are empty. With ``words`` what is
    empty is a category, so that a vector has all.
    """
    present = " OR ".join(f"{value} IS NOT NULL" for value in values)
    if words:
        return f"CASE WHEN {present} THEN [{', '.join(numbers)}] END"
    ends = ", ".join(f"CASE WHEN {value} IS NOT NULL THEN {at} END" for at, value in enumerate(values, 1))
    return f"CASE WHEN {present} THEN list_slice([{', '.join(numbers)}], 1, greatest({ends})) END"


class Spool:
    """A temporary table of queries; holds a database and a folder on disk until it is closed.

    While it is filled, DuckDB runs each statement in the calling thread, so that several threads, each
    with a cursor of its own, share the processor without waiting for each other.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="probewatch-")
        self.folder = Path(self._folder.name)
        self.connection = duckdb.connect(
            config={"memory_limit": f"{memory_bytes >> 20}MB", "temp_directory": self._folder.name}
        )
        self._threads = self.rows("SELECT current_setting('threads')")[0][0]
        # an automatic checkpoint would compress the table again and again while it is filled
        self.rows("SET TimeZone = 'UTC'; SET threads = 1; SET checkpoint_threshold = '1TB'")
        self.rows("SET enable_external_file_cache = false")  # scratch files are written over
        self.rows(f"CREATE TABLE spool ({COLUMNS})")
        self.given: list[str] = []
        self._memory_bytes = memory_bytes
        self._shuffled: dict[Order, Shuffle] = {}

    def close(self) -> None:
        """Free the memory and the disk."""
        self.connection.close()
        self._folder.cleanup()

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows that a query gives."""
        return self.connection.execute(query, list(parameters)).fetchall()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of its own for a thread; what it did not commit is undone."""
        cursor = self.connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def insert(self, statement: str, source: pa.Table) -> None:
        """Run an insert from the Arrow table that it calls ``source``."""
        with self.cursor() as cursor:
            cursor.register("source", source)
            cursor.execute(statement).fetchall()

    def filled(self) -> None:
        """Use all of the processor from now on."""
        self.rows(f"SET threads = {self._threads}; SET preserve_insertion_order = false")

    def insert_given(self, tables: Sequence[pa.Table]) -> None:
        """Keep queries whose columns are ready made; feature columns are named ``given_NAME``."""
        kept = [table for table in tables if table.num_rows]
        if not kept:
            return
        table = pa.concat_tables(kept)
        for name in table.column_names:
            if name.startswith("given_") and name[6:] not in self.given:
                self.connection.execute(f"ALTER TABLE spool ADD COLUMN {quote_name(name)} DOUBLE")
                self.given.append(name[6:])
        self.insert("INSERT INTO spool BY NAME SELECT * FROM source", table)

    def counts(self) -> dict[int, int]:
        """Problem to number of rows."""
        return dict(self.rows("SELECT problem, count(*) FROM spool GROUP BY problem"))

    def fields_with_values(self) -> set[str]:
        """Names of our fields that have a value in some query; client and session if they ever differ."""
        client, model, confidence, predicted, inputs, request, label, digest = self.rows(
            "SELECT count(nullif(client, session)), count(nullif(model, '')), count(confidence),"
            " count(nullif(predicted, -1)), count(width), count(request), count(label), count(digest)"
            f" FROM spool WHERE problem = {EVENT}"
        )[0]
        counts = {"client": client, "session": client, "model": model, "confidence": confidence}
        counts |= {"predicted_class": predicted, "inputs": inputs, "request": request, "label": label, "digest": digest}
        return {"time"} | {name for name, count in counts.items() if count}

    def reject_unusual_lengths(self) -> list[tuple[int, str, int, int]]:
        """Reject input vectors that have not the model's usual length: the most frequent, the longer of two equals.

        Returns:
            arrival, model, length and usual length of each.
        """
        lengths = self.rows(
            f"SELECT model, width, count(*) FROM spool WHERE problem = {EVENT} AND width IS NOT NULL"
            " GROUP BY ALL ORDER BY count(*), width"
        )
        usual = {model: width for model, width, _ in lengths}
        if len(usual) == len(lengths):
            return []
        expected = pa.table({"model": list(usual), "usual": pa.array(list(usual.values()), pa.int32())})
        self.connection.register("usual", expected)
        unusual = self.rows(
            "SELECT arrival, model, width, usual FROM spool JOIN usual USING (model)"
            f" WHERE problem = {EVENT} AND width <> usual ORDER BY arrival"
        )
        self.connection.register("unusual", pa.table({"arrival": [row[0] for row in unusual]}))
        self.rows(f"UPDATE spool SET problem = {BAD_LENGTH} WHERE arrival IN (SELECT arrival FROM unusual)")
        self.connection.unregister("usual")
        self.connection.unregister("unusual")
        return unusual

    def mark_duplicates(self) -> None:
        """Keep the first of the queries with the same client and request id."""
        self.connection.execute(
            f"UPDATE spool SET problem = {DUPLICATE} WHERE arrival IN (SELECT arrival FROM spool"
            f" WHERE problem = {EVENT} AND request IS NOT NULL"
            " QUALIFY row_number() OVER (PARTITION BY client, request ORDER BY arrival) > 1)"
        )

    def repeats(self, files: Sequence[tuple[int, str]]) -> list[tuple[str, str]]:
        """Pairs of files that hold the same queries.

        Args:
            files: arrival before the first line of each, and its name.
        """
        if len(files) < 2:
            return []
        table = pa.table({"before": pa.array([at for at, _ in files], pa.int64()), "file": range(len(files))})
        self.connection.register("files", table)
        sums = self.rows(
            "SELECT list(file ORDER BY file) FROM (SELECT file, count(*) AS queries,"
            " sum(hash(client, session, model, time_s, confidence, width)) AS content"
            f" FROM spool ASOF JOIN files ON arrival > before WHERE problem = {EVENT} GROUP BY file)"
            " GROUP BY queries, content HAVING count(*) > 1"
        )
        self.connection.unregister("files")
        return [(files[first][1], files[other][1]) for ((first, *others),) in sorted(sums) for other in others]

    def batches(self, rows: int, order: Order) -> Iterator[pa.RecordBatch]:
        """The queries, ``rows`` at a time."""
        columns = [*order.columns, *(f"given_{name}" for name in self.given)]
        wanted = ", ".join(quote_name(name) for name in columns)
        count, inputs = self.rows(f"SELECT count(*), coalesce(sum(width), 0) FROM spool WHERE problem = {EVENT}")[0]
        wide = inputs > WIDE * count and 8 * inputs > self._memory_bytes // 4
        done = 0
        if not wide:
            query = f"SELECT {wanted} FROM spool WHERE problem = {EVENT} ORDER BY {order.keys}"
            try:
                with self.cursor() as cursor:
                    for batch in cursor.sql(query).to_arrow_reader(rows):
                        yield batch
                        done += len(batch)
            except duckdb.OutOfMemoryException:
                wide = True
        if wide:
            size = max(count * self._memory_bytes // max(64 * inputs, 1), 1)  # an eighth of the memory each
            for batch in self._shuffle(wanted, size, order).batches(rows, columns):
                if done < len(batch):
                    yield batch.slice(done)
                done = max(done - len(batch), 0)

    def _shuffle(self, wanted: str, rows_a_file: int, order: Order) -> Shuffle:
        if order not in self._shuffled:
            self.rows(
                f"CREATE TABLE ranked AS SELECT arrival, row_number() OVER (ORDER BY {order.keys}) - 1 AS rank"
                f" FROM spool WHERE problem = {EVENT}"
            )
            query = f"SELECT {wanted}, rank FROM spool JOIN ranked USING (arrival)"
            with self.cursor() as cursor:
                reader = cursor.sql(query).to_arrow_reader(min(rows_a_file, SHUFFLED_ROWS))
                folder = self.folder / f"sorted-{len(self._shuffled)}"
                self._shuffled[order] = Shuffle(iter(reader), folder, rows_a_file=rows_a_file)
            self.rows("DROP TABLE ranked")
        return self._shuffled[order]


def find_rejects(cursor: duckdb.DuckDBPyConnection, first: int, last: int) -> list[tuple[int, int]]:
    """Arrival and problem of the rejects and of the queries without inputs, of arrivals ``first`` to ``last``."""
    found = cursor.execute(
        "SELECT arrival, problem FROM spool WHERE arrival BETWEEN ? AND ?"
        f" AND (problem > {DUPLICATE} OR (problem = {EVENT} AND width IS NULL)) ORDER BY arrival",
        [first, last],
    ).fetchall()
    return [(int(arrival), int(problem)) for arrival, problem in found]
