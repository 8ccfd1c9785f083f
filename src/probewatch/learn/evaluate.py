"""From labels and scores to the figures of ``metrics.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as standard

from probewatch.errors import DataError
from probewatch.learn.intervals import intervals_of
from probewatch.learn.probabilities import both_classes, probability_metrics
from probewatch.learn.threshold import silent_score, supports

BUDGETS = (0.01, 0.001)
"""False-positive rates at which the true-positive rate is reported."""

Metrics = dict[str, Any]


@dataclass(frozen=True)
class _Rows:
    """What is known of S test sessions, one entry each."""

    label: NDArray[np.int64]  # (S,) 1 attack, 0 benign
    score: NDArray[np.float64]  # (S,) high = attack
    client: NDArray[np.int64]  # (S,) code of the client, in the order of their names
    actor: NDArray[np.int64]  # (S,) code of who is behind it, likewise
    family: NDArray[Any] | None
    first_alert: NDArray[np.int64] | None
    loss: float | NDArray[np.float64] | None

    def take(self, kept: NDArray[np.bool_]) -> _Rows:
        return _Rows(
            label=self.label[kept],
            score=self.score[kept],
            client=self.client[kept],
            actor=self.actor[kept],
            family=None if self.family is None else self.family[kept],
            first_alert=None if self.first_alert is None else self.first_alert[kept],
            loss=self.loss[kept] if isinstance(self.loss, np.ndarray) else self.loss,
        )


def evaluate(
    label: NDArray[Any],
    score: NDArray[Any],
    *,
    threshold: float,
    client: NDArray[Any],
    actor: NDArray[Any] | None = None,
    family: NDArray[Any] | None = None,
    first_alert: NDArray[Any] | None = None,
    loss: float | NDArray[Any] | None = None,
    allowed: NDArray[Any] | None = None,
    other: NDArray[Any] | None = None,
    probabilities: bool = True,
    prior: float | None = None,
    intervals: bool = True,
    seed: int = 0,
) -> Metrics:
    """All figures of a test, as plain JSON values: what cannot be told from these sessions is None.

    >>> figures = evaluate(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]), threshold=0.5,
    ...                    client=np.array(["a", "b", "c", "d"]))
    >>> figures["roc_auc"], figures["tpr_at_threshold"], figures["confusion_matrix"]
    (0.75, 0.5, [[1, 1], [1, 1]])

    Args:
        label: (S,) 1 attack, 0 benign; of allow-listed sessions it does not matter.
        score: (S,) finite; high = attack. A session is alerted if its score is at or above ``threshold``.
        client: (S,) names; intervals are over whole clients,
        actor: (S,) or over these, where one is behind several.
        family: (S,) names of the attack or benign use, "" where unknown.
        first_alert: (S,) number of the event, from 1, at which the threshold was first crossed, 0 = never.
        loss: the mean loss, or one (S,) a session, where it is known better than from the scores.
        allowed: (S,) bool; allow-listed sessions count in no figure but ``allowed``.
        other: (S,) bool; attacks on something else than membership count in no figure but ``other_attacks``.
        probabilities: False if scores are not probabilities; loss, Brier score and calibration are then None.
        prior: the share of attacks at which scores are meant as probabilities: loss, Brier score and calibration
            weigh attacks and benign sessions so that attacks have it, since the scores cannot be right at another.
            None leaves the test's own share. No other figure depends on it.
        intervals: False saves the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``n``, ``n_clients``, ``n_attacks``, ``n_benign``, ``prevalence``, ``threshold``; ``loss``, ``brier``,
        ``calibration`` {predicted, observed}, at ``probability_share`` of attacks; ``accuracy``,
        ``balanced_accuracy``, ``precision``, ``recall``, ``f1`` (of attacks), ``per_class``, ``confusion_matrix``
        [[TN, FP], [FN, TP]], ``tpr_at_threshold``, ``fpr_at_threshold``; ``roc_auc``, ``average_precision``,
        ``tpr_at_fpr_0.01``, ``tpr_at_fpr_0.001``;
        ``families`` name to {n, rate, malicious}; ``delay`` {median, p90} in events over all attacks, None
        for never (``delay`` itself is None without ``first_alert``); ``intervals`` name to [low, high] at
        95 %, None where a figure has none (:mod:`probewatch.learn.intervals`); ``allowed`` {n, rate};
        ``other_attacks`` {n, rate, families}. A rate is the share alerted.

    Raises:
        DataError: columns of different lengths, a label that is not 0 or 1, a score that is not finite or, if
            ``probabilities``, outside 0 to 1.
    """
    columns = [label, client, actor, family, first_alert, loss, allowed, other]
    names = ["label", "client", "actor", "family", "first_alert", "loss", "allowed", "other"]
    _check_lengths(len(score), dict(zip(names, columns, strict=True)))
    rows = _rows(label, score, client, client if actor is None else actor, family, first_alert, loss)
    _check_scores(rows.score, probabilities)
    beside = np.zeros(len(rows.label), bool) if other is None else np.asarray(other).astype(bool)
    listed = np.zeros(len(rows.label), bool) if allowed is None else np.asarray(allowed).astype(bool) & ~beside
    others, allowed_score = rows.take(beside), rows.score[listed]
    rows = rows.take(~listed & ~beside)
    unlabelled = int(np.sum((rows.label != 0) & (rows.label != 1)))
    if unlabelled:
        raise DataError(f"{unlabelled} of {len(rows.label)} labels are not 0 or 1; leave those sessions out.")
    metrics = {
        **_counts(rows),
        "threshold": float(threshold),
        **probability_metrics(rows.label, rows.score, rows.loss, prior, known=probabilities),
        **_alert_metrics(rows, threshold),
        **_ranking_metrics(rows),
        "families": _families(rows, threshold),
        "delay": None if rows.first_alert is None else _delay(rows.first_alert[rows.label == 1]),
        "allowed": {"n": len(allowed_score), "rate": _share(allowed_score >= threshold)},
        "other_attacks": {**_alerted(others, threshold), "families": _other_families(others, threshold)},
    }
    metrics["intervals"] = {}
    if intervals and metrics["n"]:
        metrics["intervals"] = intervals_of(metrics, rows.label, rows.score, rows.actor, threshold, seed=seed)
    return metrics


def _rows(label: Any, score: Any, client: Any, actor: Any, family: Any, first_alert: Any, loss: Any) -> _Rows:
    return _Rows(
        label=np.asarray(label).astype(np.int64),
        score=np.asarray(score).astype(np.float64),
        client=np.unique(_names(client), return_inverse=True)[1].reshape(-1),
        actor=np.unique(_names(actor), return_inverse=True)[1].reshape(-1),
        family=None if family is None else _names(family),
        first_alert=None if first_alert is None else np.asarray(first_alert).astype(np.int64),
        loss=np.asarray(loss).astype(np.float64) if np.ndim(loss) else loss,
    )


def _names(column: Any) -> NDArray[Any]:
    """Python strings: NumPy's own would drop trailing NULs and give every row the room of the longest."""
    names = np.empty(len(column), object)
    names[:] = [str(name) for name in column]
    return names


def _check_lengths(sessions: int, columns: dict[str, Any]) -> None:
    for name, column in columns.items():
        if np.ndim(column) > 0 and len(column) != sessions:
            raise DataError(f"{name} has {len(column)} entries, expected one for each of {sessions} scores.")


def _check_scores(score: NDArray[np.float64], probabilities: bool) -> None:
    if not np.all(np.isfinite(score)):
        raise DataError(f"{int(np.sum(~np.isfinite(score)))} of {len(score)} scores are not finite numbers.")
    if probabilities and len(score) and (score.min() < 0 or score.max() > 1):
        raise DataError(f"scores go from {score.min():g} to {score.max():g}, expected probabilities from 0 to 1.")


def _counts(rows: _Rows) -> Metrics:
    return {
        "n": len(rows.label),
        "n_clients": len(np.unique(rows.client)),
        "n_attacks": int(np.sum(rows.label == 1)),
        "n_benign": int(np.sum(rows.label == 0)),
        "prevalence": _share(rows.label == 1),
    }


def _alert_metrics(rows: _Rows, threshold: float) -> Metrics:
    label, alert = rows.label, (rows.score >= threshold).astype(np.int64)
    known, both = len(label) > 0, both_classes(label)
    per_class = _per_class(label, alert)
    table = standard.confusion_matrix(label, alert, labels=[0, 1]).tolist() if known else [[0, 0], [0, 0]]
    return {
        "accuracy": float(standard.accuracy_score(label, alert)) if known else None,
        "balanced_accuracy": float(standard.balanced_accuracy_score(label, alert)) if both else None,
        **{name: per_class["attack"][name] for name in ("precision", "recall", "f1")},
        "per_class": per_class,
        "confusion_matrix": table,
        "tpr_at_threshold": _share(alert[label == 1]),
        "fpr_at_threshold": _share(alert[label == 0]),
    }


def _per_class(label: NDArray[np.int64], alert: NDArray[np.int64]) -> dict[str, Metrics]:
    """Precision is 0 where nothing was given that class; all three are None where no session has it."""
    names = ("precision", "recall", "f1")
    per_class: dict[str, Metrics] = {}
    for code, name in enumerate(("benign", "attack")):
        support = int(np.sum(label == code))
        figures: list[float | None] = [None, None, None]
        if support:
            found = standard.precision_recall_fscore_support(label, alert, labels=[code], zero_division=0)
            figures = [float(figure[0]) for figure in found[:3]]
        per_class[name] = {**dict(zip(names, figures, strict=True)), "support": support}
    return per_class


def _ranking_metrics(rows: _Rows) -> Metrics:
    label, score = rows.label, rows.score
    both = both_classes(label)
    return {
        "roc_auc": float(standard.roc_auc_score(label, score)) if both else None,
        "average_precision": float(standard.average_precision_score(label, score)) if both else None,
        **{f"tpr_at_fpr_{budget:g}": tpr_at_fpr(label, score, budget) for budget in BUDGETS},
    }


def tpr_at_fpr(label: NDArray[Any], score: NDArray[Any], max_fpr: float) -> float | None:
    """The highest true-positive rate whose false-positive rate is not above ``max_fpr``.

    >>> tpr_at_fpr(np.repeat([0, 1], [4, 2]), np.array([0.1, 0.2, 0.3, 0.9, 0.5, 0.05]), 0.75)
    0.5

    Returns:
        None without attacks, or with fewer than 3 / ``max_fpr`` benign sessions.
    """
    attacks, benign = score[label == 1], score[label == 0]
    if not len(attacks) or not supports(len(benign), max_fpr):
        return None
    return _share(attacks > silent_score(benign, max_fpr))


def _families(rows: _Rows, threshold: float) -> Metrics:
    if rows.family is None or not np.any(rows.family != ""):
        return {}
    alert, families = rows.score >= threshold, {}
    for name in np.unique(rows.family):
        labels = np.unique(rows.label[rows.family == name])
        for label in labels:
            chosen = (rows.family == name) & (rows.label == label)
            suffix = {0: " (benign)", 1: " (attack)"}[int(label)] if len(labels) > 1 else ""
            families[f"{name or 'unnamed'}{suffix}"] = {
                "n": int(np.sum(chosen)),
                "rate": _share(alert[chosen]),
                "malicious": bool(label == 1),
            }
    return families


def _other_families(rows: _Rows, threshold: float) -> Metrics:
    if rows.family is None:
        return {}
    names = sorted({str(name) for name in rows.family})
    return {name or "unnamed": _alerted(rows.take(rows.family == name), threshold) for name in names}


def _alerted(rows: _Rows, threshold: float) -> Metrics:
    return {"n": len(rows.score), "rate": _share(rows.score >= threshold)}


def _delay(first_alert: NDArray[np.int64]) -> Metrics:
    """The median number of events until the alert, and the fewest by which nine tenths of all attacks had alerted.

    A missed attack never alerts. The median of an even number is the mean of the middle two, never if one of them is.
    """
    events = np.sort(np.where(first_alert > 0, first_alert, np.inf))
    if not len(events):
        return {"median": None, "p90": None}
    median, p90 = float(np.median(events)), float(events[-(-len(events) * 9 // 10) - 1])
    return {"median": _events(median), "p90": _events(p90)}


def _events(number: float) -> float | None:
    """A number of events, whole if it is; None for never."""
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def _share(chosen: NDArray[Any]) -> float | None:
    return float(np.mean(chosen)) if len(chosen) else None
