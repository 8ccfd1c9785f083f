"""Labels: which sessions or clients are attacks, and the clients that are allowed to look like one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.records import UNKNOWN
from probewatch.data.wording import counted, listed
from probewatch.errors import LabelError

Names = Sequence[str] | NDArray[np.object_]
VALUES = {"1": 1, "true": 1, "0": 0, "false": 0}
DELIMITERS = ",;\t|"
COUNTED = ("none", "membership")
"""Kinds of attack that count in detection figures; others have their own row."""
ELSEWHERE = ("extraction", "evasion")
"""Attacks on something else, which a file may or may not call malicious."""


class Label(NamedTuple):
    """1 attack or 0 benign; family, attacked model, kind of attack and actor, "" where the file does not tell."""

    label: int
    family: str
    target: str
    attack: str = ""
    actor: str = ""

    def __str__(self) -> str:
        return f"{self.label} ({self.attack})" if self.attack else str(self.label)

    @property
    def other(self) -> bool:
        """Whether it is an attack on something else than membership."""
        return self.attack not in ("", *COUNTED)


@dataclass(frozen=True)
class Matched:
    """Labels of S sessions.

    Attributes:
        label: (S,) int8, 1 membership attack, 0 benign, -1 without a label or another attack.
        family, target, attack, actor: (S,) str objects, "" where unknown.
        other: (S,) bool, attacks on something else than membership.
        warnings: sentences about labels without a session and sessions without a label.
    """

    label: NDArray[np.int8]
    family: NDArray[np.object_]
    target: NDArray[np.object_]
    attack: NDArray[np.object_]
    actor: NDArray[np.object_]
    other: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """Labels by session or by client.

    Attributes:
        path: their file or files.
        rows: (session, client) to label; "" for the one that the file does not name.
    """

    path: str
    rows: Mapping[tuple[str, str], Label]

    def __len__(self) -> int:
        return len(self.rows)

    def match(self, sessions: Names, clients: Names) -> Matched:
        """The labels of these sessions ((S,) ids and (S,) clients).

        A session's own label comes before its client's. Where the file names session and client, the
        pair counts; the session's id alone does where it has one label only.
        """
        by_session: dict[str, Label | None] = {}
        for (session, _), label in self.rows.items():
            same = by_session.setdefault(session, label)
            by_session[session] = label if same == label else None
        by_session.pop("", None)
        used: set[tuple[str, str] | str] = set()
        found: list[Label | None] = []
        for session, client in zip(sessions, clients, strict=True):
            keys = ((session, client), (session, ""), ("", client))
            exact = next((key for key in keys if key in self.rows), None)
            found.append(self.rows[exact] if exact else by_session.get(session))
            used.add(exact or session)
        unused = [session or client for session, client in self.rows if not used & {(session, client), session or None}]
        without = [str(session) for session, label in zip(sessions, found, strict=True) if label is None]
        warnings = []
        if unused:
            of_all = f"{len(unused):,} of {counted(len(self.rows), 'label')} {'names' if len(unused) == 1 else 'name'}"
            warnings.append(f"{self.path}: {of_all} no session of the log, as {unused[0]!r}.")
        if without:
            of_all = f"{len(without):,} of {counted(len(found), 'session')} {'has' if len(without) == 1 else 'have'}"
            warnings.append(f"{self.path}: {of_all} no label, as {without[0]!r}.")
        return Matched(
            label=np.array([label.label if label and not label.other else UNKNOWN for label in found], np.int8),
            **{
                name: np.array([getattr(label, name) if label else "" for label in found], object)
                for name in ("family", "target", "attack", "actor")
            },
            other=np.array([label is not None and label.other for label in found], bool),
            warnings=tuple(warnings),
        )


def read_labels(*paths: Path | str) -> Labels:
    """Read CSV files of ``task_id`` or ``client``, ``is_malicious`` (1, 0, true, false), and optionally more.

    Optional columns: ``family``, ``target``, ``attack`` (none where ``is_malicious`` is 0, membership where it is 1;
    extraction and evasion with either, other names with 1) and ``actor``, whose clients stay together when sessions
    are split.

    Raises:
        LabelError: a file cannot be read, lacks a column, or has wrong or contradicting rows; all are named.
    """
    rows: dict[tuple[str, str], Label] = {}
    places: dict[tuple[str, str], str] = {}
    for path in paths:
        _read_file(path, rows, places)
    return Labels(", ".join(map(str, paths)), rows)


def _read_file(path: Path | str, rows: dict[tuple[str, str], Label], places: dict[tuple[str, str], str]) -> None:
    lines = _read_lines(path)
    header = lines[0] if lines else ""
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True, restval="")
    try:
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        missing = [] if {"task_id", "session", "client"} & set(columns) else ["'task_id' or 'client'"]
        missing += [] if "is_malicious" in columns else ["'is_malicious'"]
        if missing:
            raise LabelError(
                f"{path}:1: the header is {header[:80]!r}, expected {' and '.join(missing)} in it; name the columns."
            )
        mistakes = _read_rows(reader, str(path), rows, places)
    except csv.Error as error:
        raise LabelError(f"{path}:{reader.line_num}: not CSV ({error}); expected one label a line.") from error
    if mistakes:
        raise LabelError(f"{listed(mistakes, joint='; ')}.")


def _read_rows(
    reader: csv.DictReader[str], path: str, rows: dict[tuple[str, str], Label], places: dict[tuple[str, str], str]
) -> list[str]:
    """Adds the labels to ``rows`` and where they stand to ``places``; returns the mistakes."""
    mistakes, row = [], None
    for row in reader:
        where = f"{path}:{reader.line_num}"
        text = {name: value.strip() for name, value in row.items() if isinstance(value, str)}
        key = (text.get("task_id") or text.get("session") or "", text.get("client", ""))
        value = text.get("is_malicious", "")
        if None in row:
            mistakes.append(f"{where}: has {len(row) - 1 + len(row[None])} values, expected {len(row) - 1}")
        elif key == ("", ""):
            mistakes.append(f"{where}: names no session and no client, expected one")
        elif value.lower() not in VALUES:
            mistakes.append(f"{where}: is_malicious is {value!r}, expected 1, 0, true or false")
        else:
            more = {name: text.get(name, "") for name in ("family", "target", "attack", "actor")}
            label = Label(VALUES[value.lower()], **{**more, "attack": more["attack"].lower()})
            if label.attack not in ("", *ELSEWHERE) and label.label != (label.attack != "none"):
                mistakes.append(f"{where}: is_malicious is {label.label}, but attack is {label.attack!r}")
            known = rows.get(key, label)
            if (known.label, known.other) != (label.label, label.other):
                mistakes.append(f"{where}: {key[0] or key[1]!r} is {label}, but {known} at {places[key]}")
            rows.setdefault(key, label)
            places.setdefault(key, where)
    return mistakes if row is not None else [f"{path}: holds no labels, expected one a line"]


def read_allow(*paths: Path | str) -> frozenset[str]:
    """Read the clients that are known to rescore training customers, one a line.

    Raises:
        LabelError: a file cannot be read.
    """
    return frozenset(line.strip() for path in paths for line in _read_lines(path)) - {""}


def _read_lines(path: Path | str) -> list[str]:
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file.") from error
    if "\0" in text:
        raise LabelError(f"{path}: holds NUL bytes, expected text; give another file.")
    return text.split("\n")  # splitlines also cuts at characters that a name may hold
