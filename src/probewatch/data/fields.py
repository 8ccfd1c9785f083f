"""FieldMap: where a log keeps the client, the time, the answer and the input vector of a query."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from probewatch.errors import MappingError

TEMPLATE = '[fields] client = "…", session = "…", time = "…", confidence = "…", inputs = "…"'


@dataclass(frozen=True)
class FieldMap:
    """The dotted path of each of our fields in a log's own records; None where the log has none.

    A path goes through nested objects (``details.queryResponse.confidence``); a key that holds a dot
    itself is quoted (``http."user.id"``). In CSV and Parquet a column of exactly that name wins.

    Attributes:
        client: who asked. One of client and session is needed.
        session: the task or session that the query belongs to.
        time: ISO 8601, or a number of seconds, milli-, micro- or nanoseconds since 1970.
        model: which model was asked.
        confidence: probability of the predicted class, 0 to 1.
        predicted_class: the class that the model answered, text or number.
        inputs: the input vector: one path to a list, or a path for each element; a last ``*`` in a
            column's name stands for all columns that begin so, in the file's order.
        request: id by which a repeated line of the same client is recognised.
        label: whether the query is part of an attack (1, 0, true, false).
        event_type: the kind of event; only those equal to ``query_event`` are queries.
        query_event: that value.
    """

    client: str | None = None
    session: str | None = None
    time: str | None = None
    model: str | None = None
    confidence: str | None = None
    predicted_class: str | None = None
    inputs: str | tuple[str, ...] | None = None
    request: str | None = None
    label: str | None = None
    event_type: str | None = None
    query_event: str = "model_query"

    def __post_init__(self) -> None:
        mistakes = [] if self.time else ['time is not mapped: add time = "…"']
        if not (self.client or self.session):
            mistakes.append('neither client nor session is mapped: add client = "…" or session = "…"')
        for path in self.paths():
            try:
                split_path(path)
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise MappingError(f"the field mapping has {len(mistakes)} mistakes: {'; '.join(mistakes)}.")

    def named(self) -> dict[str, str]:
        """Our name to the log's path, of the mapped fields that hold one value."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("inputs", "query_event")}
        return {name: path for name, path in found.items() if path is not None}

    def paths(self) -> list[str]:
        """Every mapped path, those of the inputs last."""
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()
        return [*self.named().values(), *inputs]

    def find(self, event: Mapping[str, Any], name: str) -> Any:
        """The value that an event, a nested dict, has for one of our fields; None where it has none."""
        path = getattr(self, name)
        if isinstance(path, tuple):
            return [_follow(event, one) for one in path]
        return _follow(event, path) if path else None

    @classmethod
    def load(cls, path: Path | str) -> FieldMap:
        """Read a TOML file with one table, ``[fields]``, of our names and the log's paths.

        Raises:
            MappingError: the file cannot be read, or has unknown names or wrong values; all are named.
        """
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise MappingError(f"{path}: the field mapping cannot be read ({error}); expected TOML.") from error
        try:
            return cls.from_table(table)
        except MappingError as error:
            raise MappingError(f"{path}: {error}") from error

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> FieldMap:
        """The mapping in a parsed TOML document ``{"fields": {name: path}}``.

        Raises:
            MappingError: it holds unknown names or wrong values; all are named.
        """
        if not isinstance(table.get("fields"), dict):
            raise MappingError(f"the field mapping has no table [fields], expected {TEMPLATE}.")
        known = [f.name for f in fields(cls)]
        mistakes = [f"[{name}] is not known, expected [fields]" for name in table if name != "fields"]
        values: dict[str, Any] = {}
        for name, value in table["fields"].items():
            if name not in known:
                mistakes.append(f"{name!r} is not a field, expected one of {', '.join(known)}")
            elif isinstance(value, str) and value:
                values[name] = value
            elif name == "inputs" and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
                values[name] = tuple(value)
            else:
                mistakes.append(f"{name} is {value!r}, expected a dotted path in quotes")
        try:
            mapped = cls(**values)
        except MappingError as error:
            mistakes.append(str(error).split("mistakes: ", 1)[1].rstrip("."))
        if mistakes:
            raise MappingError(f"the field mapping is wrong: {'; '.join(mistakes)}.")
        return mapped


def split_path(path: str) -> tuple[str, ...]:
    """The keys of a dotted path.

    >>> split_path('http."user.id".name')
    ('http', 'user.id', 'name')

    Raises:
        ValueError: a key is empty.
    """
    keys = tuple(next(csv.reader([path], delimiter=".", quotechar='"'), []))
    if not keys or not all(keys):
        raise ValueError(f"path {path!r} has an empty key, expected names joined by dots")
    return keys


def _follow(event: Any, path: str) -> Any:
    for key in split_path(path):
        event = event.get(key) if isinstance(event, dict) else None
    return event


RAW = FieldMap(
    client="context.userId",
    session="context.taskId",
    time="timestamp",
    model="details.modelName",
    confidence="details.queryResponse.confidence",
    predicted_class="details.queryResponse.predictedClass",
    inputs="details.queryInput.featureVector",
    event_type="eventType",
)
"""The article's raw event log (its part A19 in the specification)."""


def suggest(lines: Iterable[str]) -> str:
    """What to add to a mapping, for a log of which these are some lines."""
    seen: dict[str, None] = {}
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        seen.update(dict.fromkeys(_paths_of(event)))
    names = f" (this log has {', '.join(list(seen)[:40])})" if seen else ""
    return f"give a field mapping with {TEMPLATE}{names}"


def _paths_of(event: Any, depth: int = 4) -> Iterator[str]:
    for key, value in event.items() if isinstance(event, dict) else []:
        name = f'"{key}"' if "." in key or not key else key
        inner = list(_paths_of(value, depth - 1)) if depth else []
        yield from (f"{name}.{path}" for path in inner) if inner else [name]
