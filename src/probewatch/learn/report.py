"""A report folder: ``metrics.json``, ``predictions.csv`` and one page to look at, ``index.html``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.artefacts import replacing
from probewatch.data.cells import guard_cell
from probewatch.errors import DataError, OutputError
from probewatch.learn.contest import OURS
from probewatch.learn.page import Scored, render

REQUIRED = ("session", "client", "label", "score", "split")
RIVAL_PREFIX = "score_"
"""Prediction columns that hold a rival's scores: the prefix and the rival's name."""


def write_report(
    folder: Path | str,
    *,
    metrics: Mapping[str, Any],
    predictions: Mapping[str, Sequence[Any] | NDArray[Any]],
    history: Sequence[Mapping[str, Any]] | None,
    title: str,
) -> None:
    """Write the three files of a report; each appears whole or not at all, ``index.html`` last.

    The same arguments give the same bytes.

    Args:
        folder: made if it is not there.
        metrics: as of :func:`probewatch.learn.evaluate.evaluate`, with any further keys; ``rivals``, ``finished``,
            ``views``, ``notes`` (sentences shown on top) and ``max_fpr`` (the threshold's budget) are shown too.
        predictions: columns of S entries: ``session``, ``client``, ``label`` (1, 0, or -1 unknown),
            ``score``, ``split``; optionally ``family``, ``model``, ``first_alert`` (event number, 0 = never),
            ``allowed`` (bool) and rivals' scores as ``score_NAME``. Curves are drawn from the rows of
            split "test" (all, if none is) with a label, less the allowed.
        history: ``epoch``, ``train_loss`` and ``valid_loss`` of each epoch; None leaves the curves out.
        title: of the page, plain text.

    Raises:
        DataError: a column of predictions is missing or of another length.
        OutputError: the folder cannot be written.
    """
    columns = _columns(predictions)
    plain = _plain(metrics)
    files = {
        "metrics.json": json.dumps(plain, indent=2, allow_nan=False) + "\n",
        "predictions.csv": _csv(columns),
        "index.html": render(plain, _scored(columns), history, title),
    }
    try:
        _replace(Path(folder), files)
    except OSError as error:
        raise OutputError(
            f"{folder}: the report cannot be written there ({error.strerror}); free disk, or name another folder."
        ) from error


def _columns(predictions: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Plain Python values, the required columns first."""
    missing = [name for name in REQUIRED if name not in predictions]
    if missing:
        raise DataError(f"predictions lack {', '.join(missing)}; expected at least {', '.join(REQUIRED)}.")
    order = [*REQUIRED, *(name for name in predictions if name not in REQUIRED)]
    columns = {name: list(np.asarray(predictions[name], object)) for name in order}
    for name, column in columns.items():
        if len(column) != len(columns["score"]):
            raise DataError(f"predictions: {name} has {len(column)} rows, score has {len(columns['score'])}.")
    return columns


def _scored(columns: Mapping[str, list[Any]]) -> Scored:
    label = np.array(columns["label"], np.int64)
    split = np.array([value == "test" for value in columns["split"]], bool)
    chosen = (label >= 0) & (split if np.any(split) else True)
    if "allowed" in columns:
        chosen &= ~np.array(columns["allowed"], bool)
    scores = {OURS: columns["score"]}
    for name, column in columns.items():
        if name.startswith(RIVAL_PREFIX):
            scores[name.removeprefix(RIVAL_PREFIX)] = column
    return Scored(
        label=label[chosen],
        scores={name: np.array(column, np.float64)[chosen] for name, column in scores.items()},
        first_alert=np.array(columns["first_alert"], np.int64)[chosen] if "first_alert" in columns else None,
    )


def _csv(columns: Mapping[str, list[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    unknown = {"label": -1}
    for row in zip(*columns.values(), strict=True):
        cells = zip(columns, row, strict=True)
        writer.writerow("" if unknown.get(name) == value else _cell(value) for name, value in cells)
    return file.getvalue()


def _cell(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, int | float) else guard_cell(str(value))


def _plain(value: Any) -> Any:
    """JSON's own types; a number that is not finite becomes None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(folder: Path, files: Mapping[str, str]) -> None:
    """All files are complete before the first takes its place, and the last of them takes it last."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as places:
        for name, text in reversed(list(files.items())):
            partial = places.enter_context(replacing(folder / name))
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))  # a log can hold half a surrogate pair
