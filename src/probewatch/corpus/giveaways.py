"""What would give an attack away without looking at what it asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.clock import DAY_S
from probewatch.corpus.events import Session
from probewatch.corpus.grid import Grid

GOAL = 0.70  # ROC AUC that must not be passed, nor 1 - GOAL the other way
FOLDS = 5
FEWEST_ACTORS = 10  # of a class, or nothing can be told
COLUMNS = ("length", "rate", "start_time", "start_hour", "off_grid_share")


def give_aways(sessions: Sequence[Session], grids: Mapping[str, Grid], allowed: set[str]) -> dict[str, Any]:
    """How well length, rate, start time and share of off-grid inputs together tell membership attacks from benign use.

    Gradient boosting on these, cross-validated so that no actor is in two parts; other attacks and allow-listed
    clients are left out, as in the headline figures.

    Returns:
        ``roc_auc`` (None with too few actors), ``goal``, ``holds`` (see :func:`tells`), the ``roc_auc_alone`` of each
        column, made to lie above 0.5, the ``roc_auc`` ``by_target`` of the sessions of each, and ``sessions``.
    """
    from sklearn.metrics import roc_auc_score

    counted = [one for one in sessions if one.attack in ("none", "membership") and one.client not in allowed]
    told: dict[str, Any] = {"columns": list(COLUMNS), "goal": GOAL, "sessions": len(counted)}
    label = np.array([one.attack == "membership" for one in counted], bool)
    actor = np.array([one.actor for one in counted])
    target = np.array([one.target for one in counted])
    table = np.array([_columns(one, grids[one.target]) for one in counted])
    together = _together(table, label, actor)
    if together is None:
        return {**told, "roc_auc": None, "holds": None, "roc_auc_alone": None, "by_target": {}}
    alone = {
        name: round(max(found := float(roc_auc_score(label, column)), 1.0 - found), 4)
        for name, column in zip(COLUMNS, table.T, strict=True)
    }
    parts = {name: target == name for name in sorted(set(target))}
    by_target = {name: _together(table[part], label[part], actor[part]) for name, part in parts.items()}
    return {
        **told, "roc_auc": together, "holds": not tells(together), "roc_auc_alone": alone, "by_target": by_target,
    }  # fmt: skip


def tells(auc: float | None) -> bool:
    """Whether attacks can be told at a cross-validated ROC AUC; None cannot be judged.

    A little below 0.5 is luck, as a little above. As far below as the goal lies above is not: what was learned of
    other actors is then wrong so often that its contrary tells attacks.

    >>> tells(0.71), tells(0.31), tells(0.29)
    (True, False, True)
    """
    return auc is not None and round(max(auc, 1.0 - auc), 4) > GOAL


def _together(table: NDArray[np.float64], label: NDArray[np.bool_], actor: NDArray[np.str_]) -> float | None:
    """ROC AUC of all columns together; None with too few actors."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    if min(len(set(actor[label])), len(set(actor[~label]))) < FEWEST_ACTORS:
        return None
    score = cross_val_predict(
        GradientBoostingClassifier(n_estimators=60, subsample=0.7, random_state=0),
        table, label, groups=actor, method="predict_proba",
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0),
    )[:, 1]  # fmt: skip
    return round(float(roc_auc_score(label, score)), 4)


def _columns(session: Session, grid: Grid) -> list[float]:
    lasts_s = max(float(session.time_s[-1] - session.time_s[0]), 1e-3)
    begins = float(session.time_s[0])
    rate = np.log(max(len(session) - 1, 1) / lasts_s)
    return [len(session), rate, begins, begins % DAY_S, _off_grid(session.inputs, grid)]


def _off_grid(inputs: NDArray[np.float64], grid: Grid) -> float:
    return float(np.mean(np.any(~np.isclose(grid.snap(inputs), inputs, rtol=1e-9, atol=1e-9), axis=1)))
