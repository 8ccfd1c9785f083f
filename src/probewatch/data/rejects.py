"""Counts, rejects and the sentences that say why a line was rejected, without its contents."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from probewatch.data import spool as codes
from probewatch.data.artefacts import replacing
from probewatch.data.fields import FieldMap
from probewatch.data.wording import counted
from probewatch.errors import ConfigError, OutputError

KEPT_REJECTS = 1000

EXPECTED = {
    codes.BAD_CLIENT: ("client", "text or a number"),
    codes.BAD_TIME: ("time", "ISO 8601 or seconds since 1970, up to the year 9999"),
    codes.BAD_CONFIDENCE: ("confidence", "a probability from 0 to 1"),
    codes.BAD_INPUTS: ("inputs", "a list of finite numbers"),
    codes.BAD_LABEL: ("label", "1, 0, true or false"),
}
KINDS = {
    codes.NO_CLIENT: "no client and no session",
    codes.BAD_CLIENT: "client",
    codes.NO_TIME: "no time",
    codes.BAD_TIME: "time",
    codes.BAD_CONFIDENCE: "confidence",
    codes.BAD_INPUTS: "inputs",
    codes.BAD_LABEL: "label",
    codes.BAD_LENGTH: "inputs of an unusual length",
}
NOT_JSON = "not a JSON object"
UNREADABLE = "unreadable line"
BAD_TASK = "task or event of the feature JSON"


@dataclass(frozen=True)
class Counts:
    """What became of the lines: ``read = events + duplicates + skipped + rejects``."""

    read: int
    events: int
    duplicates: int
    skipped: int
    rejects: int


@dataclass(frozen=True)
class Reject:
    """A line that is no valid query: its file, its number (``task#step`` in feature JSON) and a sentence."""

    file: str
    line: int | str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class RejectList:
    """Counts rejects, keeps the first thousand and writes all to a file that appears once it is whole."""

    def __init__(self, path: Path | None) -> None:
        self.kept: list[Reject] = []
        self.kinds: Counter[str] = Counter()
        path = path.resolve() if path else None  # a link stays, what it points to is replaced
        if path and path.exists() and not path.is_file():
            raise ConfigError(f"{path}: no plain file, and rejects replace the whole file; choose another --rejects.")
        self._path = path
        self._open = ExitStack()
        self._file: IO[str] | None = None
        self.whole = False  # all lines were read: the file stays, whatever is wrong with the log

    def __enter__(self) -> Self:
        if self._path:
            with self._told():
                partial = self._open.enter_context(replacing(self._path))
                self._file = self._open.enter_context(partial.open("w", encoding="utf-8", errors="backslashreplace"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told() if kind is None else suppress(OSError):
            self._open.__exit__(*(None, None, None) if self.whole else (kind, error, trace))

    def add(self, file: str, line: int | str, reason: str, kind: str) -> None:
        """Keep one reject.

        Raises:
            OutputError: the file cannot be written.
        """
        self.kinds[kind] += 1
        if len(self.kept) < KEPT_REJECTS:
            self.kept.append(Reject(file, line, reason))
        if self._file:
            entry = {"file": file, "line": line, "reason": reason}
            with self._told():
                self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self._path}: the rejects cannot be written there ({error.strerror});"
                " free disk, or choose another --rejects."
            ) from error


def explain(problem: int, found: Callable[[str], Any]) -> str:
    """Why a line was rejected, in a sentence; ``found`` gives the value of one of our fields."""
    if problem == codes.NO_CLIENT:
        return "fields 'client' and 'session' are both missing, expected at least one; check the field mapping"
    if problem == codes.NO_TIME:
        return "field 'time' is missing, expected the time of the query; check the field mapping"
    name, expected = EXPECTED[problem]
    described = _describe(name, found(name))
    instead = ", or for categories set words = true there" if described.endswith(" is text") else ""
    if name == "inputs" and described == "an object":
        instead = ", where a path that ends in .* takes an object's fields"
    return f"field '{name}' is {described}, expected {expected}; check the field mapping{instead}"


def explain_line(problem: int, text: str, fields: FieldMap) -> tuple[str, str]:
    """Kind of reject and sentence for a JSON line."""
    try:
        event = json.loads(text)
    except json.JSONDecodeError as error:
        what = f"{error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')} at column {error.colno}"
    except RecursionError:
        what = "it is nested too deeply"
    except ValueError as error:  # a number of more digits than Python takes
        what = str(error)
    else:
        if isinstance(event, dict):
            return KINDS[problem], explain(problem, lambda name: fields.find(event, name))
        return NOT_JSON, f"the line is {kind_of(event)}, expected a JSON object; repair or drop it"
    return NOT_JSON, f"the line is not JSON ({what}), expected one object; repair or drop it"


def explain_length(model: str, length: int, usual: int) -> str:
    """Why an input vector of an unusual length was rejected."""
    of_model = f" of model '{model}'" if model else ""
    usually = f"expected the {usual} that queries{of_model} usually have"
    return f"field 'inputs' has {counted(length, 'value')}, {usually}; drop the line"


def explain_longest(length: int, longest: int) -> str:
    """Why an input vector that is longer than the detector can take was rejected."""
    return (
        f"field 'inputs' has {counted(length, 'value')}, expected at most the {longest} of the models it learned from"
    )


def explain_need(field: str) -> str:
    """Why a query without what the detector needs was rejected."""
    return f"field '{field}' is missing, and this detector was trained without gaps; drop the line, or train another"


def kind_of(value: Any) -> str:
    """What sort of value it is, without a word of what it holds: rejects are passed on, and a log is private.

    >>> kind_of(1.7), kind_of("alice"), kind_of([1.0, None]), kind_of({"ssn": 1})
    ('a number', 'text', 'a list of 2 values', 'an object')
    """
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        if not is_finite(value):
            return "not finite"
        return "a negative number" if value < 0 else "a number"
    if isinstance(value, str):
        return "text" if value else "empty"
    if isinstance(value, list | tuple):
        return f"a list of {counted(len(value), 'value')}"
    if isinstance(value, dict):
        return "an object"
    return "null" if value is None else "no number and no text"


def is_finite(number: int | float) -> bool:
    """Whether a double holds it; JSON spells whole numbers that none does.

    >>> is_finite(10**308), is_finite(10**400), is_finite(float("nan"))
    (True, False, False)
    """
    return abs(number) <= sys.float_info.max


def _describe(name: str, value: Any) -> str:
    """The kind of a field's value, and what is wrong with it where that does not show."""
    if name == "confidence":
        number = _as_number(value)
        return "a number above 1" if isinstance(number, int | float) and 1 < number < math.inf else kind_of(number)
    if name == "inputs" and isinstance(value, str):
        with suppress(ValueError, RecursionError):  # a table's list is a text
            value = json.loads(value)
    if name == "inputs" and isinstance(value, list | tuple):
        kinds = [kind_of(_as_number(one)) for one in value]
        wrong = [at for at, kind in enumerate(kinds) if kind not in ("a number", "a negative number")]
        return kind_of(value) + (f", of which value {wrong[0] + 1} is {kinds[wrong[0]]}" if wrong else "")
    return kind_of(value)


def _as_number(value: Any) -> Any:
    """The number that a table's text is, if it is one."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
