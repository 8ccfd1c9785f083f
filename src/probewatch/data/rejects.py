"""Counts, rejects and the sentences that say why a line was rejected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from probewatch.data import spool as codes
from probewatch.data.fields import FieldMap
from probewatch.errors import LogError

KEPT_REJECTS = 1000
SHOWN_CHARACTERS = 60

EXPECTED = {
    codes.BAD_CLIENT: ("client", "text or a number"),
    codes.BAD_TIME: ("time", "ISO 8601 or a number of seconds since 1970"),
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
            raise LogError(f"{path}: no plain file, and rejects replace the whole file; choose another --rejects.")
        self._path = path
        self._partial = Path(f"{path}.partial") if path else None
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._partial:
            try:
                self._file = self._partial.open("w", encoding="utf-8")
            except OSError as error:
                raise LogError(f"{self._path}: rejects cannot be written ({error.strerror}).") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file and self._partial and self._path:
            self._file.close()
            if kind is None:
                self._partial.replace(self._path)
            else:
                self._partial.unlink(missing_ok=True)

    def add(self, file: str, line: int | str, reason: str, kind: str) -> None:
        """Keep one reject."""
        self.kinds[kind] += 1
        if len(self.kept) < KEPT_REJECTS:
            self.kept.append(Reject(file, line, reason))
        if self._file:
            entry = {"file": file, "line": line, "reason": reason}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def explain(problem: int, found: Callable[[str], Any]) -> str:
    """Why a line was rejected, in a sentence; ``found`` gives the value of one of our fields."""
    if problem == codes.NO_CLIENT:
        return "fields 'client' and 'session' are both missing, expected at least one; check the field mapping"
    if problem == codes.NO_TIME:
        return "field 'time' is missing, expected the time of the query; check the field mapping"
    name, expected = EXPECTED[problem]
    return f"field '{name}' is {_shorten(found(name))}, expected {expected}; check the field mapping"


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
        return NOT_JSON, f"the line is {_shorten(event)}, expected a JSON object; repair or drop it"
    return NOT_JSON, f"the line is not JSON ({what}), expected one object; repair or drop it"


def explain_length(model: str, length: int, usual: int) -> str:
    """Why an input vector of an unusual length was rejected."""
    of_model = f" of model '{model}'" if model else ""
    usually = f"expected the {usual} that queries{of_model} usually have"
    return f"field 'inputs' has {length} values, {usually}; drop the line"


def _shorten(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = str(type(value).__name__)
    text = text[:SHOWN_CHARACTERS] + "…" if len(text) > SHOWN_CHARACTERS else text
    return text if text.isprintable() else text.encode("unicode_escape").decode()
