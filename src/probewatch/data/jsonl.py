"""JSON lines: the SQL that takes a line apart, guarded against lines that are no JSON."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from probewatch.data.fields import FieldMap, split_path
from probewatch.data.lines import NEWLINE, Block
from probewatch.data.spool import Spool, quote_name, quote_text
from probewatch.errors import MappingError

RETURN, OPEN, CLOSE = ord("\r"), ord("{"), ord("}")
MOST_BRACES = 4
ROWS_A_BATCH = 8192  # DuckDB's threads share the work by batches

TEXTS = ("event_type", "client", "session", "model", "time", "confidence", "predicted_class", "label", "request")


def raw_query(fields: FieldMap, *, guarded: bool) -> str:
    """SQL from the lines in ``source`` to the columns that the spool checks.

    Reading JSON costs most of the time, so a line is parsed once; where malformed lines are to be
    expected the guarded form asks ``json_valid`` first.
    """
    shape = json.dumps(_shape(fields))
    text = "CASE WHEN json_valid(text) THEN text END" if guarded else "text"
    lines = f"SELECT line, {text} AS text FROM source WHERE text IS NOT NULL"
    parsed = f"SELECT line, text, json_transform(text, {quote_text(shape)}) AS event FROM ({lines})"
    no_object = "coalesce(json_type(text) <> 'OBJECT', false)" if guarded else "false"
    columns = ["line", "text IS NULL AS broken", f"{no_object} AS no_object"]
    for name in TEXTS:
        path = getattr(fields, name)
        column = "predicted" if name == "predicted_class" else name
        value = "NULL" if path is None else _reference(path)
        if name in ("client", "session"):
            value = f"nullif({value}, '')"
        columns.append(f"CAST({value} AS VARCHAR) AS {quote_name(column)}")
    return f"SELECT {', '.join([*columns, *_inputs(fields)])} FROM ({parsed})"


def _inputs(fields: FieldMap) -> list[str]:
    if fields.inputs is None:
        return ["CAST(NULL AS DOUBLE[]) AS inputs", "CAST(NULL AS VARCHAR) AS inputs_type"]
    if isinstance(fields.inputs, str):
        pointer = quote_text("$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in split_path(fields.inputs)))
        value = _reference(fields.inputs)
        kind = f"CASE WHEN {value} IS NULL THEN json_extract_string(text, {pointer}) END"
        return [f"{value} AS inputs", f"{kind} AS inputs_type"]
    values = [_reference(path) for path in fields.inputs]
    absent = " AND ".join(f"{value} IS NULL" for value in values)
    numbers = ", ".join(f"TRY_CAST({value} AS DOUBLE)" for value in values)
    return [f"CASE WHEN NOT ({absent}) THEN [{numbers}] END AS inputs", "CAST(NULL AS VARCHAR) AS inputs_type"]


def _reference(path: str) -> str:
    return "event" + "".join(f".{quote_name(key)}" for key in split_path(path))


def _shape(fields: FieldMap) -> dict[str, Any]:
    """The structure of one event, as ``json_transform`` takes it."""
    shape: dict[str, Any] = {}
    leaves: list[tuple[str, Any]] = [(path, "VARCHAR") for path in fields.paths()]
    if isinstance(fields.inputs, str):
        leaves[-1] = (fields.inputs, ["DOUBLE"])
    for path, leaf in leaves:
        *parents, last = split_path(path)
        at = shape
        for key in parents:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                raise MappingError(f"the field mapping has a field inside another one: {path!r}.")
        if at.setdefault(last, leaf) != leaf:
            raise MappingError(f"the field mapping has a field inside another one: {path!r}.")
    return shape


def insert_block(spool: Spool, block: Block, fields: FieldMap, *, base: int) -> None:
    """Check and keep the lines of a block."""
    lines = np.arange(block.first_line, block.first_line + len(block), dtype=np.int64)
    table = pa.table({"line": lines, "text": block.text})
    odd = pa.array(find_odd(block))
    regular = table.set_column(1, "text", pc.if_else(odd, None, block.text))
    try:
        _insert(spool, regular, fields, base=base, guarded=False)
    except duckdb.InvalidInputException:  # a malformed line that looked regular; nothing was kept
        odd = pa.array(np.ones(len(block), bool))
    if pc.any(odd).as_py():
        _insert(spool, table.filter(odd), fields, base=base, guarded=True)


def find_odd(block: Block) -> NDArray[np.bool_]:
    """(L,) True for lines that may be no JSON object: they begin or end unlike the others.

    A line that was cut off nearly always ends in fewer closing braces than most do.
    """
    _, offsets, content = block.text.buffers()
    raw = np.frombuffer(content, np.uint8)
    offsets = np.frombuffer(offsets, np.int64)[: len(block) + 1]
    starts, last = offsets[:-1], offsets[1:] - 1
    for _ in range(2):  # the line's end is one character or two
        last = last - ((raw[last] == NEWLINE) | (raw[last] == RETURN))
    braces = np.zeros(len(block), np.int64)
    run = np.ones(len(block), bool)
    for back in range(MOST_BRACES):
        run &= raw[np.maximum(last - back, 0)] == CLOSE
        braces += run
    usual = int(np.bincount(braces).argmax())
    odd: NDArray[np.bool_] = (braces != max(usual, 1)) | (raw[starts] != OPEN)
    return odd


def _insert(spool: Spool, table: pa.Table, fields: FieldMap, *, base: int, guarded: bool) -> None:
    spool.insert(_rebatch(table), raw_query(fields, guarded=guarded), base=base, query_event=fields.query_event)


def _rebatch(table: pa.Table) -> pa.Table:
    table = table.combine_chunks()
    return pa.Table.from_batches(table.to_batches(max_chunksize=ROWS_A_BATCH), table.schema)
