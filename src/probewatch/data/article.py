"""The article's feature JSON: one object of tasks, each with its label and its ready-made events."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from probewatch.data.lines import mend_halves
from probewatch.data.rejects import is_finite, kind_of
from probewatch.data.spool import EVENT
from probewatch.errors import LogError

CONFIDENCE, TIME_DELTA, DISTANCE = (
    "response_confidence",
    "time_delta_since_last_query",
    "distance_from_anchor_vector",
)
LABELS = {1: 1, 0: 0, "1": 1, "0": 0, "true": 1, "false": 0}


@dataclass(frozen=True)
class Task:
    """One task's events that hold, and the place and reason of each that does not."""

    columns: pa.Table
    rejected: list[tuple[str, str]]
    read: int


def looks_like_article(head: bytes) -> bool:
    """Whether a file's first bytes are those of the article's feature JSON, indented or not."""
    start = re.match(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{', head)
    return bool(start) and re.search(rb'"sequence"\s*:\s*\[', head) is not None


def read_tasks(path: Path, content: bytes, *, arrival: int) -> Iterator[Task]:
    """The tasks of a file, their events numbered from ``arrival``.

    Raises:
        LogError: the file is no such object.
    """
    try:
        tasks = json.loads(mend_halves(content))
    except (ValueError, RecursionError) as error:
        raise LogError(f"{path}: not the article's feature JSON ({error}); expected one object of tasks.") from error
    numeric = _numeric_columns(tasks)
    for name, task in tasks.items():
        found = _read_task(name, task, numeric, arrival)
        arrival += found.read
        yield found


def _numeric_columns(tasks: dict[str, Any]) -> list[str]:
    """Columns that hold a number wherever they hold anything, and the article's three wherever they are."""
    seen: dict[str, bool] = {}
    for task in tasks.values():
        sequence = task.get("sequence") if isinstance(task, dict) else None
        for event in sequence if isinstance(sequence, list) else []:
            for name, value in event.items() if isinstance(event, dict) else []:
                number = isinstance(value, (int, float)) or name in (CONFIDENCE, TIME_DELTA, DISTANCE)
                seen[name] = seen.get(name, True) and (number or value is None)
    return [name for name, numeric in seen.items() if numeric]


def _read_task(name: str, task: Any, numeric: list[str], arrival: int) -> Task:
    sequence = task.get("sequence") if isinstance(task, dict) else None
    label = task.get("is_malicious") if isinstance(task, dict) else None
    reason = ""
    if not isinstance(sequence, list):
        reason = f"task {name!r} has no list 'sequence', expected its events; drop the task"
    elif not sequence:
        reason = f"task {name!r} has no events, expected at least one; drop the task"
    elif label is not None and (not isinstance(label, (bool, int, str)) or label not in LABELS):
        reason = f"task {name!r} has {kind_of(label)} as is_malicious, expected true or false; correct the label"
    if reason or not isinstance(sequence, list):
        return Task(pa.table({}), [(f"{name}#0", reason)] * max(len(sequence or []), 1), max(len(sequence or []), 1))
    required = [column for column in (CONFIDENCE, TIME_DELTA, DISTANCE) if column in numeric]
    problems = [_problem(event, required) for event in sequence]
    rejected = [(f"{name}#{step}", problem) for step, problem in enumerate(problems) if problem]
    kept = [step for step, problem in enumerate(problems) if not problem]
    events = [sequence[step] for step in kept]
    time_s, clock = [], 0.0
    for event in events:
        clock += float(event.get(TIME_DELTA, 0.0))
        time_s.append(clock)
    given = {column: [_number(event.get(column)) for event in events] for column in numeric}
    columns = {
        "arrival": pa.array([arrival + step for step in kept], pa.int64()),
        "problem": pa.array([EVENT] * len(kept), pa.uint8()),
        **{key: pa.array([text] * len(kept), pa.string()) for key, text in _key(name).items()},
        "time_s": pa.array(time_s, pa.float64()),
        "confidence": pa.array(given.get(CONFIDENCE, [math.nan] * len(kept)), pa.float64()),
        "predicted": pa.array([-1] * len(kept), pa.int64()),
        "label": pa.array([LABELS.get(label, -1) if label is not None else -1] * len(kept), pa.int8()),
        **{f"given_{column}": pa.array(values, pa.float64()) for column, values in given.items()},
    }
    return Task(pa.table(columns), rejected, len(sequence))


def _key(name: str) -> dict[str, str]:
    return {"client": name, "session": name, "model": ""}


def _number(value: Any) -> float:
    return math.nan if value is None or not is_finite(value) else float(value)


def _problem(event: Any, required: list[str]) -> str:
    if not isinstance(event, dict):
        return f"the event is {kind_of(event)}, expected an object of numbers; drop it"
    for name in required:
        value = event.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite(value):
            return f"field {name!r} is {kind_of(value)}, expected a finite number; correct or drop the event"
    if CONFIDENCE in required and not 0 <= event[CONFIDENCE] <= 1:
        return f"field {CONFIDENCE!r} is below 0 or above 1, expected a probability; drop the event"
    if TIME_DELTA in required and event[TIME_DELTA] < 0:
        return f"field {TIME_DELTA!r} is a negative number, expected seconds of at least 0; drop the event"
    return ""
