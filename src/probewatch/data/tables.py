"""CSV and Parquet: batches of rows to checked rows of the spool."""

from __future__ import annotations

import csv
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probewatch.data.fields import DELIMITERS, FieldMap, split_path
from probewatch.data.lines import LINE_LIMIT_BYTES, Block
from probewatch.data.rejects import KINDS, explain
from probewatch.data.spelling import is_hash
from probewatch.data.spool import (
    EVENT,
    TEXTS,
    Spool,
    absent,
    find_rejects,
    insert_statement,
    number_of,
    quote_name,
    quote_text,
    vector_of,
)  # fmt: skip
from probewatch.data.wording import counted, listed
from probewatch.errors import LogError, MappingError

ROWS_A_BATCH = 65_536
NOT_A_ROW = "not a row of the table"
HASHED_OF = 20  # first values that tell whether a hash stands for the inputs
csv.field_size_limit(LINE_LIMIT_BYTES)


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        line: (R,) int64, their line in the CSV, or their number in the Parquet file, from 1.
        table: (R rows) their columns.
        rejected: line and reason of what is no row.
    """

    line: NDArray[np.int64]
    table: pa.Table
    rejected: list[tuple[int, str]]


class TableReader:
    """Reads rows with the columns of ``schema`` into a spool; may be called from several threads at once."""

    def __init__(self, spool: Spool, fields: FieldMap, table: pa.Table) -> None:
        fields = fields.hashed() if _is_hashed(fields, table) else fields
        self._spool = spool
        self._fields = fields
        self._raw = _raw_query(fields, table.schema)

    def read(self, rows: Rows, *, base: int) -> list[tuple[int, str, str]]:
        """Check and keep rows; line ``n`` arrives at ``base + n``.

        Returns:
            line, kind and reason of the rejects.
        """
        found = [(line, NOT_A_ROW, reason) for line, reason in rows.rejected]
        if not len(rows.line):
            return found
        with self._spool.cursor() as cursor:
            table = rows.table.rename_columns(_places(rows.table.column_names))
            cursor.register("source", table.append_column("line", pa.array(rows.line)))
            cursor.execute(insert_statement(self._raw, self._fields, base=base)).fetchall()
            rejects = find_rejects(cursor, base + int(rows.line[0]), base + int(rows.line[-1]))
        for arrival, problem in rejects:
            if problem == EVENT:
                continue
            row = int(np.searchsorted(rows.line, arrival - base))
            reason = explain(problem, partial(self._value, rows.table, row))
            found.append((arrival - base, KINDS[problem], reason))
        return sorted(found)

    def _value(self, table: pa.Table, row: int, name: str) -> Any:
        path = getattr(self._fields, name)
        if path is None:
            return None
        values = [_column(table, one)[row].as_py() for one in ((path,) if isinstance(path, str) else path)]
        return values[0] if isinstance(path, str) else values


def read_csv_blocks(
    blocks: Iterator[Block], fields: Callable[[list[str]], FieldMap]
) -> Iterator[tuple[FieldMap, Rows]]:
    """The rows of a CSV file and the mapping that ``fields`` makes of its header; a quoted value ends on its line.

    Raises:
        MappingError: the header is no CSV, or has a mapped column more than once.
    """
    names: list[str] = []
    delimiter = ","
    mapped: FieldMap | None = None
    for block in blocks:
        usable = np.flatnonzero(block.usable)
        rejected = [(block.first_line + index, reason) for index, reason in block.rejected]
        if mapped is None and len(usable):
            header = block.text(int(usable[0])).lstrip("\ufeff")
            delimiter = max(DELIMITERS, key=header.count)
            names = _header(header, delimiter)
            mapped = fields(names)
            _refuse_twice(names, mapped.paths())
            usable = usable[1:]
        if mapped is not None:
            yield mapped, _parse_csv(block, usable, names, delimiter, rejected)


def _header(line: str, delimiter: str) -> list[str]:
    """The names of the columns.

    Raises:
        MappingError: the line is no CSV.
    """
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise MappingError(
            f"its header is not CSV ({error}), expected the columns' names; give another file."
        ) from error


def _refuse_twice(names: list[str], paths: Sequence[str]) -> None:
    """Refuse a header that has a mapped column more than once.

    Raises:
        MappingError: it has.
    """
    twice = [path for path in paths if names.count(path) > 1]
    if twice:
        raise MappingError(
            f"the header has {listed(map(repr, twice))} more than once, expected one; rename the others."
        )


def _parse_csv(
    block: Block, usable: NDArray[np.int64], names: list[str], delimiter: str, rejected: list[tuple[int, str]]
) -> Rows:
    lines = block.first_line + usable
    starts = block.starts
    content = b"".join(bytes(block.content[starts[index] : block.ends[index]]) for index in usable)
    if content.count(b"\r") != content.count(b"\r\n"):  # Arrow would end a line there
        return _parse_csv_slowly(block, usable, names, delimiter, rejected)
    wrong: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        wrong.append((row.number - 1, row.actual_columns))
        return "skip"

    try:
        table = pc.read_csv(
            pa.BufferReader(content),
            read_options=pc.ReadOptions(column_names=names, use_threads=False, block_size=max(len(content), 1) + 1),
            parse_options=pc.ParseOptions(delimiter=delimiter, invalid_row_handler=note, ignore_empty_lines=False),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowException:
        table = None
    if table is None or len(table) + len(wrong) != len(lines):  # an open quote has swallowed a line end
        return _parse_csv_slowly(block, usable, names, delimiter, rejected)
    kept = np.ones(len(lines), bool)
    kept[[row for row, _ in wrong]] = False
    rejected += [(int(lines[row]), _wrong_width(found, len(names))) for row, found in wrong]
    return Rows(lines[kept], table, rejected)


def _parse_csv_slowly(
    block: Block, usable: NDArray[np.int64], names: list[str], delimiter: str, rejected: list[tuple[int, str]]
) -> Rows:
    kept, rows = [], []
    for index in usable.tolist():
        try:
            row = next(csv.reader([block.text(index)], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            rejected.append((block.first_line + index, f"the line is not CSV ({error}); repair or drop it"))
            continue
        if len(row) == len(names):
            kept.append(block.first_line + index)
            rows.append([value or None for value in row])
        else:
            rejected.append((block.first_line + index, _wrong_width(len(row), len(names))))
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in range(len(names))]
    return Rows(np.array(kept, np.int64), pa.Table.from_arrays(columns, names), rejected)


def _wrong_width(found: int, expected: int) -> str:
    return f"the line has {counted(found, 'value')}, expected the {expected} of the header; repair or drop it"


def open_parquet(path: Path) -> pq.ParquetFile:
    """The Parquet file.

    Raises:
        LogError: it is none.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise LogError(f"{path}: not a Parquet file ({first_line(error)}); write it anew.") from error


def read_parquet(file: pq.ParquetFile, path: Path, fields: FieldMap) -> Iterator[Rows]:
    """The rows of a Parquet file, only the columns that are mapped.

    Raises:
        LogError: the file is damaged.
    """
    names = file.schema_arrow.names
    tops = {one if one in names else split_path(one)[0] for one in fields.paths()}
    row = 1
    kept = [at for at, name in enumerate(names) if name in tops]
    source = f"read_parquet({quote_text(glob.escape(str(path)))}, hive_partitioning = false)"
    try:
        # by DuckDB: before version 26 Arrow cannot read a null among lists of a fixed size
        with duckdb.connect() as connection:
            theirs = connection.sql(f"FROM {source}").columns  # a name that another has in other letters is changed
            wanted = ", ".join(quote_name(theirs[at]) for at in kept)
            for batch in connection.sql(f"SELECT {wanted} FROM {source}").to_arrow_reader(ROWS_A_BATCH):
                table = pa.Table.from_batches([batch]).rename_columns([names[at] for at in kept])
                yield Rows(np.arange(row, row + len(table), dtype=np.int64), table, [])
                row += len(table)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise LogError(f"{path}: damaged from about row {row} on ({first_line(error)}); write it anew.") from error


def first_line(error: BaseException) -> str:
    """The first line of another library's message."""
    return str(error).strip().split("\n", 1)[0][:200]


def column_paths(schema: pa.Schema) -> list[str]:
    """Every column, those inside of structures by their dotted paths."""
    paths = []
    for field in schema:
        inner = column_paths(pa.schema(list(field.type))) if pa.types.is_struct(field.type) else []
        paths += [f"{field.name}.{path}" for path in inner] if inner else [field.name]
    return paths


def _is_hashed(fields: FieldMap, table: pa.Table) -> bool:
    """Whether most of the first values in the place of the inputs are texts that stand for them."""
    if not isinstance(fields.inputs, str) or fields.words:
        return False
    column = _column(table, fields.inputs).drop_null()
    if not len(column) or not _is_text(column.type):
        return False
    first = column.slice(0, HASHED_OF).to_pylist()
    return sum(map(is_hash, first)) > len(first) / 2


def _raw_query(fields: FieldMap, schema: pa.Schema) -> str:
    columns = ["line"]
    for name, column in TEXTS.items():
        path = getattr(fields, name)
        value = absent(fields.stand_in(name)) if path is None else _as_text(schema, path)
        value = f"nullif({value}, '')" if path and name in ("client", "session") else value
        columns.append(f"{value} AS {quote_name(column)}")
    inputs, no_list = _inputs(fields, schema)
    columns += [f"{inputs} AS inputs", f"{no_list} AS no_list"]
    nested = [path for path in (fields.client, fields.session) if path and pa.types.is_nested(_type(schema, path))]
    found = " OR ".join(f"{_reference(schema, path)} IS NOT NULL" for path in nested)
    return f"SELECT {', '.join(columns)}, {found or 'false'} AS no_name FROM source"


def _inputs(fields: FieldMap, schema: pa.Schema) -> tuple[str, str]:
    """SQL of the input vector, and of whether something else stands in its place."""
    if fields.inputs is None:
        return "CAST(NULL AS DOUBLE[])", "false"
    if not isinstance(fields.inputs, str):
        values = [_reference(schema, path) for path in fields.inputs]
        numbers = [_number(fields, schema, path) for path in fields.inputs]
        return vector_of(values, numbers, words=fields.words), "false"
    value, kind = _reference(schema, fields.inputs), _type(schema, fields.inputs)
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if _is_text(inner) or fields.words:
        texts = f"TRY_CAST({value} AS VARCHAR[])"
        if _is_text(kind):
            parts = f"string_split_regex(trim({value}), '[;,|\\s]+')"
            texts = f"CASE WHEN ltrim({value}) LIKE '[%' THEN {texts} ELSE {parts} END"
        number = number_of("value", words=fields.words)
        return f"list_transform({texts}, lambda value: {number})", f"({value} IS NOT NULL AND {texts} IS NULL)"
    vector = f"TRY_CAST({value} AS DOUBLE[])"
    return vector, f"({value} IS NOT NULL AND {vector} IS NULL)"


def _number(fields: FieldMap, schema: pa.Schema, path: str) -> str:
    if fields.words or _is_text(_type(schema, path)):
        return number_of(_as_text(schema, path), words=fields.words)
    return f"TRY_CAST({_reference(schema, path)} AS DOUBLE)"


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_text(schema: pa.Schema, path: str) -> str:
    value, kind = _reference(schema, path), _type(schema, path)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zoned = pa.types.is_timestamp(kind) and kind.tz
        moment = f"CAST({value} AS {'TIMESTAMPTZ' if zoned else 'TIMESTAMP'})"
        return f"CAST(epoch_us({moment}) / 1e6 AS VARCHAR)"
    return f"CAST({value} AS VARCHAR)"


def _keys(names: Sequence[str], path: str) -> tuple[str, ...]:
    return (path,) if path in names else split_path(path)


def _places(names: Sequence[str]) -> list[str]:
    """What the columns are called in SQL, where names differ by more than their capitals."""
    return [f"column{place}" for place in range(len(names))]


def _reference(schema: pa.Schema, path: str) -> str:
    top, *inner = _keys(schema.names, path)
    return ".".join([_places(schema.names)[schema.names.index(top)], *map(quote_name, inner)])


def _type(schema: pa.Schema, path: str) -> Any:
    top, *inner = _keys(schema.names, path)
    kind = schema.field(top).type
    for key in inner:
        kind = kind.field(key).type
    return kind


def _column(table: pa.Table, path: str) -> Any:
    top, *inner = _keys(table.column_names, path)
    column = table.column(top)
    for key in inner:
        column = pa.chunked_array([chunk.field(key) for chunk in column.chunks])
    return column
