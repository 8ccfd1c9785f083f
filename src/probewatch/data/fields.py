"""FieldMap: where a log keeps the client, the time, the answer and the input vector of a query."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from probewatch.data.wording import counted, listed
from probewatch.errors import MappingError

SHOWN_FIELDS = 40
DELIMITERS = ",;\t|"
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
        model_name: the model that a log is of which has no such field.
        confidence: probability of the predicted class, 0 to 1.
        predicted_class: the class that the model answered, text or number.
        inputs: the input vector: one path to a list, or a path for each element; a last ``*`` in a
            column's name stands for all columns that begin so, in the file's order.
        words: texts in the input vector, and what is missing there, are categories, each with a number of its own;
            else they are rejected.
        digest: a text that stands for the input vector, where the log keeps a hash of it; ``inputs`` that lead to a
            text are taken for one too.
        request: id by which a repeated line of the same client is recognised.
        label: whether the query is part of an attack (1, 0, true, false).
        event_type: the kind of event; only those equal to ``query_event`` are queries.
        query_event: that value.
        records: the lines are records of a model's owner, which need neither client nor time.
    """

    client: str | None = None
    session: str | None = None
    time: str | None = None
    model: str | None = None
    model_name: str | None = None
    confidence: str | None = None
    predicted_class: str | None = None
    inputs: str | tuple[str, ...] | None = None
    words: bool = False
    digest: str | None = None
    request: str | None = None
    label: str | None = None
    event_type: str | None = None
    query_event: str = "model_query"
    records: bool = False

    def __post_init__(self) -> None:
        mistakes = [] if self.time or self.records else ['time is not mapped: add time = "…"']
        if self.model and self.model_name:
            mistakes.append("model and model_name are both given, expected one of them")
        if not (self.client or self.session or self.records):
            mistakes.append('neither client nor session is mapped: add client = "…" or session = "…"')
        for path in self.paths():
            try:
                split_path(path)
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise MappingError(f"the field mapping has {counted(len(mistakes), 'mistake')}: {'; '.join(mistakes)}.")

    def named(self) -> dict[str, str]:
        """Our name to the log's path, of the mapped fields that hold one value."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NO_PATHS}
        return {name: path for name, path in found.items() if path is not None}

    def paths(self) -> list[str]:
        """Every mapped path, those of the inputs last."""
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()
        return [*self.named().values(), *inputs]

    def fit(self, names: Sequence[str], *, strict: bool) -> FieldMap:
        """This mapping for a log with the fields ``names``: patterns written out, absent fields left out.

        Args:
            names: dotted paths, or columns.
            strict: refuse absent fields other than the label, which a log may lack.

        Raises:
            MappingError: the log lacks mapped fields (all are named), or what no log can lack.
        """
        known, absent = set(names), []
        values: dict[str, Any] = {name: getattr(self, name) for name in _NO_PATHS if name != "inputs"}
        for name, path in self.named().items():
            if _has(known, path):
                values[name] = path
            elif name != "label":
                absent.append(path)
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()
        found = [_matching(path, names) for path in inputs]
        absent += [p for p, matched in zip(inputs, found, strict=True) if not any(_has(known, n) for n in matched)]
        one = isinstance(self.inputs, str) and not self.inputs.endswith("*")
        if inputs and not set(inputs) & set(absent):
            values["inputs"] = self.inputs if one else tuple(n for matched in found for n in matched)
        unusable = not self.records and (not values.get("time") or not (values.get("client") or values.get("session")))
        if unusable or (strict and absent):
            lacking = listed(repr(path) for path in absent)
            raise MappingError(f"the log has no {lacking}; {suggest_fields(names)}.")
        return FieldMap(**values)

    def spelled(self, names: Sequence[str]) -> FieldMap:
        """This mapping with the patterns of the inputs written out for the fields ``names``; no inputs if none fits."""
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()
        if not any(path.endswith("*") for path in inputs):
            return self
        return replace(self, inputs=tuple(name for path in inputs for name in _matching(path, names)) or None)

    def find(self, event: Mapping[str, Any], name: str) -> Any:
        """The value that an event, a nested dict, has for one of our fields; None where it has none."""
        path = getattr(self, name)
        if isinstance(path, tuple):
            return [_follow(event, one) for one in path]
        return _follow(event, path) if path else None

    def stand_in(self, name: str) -> str | None:
        """What a line is taken to say in a field that is not mapped, if anything."""
        if name == "model":
            return self.model_name
        return {"client": "owner", "time": "0"}.get(name) if self.records else None

    def of_records(self) -> FieldMap:
        """The same paths for records: inputs, confidence and predicted class only."""
        return FieldMap(
            confidence=self.confidence, predicted_class=self.predicted_class, inputs=self.inputs, words=self.words,
            records=True,
        )  # fmt: skip

    def hashed(self) -> FieldMap:
        """The same for a log in which a text stands where the input vector should."""
        return replace(self, inputs=None, digest=self.digest or str(self.inputs))

    @classmethod
    def load(cls, path: Path | str, *, records: bool = False) -> FieldMap:
        """Read a TOML file with one table, ``[fields]``, of our names and the log's paths.

        Args:
            path: the file.
            records: it may be for records, which need neither client nor time.

        Raises:
            MappingError: the file cannot be read, or has unknown names or wrong values; all are named.
        """
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise MappingError(f"{path}: the field mapping cannot be read ({error.strerror}).") from error
        except (ValueError, RecursionError) as error:
            raise MappingError(f"{path}: the field mapping is not TOML ({error}).") from error
        try:
            return cls.from_table(table, records=records)
        except MappingError as error:
            raise MappingError(f"{path}: {error}") from error

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, records: bool = False) -> FieldMap:
        """The mapping in a parsed TOML document ``{"fields": {name: path}}``; see :meth:`load`.

        Raises:
            MappingError: it holds unknown names or wrong values; all are named.
        """
        if not isinstance(table.get("fields"), dict):
            raise MappingError(f"the field mapping has no table [fields], expected {TEMPLATE}.")
        known = [f.name for f in fields(cls) if f.name != "records"]
        mistakes = [f"[{name}] is not known, expected [fields]" for name in table if name != "fields"]
        values: dict[str, Any] = {}
        for name, value in table["fields"].items():
            if name not in known:
                mistakes.append(f"{name!r} is not a field, expected one of {', '.join(known)}")
            elif name == "words":
                if not isinstance(value, bool):
                    mistakes.append(f"words is {value!r}, expected true or false")
                values[name] = bool(value)
            elif isinstance(value, str) and value:
                values[name] = value
            elif name == "inputs" and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
                values[name] = tuple(value)
            else:
                mistakes.append(f"{name} is {value!r}, expected a dotted path in quotes")
        try:
            mapped = cls(**values, records=records)
        except MappingError as error:
            mistakes.append(re.split("mistakes?: ", str(error), maxsplit=1)[1].rstrip("."))
        if mistakes:
            raise MappingError(f"the field mapping is wrong: {'; '.join(mistakes)}.")
        return mapped


_NO_PATHS = ("inputs", "model_name", "words", "query_event", "records")


def split_path(path: str) -> tuple[str, ...]:
    """The keys of a dotted path.

    >>> split_path('http."user.id".name')
    ('http', 'user.id', 'name')

    Raises:
        ValueError: a key is empty.
    """
    try:
        keys = tuple(next(csv.reader([path], delimiter=".", quotechar='"', strict=True), []))
    except csv.Error as error:
        raise ValueError(f"path {path!r} cannot be read ({error}), expected names joined by dots") from error
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

RECORDS = FieldMap(confidence="confidence", predicted_class="predictedClass", inputs="featureVector", records=True)
"""Records of a model's owner with the model's answers."""


def suggest_fields(names: Iterable[str]) -> str:
    """What to add to a mapping, for a log with these fields."""
    shown = list(names)[:SHOWN_FIELDS]
    return f"give a field mapping with {TEMPLATE}" + (f" (this log has {', '.join(shown)})" if shown else "")


def fields_of(lines: Iterable[str]) -> list[str]:
    """The dotted paths in some JSON lines, in their order."""
    seen: dict[str, None] = {}
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        seen.update(dict.fromkeys(_paths_of(event)))
    return list(seen)


def _matching(path: str, names: Sequence[str]) -> list[str]:
    """The fields that a path of the inputs, which may be a pattern, stands for."""
    return [name for name in names if name.startswith(path[:-1])] if path.endswith("*") else [path]


def _has(names: set[str], path: str) -> bool:
    return path in names or _plain(path) in names


def _plain(path: str) -> str:
    """The path without needless quotes, as :func:`fields_of` writes it."""
    return ".".join(_quoted(key) for key in split_path(path))


def _quoted(key: str) -> str:
    """A key as a path spells it; ``split_path`` gives it back."""
    if key and not set(key) & set('."\r\n'):
        return key
    return '"' + key.replace('"', '""') + '"'


def _paths_of(event: Any, depth: int = 4) -> Iterator[str]:
    for key, value in event.items() if isinstance(event, dict) else []:
        name = _quoted(key)
        inner = list(_paths_of(value, depth - 1)) if depth else []
        yield from (f"{name}.{path}" for path in inner) if inner else [name]
