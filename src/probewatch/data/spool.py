"""The spool: all queries of a log in a DuckDB table that is checked, sorted and, if need be, kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

EVENT, SKIPPED, DUPLICATE = 0, 1, 2
BROKEN, NOT_OBJECT, NO_CLIENT, BAD_CLIENT, NO_TIME, BAD_TIME, BAD_CONFIDENCE, BAD_INPUTS, BAD_LABEL, BAD_LENGTH = range(3, 13)

LAST_SECOND = 253402300800  # the year 10000

COLUMNS = """arrival BIGINT, problem UTINYINT, found VARCHAR, client VARCHAR, session VARCHAR, model VARCHAR,
    time_s DOUBLE, confidence DOUBLE, predicted BIGINT, inputs DOUBLE[], width INTEGER, request VARCHAR, label TINYINT"""

# A number's unit shows in its size: seconds up to the year 5138, then milli-, micro- and nanoseconds.
# The offset of a text is honoured by TIMESTAMPTZ only; TIMESTAMP drops it silently.
TYPED = """SELECT *,
    coalesce(
        epoch_us(TRY_CAST(nullif("time", 'epoch') AS TIMESTAMPTZ)) / 1e6,
        CASE WHEN TRY_CAST("time" AS DOUBLE) < 1e11 THEN TRY_CAST("time" AS DOUBLE)
             WHEN TRY_CAST("time" AS DOUBLE) < 1e14 THEN TRY_CAST("time" AS DOUBLE) / 1e3
             WHEN TRY_CAST("time" AS DOUBLE) < 1e17 THEN TRY_CAST("time" AS DOUBLE) / 1e6
             ELSE TRY_CAST("time" AS DOUBLE) / 1e9 END) AS time_s,
    TRY_CAST(confidence AS DOUBLE) AS probability,
    TRY_CAST(predicted AS BIGINT) AS class_number,
    CASE lower(label) WHEN '1' THEN 1 WHEN 'true' THEN 1 WHEN '0' THEN 0 WHEN 'false' THEN 0 END AS mark
FROM ({raw})"""

JUDGED = """SELECT *, CASE
    WHEN broken THEN {BROKEN}
    WHEN no_object THEN {NOT_OBJECT}
    WHEN event_type <> {query_event} THEN {SKIPPED}
    WHEN coalesce(client, session) IS NULL THEN {NO_CLIENT}
    WHEN client[1] IN ('{{', '[') OR session[1] IN ('{{', '[') THEN {BAD_CLIENT}
    WHEN "time" IS NULL THEN {NO_TIME}
    WHEN time_s IS NULL OR NOT time_s BETWEEN 0 AND {LAST_SECOND} THEN {BAD_TIME}
    WHEN confidence IS NOT NULL AND (probability IS NULL OR NOT probability BETWEEN 0 AND 1) THEN {BAD_CONFIDENCE}
    WHEN inputs_type IS NOT NULL OR list_count(inputs) <> len(inputs) OR NOT isfinite(list_sum(inputs)) THEN {BAD_INPUTS}
    WHEN label IS NOT NULL AND mark IS NULL THEN {BAD_LABEL}
    ELSE {EVENT} END AS problem
FROM ({typed})"""

# md5 gives a text the same class code on every machine and in every version.
INSERT = """INSERT INTO spool BY NAME SELECT {base} + line AS arrival, problem,
    left(CASE problem WHEN {BAD_CLIENT} THEN coalesce(client, session) WHEN {BAD_TIME} THEN "time"
        WHEN {BAD_CONFIDENCE} THEN confidence WHEN {BAD_LABEL} THEN label
        WHEN {BAD_INPUTS} THEN coalesce(inputs_type, CAST(inputs AS VARCHAR)) END, 200) AS found,
    coalesce(client, session) AS client, coalesce(session, '') AS session, coalesce(model, '') AS model,
    time_s, probability AS confidence,
    CASE WHEN class_number >= 0 THEN class_number WHEN predicted IS NULL THEN -1
        ELSE CAST(md5_number_lower(predicted) >> 2 AS BIGINT) END AS predicted,
    CASE WHEN problem = {EVENT} THEN inputs END AS inputs,
    CASE WHEN problem = {EVENT} THEN CAST(len(inputs) AS INTEGER) END AS width, request, mark AS label
FROM ({judged})"""

CODES = {name: value for name, value in globals().items() if isinstance(value, int)}


def insert_statement(raw: str, *, base: int, query_event: str) -> str:
    """SQL that checks the rows of the query ``raw`` and puts them into the spool.

    ``raw`` has the columns line (BIGINT), broken, no_object (BOOLEAN), event_type, client, session, model, time,
    confidence, predicted, label, request (VARCHAR), inputs (DOUBLE[]) and inputs_type (VARCHAR: what
    stands where the inputs should be and is no list, else null).
    """
    typed = TYPED.format(raw=raw)
    judged = JUDGED.format(typed=typed, query_event=quote_text(query_event), **CODES)
    return INSERT.format(judged=judged, base=base, **CODES)


def quote_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Spool:
    """A temporary table of queries; holds a database and a folder on disk until it is closed."""

    def __init__(self, memory_bytes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="probewatch-")
        self.connection = duckdb.connect(
            config={"memory_limit": f"{memory_bytes >> 20}MB", "temp_directory": self._folder.name}
        )
        self.connection.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
        self.connection.execute(f"CREATE TABLE spool ({COLUMNS})")
        self.given: list[str] = []

    def close(self) -> None:
        """Free the memory and the disk."""
        self.connection.close()
        self._folder.cleanup()

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows that a query gives."""
        return self.connection.execute(query, list(parameters)).fetchall()

    def insert(self, source: pa.Table, raw: str, *, base: int, query_event: str) -> None:
        """Check the rows of ``raw``, a query over the Arrow table ``source``, and keep them."""
        self.connection.register("source", source)
        try:
            self.connection.execute(insert_statement(raw, base=base, query_event=query_event))
        finally:
            self.connection.unregister("source")

    def insert_given(self, tables: Sequence[pa.Table]) -> None:
        """Keep queries whose columns are ready made; feature columns are named ``given_NAME``."""
        table = pa.concat_tables([table for table in tables if table.num_rows])
        for name in table.column_names:
            if name.startswith("given_") and name[6:] not in self.given:
                self.connection.execute(f"ALTER TABLE spool ADD COLUMN {quote_name(name)} DOUBLE")
                self.given.append(name[6:])
        self.connection.register("source", table)
        self.connection.execute("INSERT INTO spool BY NAME SELECT * FROM source")
        self.connection.unregister("source")

    def count_problems(self) -> dict[int, int]:
        """Problem code to number of rows."""
        return dict(self.rows("SELECT problem, count(*) FROM spool GROUP BY problem"))

    def problems_from(self, arrival: int) -> list[tuple[int, int, str | None]]:
        """Arrival, problem and what was found, of the rejects that arrived at or after ``arrival``."""
        query = "SELECT arrival, problem, found FROM spool WHERE arrival >= ? AND problem > ? ORDER BY arrival"
        return [(int(a), int(p), f) for a, p, f in self.rows(query, arrival, DUPLICATE)]

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
        names, widths = list(usual), list(usual.values())
        self.connection.register("usual", pa.table({"model": names, "usual": pa.array(widths, pa.int32())}))
        unusual = self.rows(
            "SELECT arrival, model, width, usual FROM spool JOIN usual USING (model)"
            f" WHERE problem = {EVENT} AND width <> usual ORDER BY arrival"
        )
        self.connection.execute(
            f"UPDATE spool SET problem = {BAD_LENGTH} FROM usual"
            f" WHERE spool.model = usual.model AND problem = {EVENT} AND width <> usual"
        )
        self.connection.unregister("usual")
        return unusual

    def mark_duplicates(self) -> None:
        """Keep the first of the queries with the same client and request id."""
        self.connection.execute(
            f"UPDATE spool SET problem = {DUPLICATE} WHERE arrival IN (SELECT arrival FROM spool"
            f" WHERE problem = {EVENT} AND request IS NOT NULL"
            " QUALIFY row_number() OVER (PARTITION BY client, request ORDER BY arrival) > 1)"
        )

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The queries, ordered by client, model, session, time and arrival."""
        given = "".join(f", {quote_name('given_' + name)}" for name in self.given)
        cursor = self.connection.cursor()
        reader = cursor.sql(
            f"SELECT client, model, session, time_s, confidence, predicted, inputs, label{given} FROM spool"
            f" WHERE problem = {EVENT} ORDER BY client, model, session, time_s, arrival"
        ).to_arrow_reader(rows)
        yield from reader
        cursor.close()
