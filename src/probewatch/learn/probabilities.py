"""How good scores are as probabilities, at a share of attacks that may be another than the test's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as standard


def probability_metrics(
    label: NDArray[np.int64],
    score: NDArray[np.float64],
    loss: float | NDArray[np.float64] | None,
    prior: float | None,
    *,
    known: bool = True,
) -> dict[str, Any]:
    """Log loss, Brier score and calibration of scores that are probabilities where a share ``prior`` attacks.

    Such scores cannot be right at another share, so attacks and benign sessions are weighed to have that one.

    Args:
        label: (S,) 1 attack, 0 benign.
        score: (S,) 0 to 1; high = attack.
        loss: the mean loss, or one (S,) a session, where it is known better than from the scores; None where not.
        prior: above 0 and below 1; None takes the test's own share, and all sessions count alike.
        known: False if scores are no probabilities.

    Returns:
        ``loss``, ``brier``, ``calibration`` {predicted, observed}, None where they cannot be told, and
        ``probability_share``, the share of attacks that they are at.
    """
    both = both_classes(label)
    known = known and len(label) > 0 and (prior is None or both)
    weight = _weights(label, prior if known else None)
    mean = None
    if loss is not None and len(label):
        mean = float(np.average(loss, weights=weight) if isinstance(loss, np.ndarray) else loss)
    elif known:
        mean = float(standard.log_loss(label, score, labels=[0, 1], sample_weight=weight))
    own = float(np.mean(label)) if len(label) else None
    return {
        "loss": mean if mean is not None and math.isfinite(mean) else None,
        "brier": float(standard.brier_score_loss(label, score, pos_label=1, sample_weight=weight)) if known else None,
        "calibration": _calibration(label, score, weight) if known and both else None,
        "probability_share": own if prior is None else prior,
    }


def both_classes(label: NDArray[Any]) -> bool:
    """Whether (S,) labels have attacks and benign sessions."""
    return bool(np.any(label == 0) and np.any(label == 1))


def _weights(label: NDArray[np.int64], prior: float | None) -> NDArray[np.float64]:
    """(S,) what each session counts, so that attacks have the share ``prior``; all alike where it is None."""
    if prior is None:
        return np.ones(len(label))
    share = float(np.mean(label))
    return np.where(label == 1, prior / share, (1 - prior) / (1 - share))


def _calibration(
    label: NDArray[np.int64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> dict[str, list[float]]:
    """The weighted mean score and share of attacks of each tenth of the sessions, by score.

    With equal weights it is scikit-learn's ``calibration_curve`` by quantiles, which takes no weights.
    """
    inner = np.percentile(score, np.linspace(0, 100, 11))[1:-1]
    tenth = np.searchsorted(inner, score)  # (S,)
    total, scores, attacks = (np.bincount(tenth, weights, 10) for weights in (weight, weight * score, weight * label))
    there = total > 0
    return {
        "predicted": (scores[there] / total[there]).tolist(),
        "observed": (attacks[there] / total[there]).tolist(),
    }
