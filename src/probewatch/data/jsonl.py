"""JSON lines: blocks of lines to checked rows of the spool."""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from probewatch.data.fields import FieldMap, split_path
from probewatch.data.lines import Block
from probewatch.data.spool import (
    BAD_CLIENT,
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
)
from probewatch.errors import MappingError, OutputError

LEAST_LINE_BYTES = 1 << 20  # DuckDB's buffers are a multiple of the longest line it is told of
FILLER = b"0"  # valid JSON and no object: DuckDB gives it a row of nulls


class LineReader:
    """Reads blocks of JSON lines into a spool; may be called from several threads at once.

    There are two ways, with the same outcome. ``read_ndjson`` is more than twice as fast, gives a row
    of nulls for a malformed line and for one with half a surrogate pair, and cannot tell an absent input
    vector from one that is no list, nor an object from a text that looks like one; it also takes files
    only, so each block becomes one. Where it does not give a row for every line, a vector is missing, a
    name looks like an object or half a pair is found, ``json_transform`` reads the block's lines one by one.
    """

    def __init__(self, spool: Spool, fields: FieldMap) -> None:
        self._spool = spool
        self.fields = fields
        self._columns, self._fast, self._slow = _statements(fields)

    def read(self, block: Block, *, base: int) -> list[tuple[int, int]]:
        """Check and keep a block's lines, whose first arrives at ``base`` + its number.

        Returns:
            index and problem of the usable lines that were rejected.
        """
        usable = block.usable
        if not usable.any():
            return []
        first = base + block.first_line
        with self._spool.cursor() as cursor:
            found = self._read_fast(cursor, block, base)
            if found is None:
                self._read_slowly(cursor, block, base)
                found = find_rejects(cursor, first, first + len(block) - 1)
        return [
            (arrival - first, problem) for arrival, problem in found if problem != EVENT and usable[arrival - first]
        ]

    def _read_fast(self, cursor: duckdb.DuckDBPyConnection, block: Block, base: int) -> list[tuple[int, int]] | None:
        """The rejects, or None, and nothing kept, where this way cannot be trusted."""
        first = base + block.first_line
        longest = max(LEAST_LINE_BYTES, int(np.diff(block.ends, prepend=0).max()) + 1)
        path = block.path if block.path and block.usable.all() else self._write(block.filled(FILLER))
        options = f"columns = {self._columns}, ignore_errors = true, maximum_object_size = {longest}"
        source = f"read_ndjson({quote_text(str(path))}, {options})"
        cursor.execute("BEGIN")
        try:
            raw = self._fast.replace("{source}", source).replace("{first}", str(block.first_line))
            statement = insert_statement(raw, self.fields, base=base)
            rows = cursor.execute(statement).fetchall()[0][0]
            found = find_rejects(cursor, first, first + rows - 1)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            rows, found = 0, []
        unsure = {BAD_CLIENT, EVENT} if isinstance(self.fields.inputs, str) else {BAD_CLIENT}
        whole = rows == len(block) and unsure.isdisjoint(problem for _, problem in found)
        whole = whole and not any(block.is_halved(arrival - first) for arrival, _ in found)
        cursor.execute("COMMIT" if whole else "ROLLBACK")
        return found if whole else None

    def _write(self, content: bytes | memoryview) -> Path:
        """Put a block into the calling thread's file."""
        path = self._spool.folder / f"{threading.get_ident()}.jsonl"
        try:
            path.write_bytes(content)
        except OSError as error:
            raise OutputError(
                f"{self._spool.folder}: lines cannot be kept there ({error.strerror}); free disk, or name a folder"
                " in TMPDIR."
            ) from error
        return path

    def _read_slowly(self, cursor: duckdb.DuckDBPyConnection, block: Block, base: int) -> None:
        lines = np.arange(block.first_line, block.first_line + len(block), dtype=np.int64)
        cursor.register("source", pa.table({"line": lines, "text": block.mended().arrow()}))
        cursor.execute(insert_statement(self._slow, self.fields, base=base)).fetchall()


@lru_cache
def _statements(fields: FieldMap) -> tuple[str, str, str]:
    """The columns of ``read_ndjson``, and the query of either way."""
    fast = _raw_query(
        fields, "{source}", "row_number() OVER () - 1 + {first}", no_list="false", no_name=_looks_nested(fields)
    )
    slow = _raw_query(fields, _transformed(fields), "line", no_list=_no_list(fields), no_name=_is_nested(fields))
    return _columns(_shape(fields)), fast, slow


def _raw_query(fields: FieldMap, source: str, line: str, *, no_list: str, no_name: str) -> str:
    columns = [f"{line} AS line"]
    for name, column in TEXTS.items():
        path = getattr(fields, name)
        value = absent(fields.stand_in(name)) if path is None else _reference(path)
        value = f"nullif({value}, '')" if path and name in ("client", "session") else value
        columns.append(f"{value} AS {quote_name(column)}")
    columns += [f"{_inputs(fields)} AS inputs", f"{no_list} AS no_list", f"{no_name} AS no_name"]
    return f"SELECT {', '.join(columns)} FROM {source}"


def _inputs(fields: FieldMap) -> str:
    if fields.inputs is None:
        return "CAST(NULL AS DOUBLE[])"
    if isinstance(fields.inputs, str):
        listed = _reference(fields.inputs)
        return f"list_transform({listed}, lambda value: {number_of('value', words=True)})" if fields.words else listed
    values = [_reference(path) for path in fields.inputs]
    return vector_of(values, [number_of(value, words=fields.words) for value in values], words=fields.words)


def _transformed(fields: FieldMap) -> str:
    shape = quote_text(json.dumps(_shape(fields)))
    valid = "SELECT line, CASE WHEN json_valid(text) THEN text END AS text FROM source WHERE text IS NOT NULL"
    return f"(SELECT line, text, unnest(json_transform(text, {shape})) FROM ({valid}))"


def _no_list(fields: FieldMap) -> str:
    if not isinstance(fields.inputs, str):
        return "false"
    kind = _json_type(fields.inputs)
    return f"CASE WHEN {_reference(fields.inputs)} IS NULL THEN coalesce({kind}, 'NULL') <> 'NULL' ELSE false END"


def _names(fields: FieldMap) -> list[str]:
    return [path for path in (fields.client, fields.session) if path]


def _looks_nested(fields: FieldMap) -> str:
    """Whether a client or session may be a list or an object: whatever begins as one."""
    values = [_reference(path) for path in _names(fields)]
    found = [f"{value} BETWEEN '{one}' AND '{one}~'" for value in values for one in "[{"]
    return f"coalesce({' OR '.join(found)}, false)" if found else "false"


def _is_nested(fields: FieldMap) -> str:
    """Whether one is."""
    found = [f"coalesce({_json_type(path)}, '') IN ('ARRAY', 'OBJECT')" for path in _names(fields)]
    return " OR ".join(found) or "false"


def _json_type(path: str) -> str:
    keys = [json.dumps(key, ensure_ascii=False) for key in split_path(path)]
    return f"json_type(text, {quote_text('$.' + '.'.join(keys))})"


def _reference(path: str) -> str:
    return ".".join(quote_name(key) for key in split_path(path))


def _shape(fields: FieldMap) -> dict[str, Any]:
    """The structure of one event: names to VARCHAR, [DOUBLE], [VARCHAR] or a structure."""
    shape: dict[str, Any] = {}
    leaves: list[tuple[str, Any]] = [(path, "VARCHAR") for path in fields.paths()]
    if isinstance(fields.inputs, str):
        leaves[-1] = (fields.inputs, ["VARCHAR" if fields.words else "DOUBLE"])
    for path, leaf in leaves:
        *parents, last = split_path(path)
        at: Any = shape
        for key in parents:
            at = at.setdefault(key, {}) if isinstance(at, dict) else None
        if not isinstance(at, dict) or at.setdefault(last, leaf) != leaf:
            raise MappingError(f"the field mapping has {path!r} inside another field or twice with two meanings.")
        if len({key.lower() for key in at}) < len(at):
            raise MappingError(
                f"the field mapping has {path!r} and another path that differs by capitals alone, which JSON lines"
                " cannot be read by; rename one of the two in the log."
            )
    return shape


def _columns(shape: dict[str, Any]) -> str:
    """The structure as the ``columns`` of read_ndjson."""
    return "{" + ", ".join(f"{quote_text(key)}: {quote_text(_type(leaf))}" for key, leaf in shape.items()) + "}"


def _type(shape: Any) -> str:
    if isinstance(shape, dict):
        return "STRUCT(" + ", ".join(f"{quote_name(key)} {_type(leaf)}" for key, leaf in shape.items()) + ")"
    return f"{shape[0]}[]" if isinstance(shape, list) else str(shape)
