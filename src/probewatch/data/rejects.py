"""Counts, rejects and the sentences that say why a line was rejected."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from probewatch.data import spool as codes
from probewatch.errors import LogError

KEPT_REJECTS = 1000
SHOWN_CHARACTERS = 60
EXPLAINED_CHARACTERS = 1 << 16

EXPECTED = {
    codes.BAD_CLIENT: ("client", "text or a number"),
    codes.BAD_TIME: ("time", "ISO 8601 or a number of seconds since 1970"),
    codes.BAD_CONFIDENCE: ("confidence", "a probability from 0 to 1"),
    codes.BAD_INPUTS: ("inputs", "a list of finite numbers"),
    codes.BAD_LABEL: ("label", "1, 0, true or false"),
}
KINDS = {
    codes.BROKEN: "not JSON",
    codes.NOT_OBJECT: "not an object",
    codes.NO_CLIENT: "no client and no session",
    codes.BAD_CLIENT: "client",
    codes.NO_TIME: "no time",
    codes.BAD_TIME: "time",
    codes.BAD_CONFIDENCE: "confidence",
    codes.BAD_INPUTS: "inputs",
    codes.BAD_LABEL: "label",
    codes.BAD_LENGTH: "inputs of an unusual length",
}
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
            json.dump({"file": file, "line": line, "reason": reason}, self._file, ensure_ascii=False)
            self._file.write("\n")


def explain(problem: int, found: str | None, text: str | None) -> str:
    """Why a line was rejected, in a sentence.

    Args:
        problem: the spool's code.
        found: the value that is wrong.
        text: the line, for one that is not JSON.
    """
    if problem == codes.BROKEN:
        return f"the line is not JSON ({_explain_json(text or '')}), expected one object; repair or drop it"
    if problem == codes.NOT_OBJECT:
        return f"the line is {_shorten((text or '').strip())}, expected a JSON object; repair or drop it"
    if problem == codes.NO_CLIENT:
        return "fields 'client' and 'session' are both missing, expected at least one; check the field mapping"
    if problem == codes.NO_TIME:
        return "field 'time' is missing, expected the time of the query; check the field mapping"
    name, expected = EXPECTED[problem]
    return f"field '{name}' is {_shorten(found or '')}, expected {expected}; check the field mapping"


def explain_length(model: str, length: int, usual: int) -> str:
    """Why an input vector of an unusual length was rejected."""
    of_model = f" of model '{model}'" if model else ""
    return f"field 'inputs' has {length} values, expected the {usual} that queries{of_model} usually have; drop the line"


def _shorten(value: str) -> str:
    value = value.encode("unicode_escape").decode() if not value.isprintable() else value
    return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"


def _explain_json(text: str) -> str:
    try:
        json.loads(text.rstrip()[:EXPLAINED_CHARACTERS])
    except json.JSONDecodeError as error:
        return f"{error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')} at column {error.colno}"
    except RecursionError:
        return "it is nested too deeply"
    return "malformed"
