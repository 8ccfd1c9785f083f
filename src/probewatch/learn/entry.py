"""A detector's predictions against a part of the benchmark: whatever the detector, only its scores count."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.labels import VALUES, read_allow, read_labels
from probewatch.errors import ConfigError, DataError
from probewatch.learn.evaluate import Metrics, evaluate
from probewatch.learn.trial import RANKED

SHOWN_MISTAKES = 5
RUNGS = {
    "known attacks, known uses": (False, False),
    "new attacks, known uses": (True, False),
    "known attacks, new uses": (False, True),
    "new attacks, new uses": (True, True),
}
"""Which sessions of the test part are ranked against each other: are its attacks new, are its benign uses new?"""
COUNTED = ("n", "n_attacks", "n_benign", *RANKED)


@dataclass(frozen=True)
class Truth:
    """What is true of the S sessions of one part.

    Attributes:
        session: (S,) names, each once.
        actor: (S,) who is behind it; intervals resample them.
        attack: (S,) none, membership, extraction or evasion.
        family: (S,) of the attack or benign use.
        allowed: (S,) bool, of a client on the allow-list.
        new: (S,) bool, of a family that the train part does not have.
    """

    session: NDArray[np.object_]
    actor: NDArray[np.object_]
    attack: NDArray[np.object_]
    family: NDArray[np.object_]
    allowed: NDArray[np.bool_]
    new: NDArray[np.bool_]

    @property
    def label(self) -> NDArray[np.int64]:
        """(S,) 1 membership attack, 0 benign use; of other attacks it does not matter."""
        return np.asarray(self.attack == "membership", np.int64)

    @property
    def other(self) -> NDArray[np.bool_]:
        """(S,) bool, attacks on something else than membership."""
        return np.asarray((self.attack != "membership") & (self.attack != "none"), np.bool_)


def read_truth(benchmark: Path, part: str) -> Truth:
    """The truth of one part of a benchmark that ``probewatch corpus --benchmark`` wrote.

    Raises:
        ConfigError: the folder is no whole benchmark, or has no such part.
        LabelError: its labels are broken.
    """
    try:
        told = json.loads((benchmark / "manifest.json").read_text("utf-8"))
        new = {
            family
            for own in ("only_in_test", "only_in_further")
            for kind in ("attacks", "uses")
            for family in told[own][kind]
        }
        parts = list(told["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{benchmark}: no whole benchmark; write one with probewatch corpus --benchmark --out {benchmark}."
        ) from error
    if part not in parts:
        raise ConfigError(f"the part is {part!r}, expected one of: {', '.join(parts)}.")
    rows = read_labels(benchmark / part / "labels.csv").rows
    allow = read_allow(benchmark / part / "allow.txt")
    family = _objects([label.family for label in rows.values()])
    return Truth(
        session=_objects([session for session, _ in rows]),
        actor=_objects([label.actor for label in rows.values()]),
        attack=_objects([label.attack for label in rows.values()]),
        family=family,
        allowed=np.array([client in allow for _, client in rows], bool),
        new=np.array([name in new for name in family], bool),
    )


def read_predictions(path: Path, truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """(S,) scores in the truth's order, and (S,) alerts where the file has them.

    Args:
        path: CSV with the columns ``session`` and ``score`` (high = attack), and optionally ``alert`` (1, 0, true,
            false); others are passed over, so ``probewatch score --out predictions.csv`` writes one.

    Raises:
        DataError: the file cannot be read, lacks a column, or does not give each session one finite score.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            lacking = {"session", "score"} - set(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}.") from error
    if lacking:
        raise DataError(f"{path}:1: has no column {', '.join(sorted(lacking))}; expected session,score[,alert].")
    found, mistakes = _by_session(path, rows, set(truth.session))
    missing = [name for name in truth.session if name not in found]
    if missing and not mistakes:
        mistakes.append(f"{path}: has no score for {len(missing)} of {len(truth.session)} sessions, as {missing[0]}")
    if mistakes:
        more = f"; and {len(mistakes) - SHOWN_MISTAKES} more" if len(mistakes) > SHOWN_MISTAKES else ""
        raise DataError(f"{'; '.join(mistakes[:SHOWN_MISTAKES])}{more}.")
    score = np.array([found[name][0] for name in truth.session])
    alerts = [found[name][1] for name in truth.session]
    return score, None if None in alerts else np.array(alerts, bool)


def score_entry(
    truth: Truth, score: NDArray[np.float64], alert: NDArray[np.bool_] | None = None, *, intervals: bool = True
) -> dict[str, Any]:
    """All figures of an entry.

    Args:
        score: (S,) finite; high = attack.
        alert: (S,) bool, at a threshold that was chosen without this part; None leaves out what depends on it.
        intervals: False saves the bootstrap.

    Returns:
        The ranking figures of :func:`evaluate`, their ``intervals``, and ``rungs``, the same by :data:`RUNGS` where a
        part has what is new; with alerts also ``tpr_at_threshold``, ``fpr_at_threshold``, ``families``, ``allowed``
        and ``other_attacks``.
    """
    ranked = _evaluated(truth, score, np.inf, intervals)
    told: dict[str, Any] = {name: ranked[name] for name in COUNTED}
    told["intervals"] = {name: value for name, value in ranked["intervals"].items() if name in COUNTED}
    told["rungs"] = {}
    for name, (attacks, uses) in RUNGS.items():
        kept = (truth.new == np.where(truth.label == 1, attacks, uses)) & ~truth.other
        if truth.new.any() and kept.any():
            own = Truth(*(getattr(truth, column)[kept] for column in truth.__dataclass_fields__))
            found = _evaluated(own, score[kept], np.inf, False)
            told["rungs"][name] = {column: found[column] for column in COUNTED}
    if alert is not None:
        found = _evaluated(truth, alert.astype(np.float64), 0.5, False)
        names = ("tpr_at_threshold", "fpr_at_threshold", "families", "allowed", "other_attacks")
        told |= {name: found[name] for name in names}
    return told


def _evaluated(truth: Truth, score: NDArray[np.float64], threshold: float, intervals: bool) -> Metrics:
    return evaluate(
        truth.label, score, threshold=threshold, client=truth.actor, family=truth.family, allowed=truth.allowed,
        other=truth.other, probabilities=False, intervals=intervals,
    )  # fmt: skip


def _by_session(
    path: Path, rows: list[tuple[int, dict[str, str]]], known: set[str]
) -> tuple[Mapping[str, tuple[float, bool | None]], list[str]]:
    found: dict[str, tuple[float, bool | None]] = {}
    mistakes = []
    for line, row in rows:
        name, alert = row["session"], (row.get("alert") or "").strip().lower()
        try:
            score = float(row["score"])
        except ValueError:
            score = math.nan
        if name not in known:
            mistakes.append(f"{path}:{line}: {name!r} is no session of this part")
        elif name in found:
            mistakes.append(f"{path}:{line}: {name!r} has a second score")
        elif not math.isfinite(score):
            mistakes.append(f"{path}:{line}: score is {row['score']!r}, expected a finite number")
        elif alert and alert not in VALUES:
            mistakes.append(f"{path}:{line}: alert is {row['alert']!r}, expected 1, 0, true or false")
        else:
            found[name] = score, bool(VALUES[alert]) if alert else None
    return found, mistakes


def _objects(names: list[str]) -> NDArray[np.object_]:
    column = np.empty(len(names), object)
    column[:] = names
    return column
