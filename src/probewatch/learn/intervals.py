"""Intervals of the figures of a test: by resampling, and at 0 and 1, where resamples do not vary, by other means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from probewatch.learn.bootstrap import COVERAGE, NEEDS, client_intervals

Interval = list[float]


def intervals_of(
    figures: Mapping[str, Any],
    label: NDArray[np.int64],
    score: NDArray[np.float64],
    actor: NDArray[np.int64],
    threshold: float,
    *,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """The 95 % interval of each figure in ``NEEDS``.

    A figure between 0 and 1 has the percentiles of resampled actors. At 0 or 1 nearly every resample says the same,
    however few the actors: there a rate has at least the exact interval (:func:`exact_interval`) of one trial for each
    actor, ROC AUC has :func:`rank_interval` of as many actors, and the average precision has none.

    Args:
        figures: the figures themselves, None where they could not be told.
        label: (S,) 1 attack, 0 benign.
        score: (S,) finite; high = attack.
        actor: (S,) a code for who is behind each session.
        threshold: a session is alerted at or above it.
        seed: of the resampling.

    Returns:
        Name to [low, high], or None where the figure is None, fewer than two actors of a class that it needs are
        there, or nothing can be said.
    """
    found = client_intervals(label, score, actor, threshold, seed=seed)
    attackers, benign = (len(np.unique(actor[label == code])) for code in (1, 0))
    actors = {"fpr_at_threshold": benign, "accuracy": len(np.unique(actor))}
    intervals: dict[str, Interval | None] = {}
    for name in NEEDS:
        interval = found[name]
        if figures[name] is None or interval is None:
            intervals[name] = None
            continue
        value = round(figures[name], 12)  # a sum of shares may end beside the 1 that it is
        if value not in (0, 1):
            intervals[name] = interval
        elif name == "roc_auc":
            intervals[name] = rank_interval(int(value), attackers, benign)
        elif name == "average_precision":
            intervals[name] = None
        else:
            trials = actors.get(name, attackers)
            low, high = exact_interval(trials * int(value), trials)
            intervals[name] = [min(low, interval[0]), max(high, interval[1])]
    return intervals


def exact_interval(successes: int, trials: int) -> Interval:
    """[low, high] that holds the true rate with 95 % confidence, of independent trials (Clopper and Pearson 1934).

    >>> [round(end, 4) for end in exact_interval(0, 100)]
    [0.0, 0.0362]
    """
    low, high = stats.binomtest(successes, trials).proportion_ci(COVERAGE, method="exact")
    return [float(low), float(high)]


def rank_interval(area: int, attackers: int, benign: int) -> Interval:
    """[low, high] of the ROC AUC, at 95 %, where so many attackers and benign actors stand apart without exception.

    The areas from which the one seen is no further than 1.96 of their own standard errors, by the variance of Hanley
    and McNeil with the mean of both numbers in the place of each (Newcombe 2006, Statistics in Medicine 25, 559-573,
    method 5), which unlike resampling does not vanish where the two are wholly apart.

    >>> [round(end, 3) for end in rank_interval(1, 20, 50)]
    [0.93, 1.0]

    Args:
        area: the ROC AUC seen, 0 or 1.
    """
    mean = (attackers + benign) / 2 - 1
    width = float(stats.norm.ppf((1 + COVERAGE) / 2)) ** 2 / (attackers * benign)

    def excess(true: float) -> float:
        spread = 1 + mean * ((1 - true) / (2 - true) + true / (1 + true))
        return 1 - true - width * true * spread

    low = float(optimize.brentq(excess, 0.0, 1.0))
    return [low, 1.0] if area else [0.0, 1 - low]
