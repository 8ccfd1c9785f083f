"""From benign scores to a threshold that keeps a budget of false alarms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.errors import ConfigError, DataError
from probewatch.learn.intervals import exact_interval

BENIGN_PER_BUDGET = 3
"""A rate of ``max_fpr`` needs 3 / max_fpr benign sessions: with fewer, not even "none seen" bounds it
(the rule of three: no event in n trials leaves 3 / n as the 95 % upper bound)."""


def supports(benign: int, max_fpr: float) -> bool:
    """True if ``benign`` sessions are enough to speak of a false-positive rate of ``max_fpr``.

    >>> supports(300, 0.01), supports(299, 0.01)
    (True, False)
    """
    return benign >= BENIGN_PER_BUDGET / max_fpr - 1e-9


def silent_score(benign_scores: NDArray[Any], max_fpr: float) -> float:
    """The highest score that must stay silent for the false-positive rate not to exceed ``max_fpr``.

    >>> silent_score(np.array([0.1, 0.9, 0.2, 0.3]), 0.25)
    0.3

    Args:
        benign_scores: (S,) finite scores of benign sessions, S > 0; high = attack.
        max_fpr: above 0 and below 1.
    """
    falling = np.sort(np.asarray(benign_scores, np.float64))[::-1]
    alerts = math.floor(max_fpr * len(falling)) + 1
    while alerts / len(falling) > max_fpr:  # the division is the rate that is reported: 0.29 * 100 < 29
        alerts -= 1
    return float(falling[alerts])


def pick_threshold(benign_scores: NDArray[Any], max_fpr: float) -> float:
    """The lowest threshold whose false-positive rate on these benign scores is not above ``max_fpr``.

    A session alerts when its score is at or above the threshold. Scores should come from sessions
    that the model was not trained on, and each be the session's peak, as an alert can come at any event.

    >>> scores = np.arange(300) / 300
    >>> threshold = pick_threshold(scores, 0.01)
    >>> int(np.sum(scores >= threshold))
    3

    Args:
        benign_scores: (S,) scores of benign sessions; high = attack.
        max_fpr: the budget, above 0 and below 1.

    Returns:
        A score. Where float32 can tell the scores apart it is a float32 number, so that comparing
        in either precision gives the same alerts. Above every score where the budget leaves no alert
        (with probabilities that reach 1.0 it can be above 1: nothing would ever alert).

    Raises:
        ConfigError: ``max_fpr`` is not between 0 and 1.
        DataError: fewer than 3 / ``max_fpr`` scores, or one that is not finite.
    """
    if not 0 < max_fpr < 1:
        raise ConfigError(f"the false-positive budget is {max_fpr}, expected a rate above 0 and below 1.")
    scores = np.asarray(benign_scores, np.float64)
    if not supports(len(scores), max_fpr):
        raise DataError(_too_few(len(scores), max_fpr))
    if not np.all(np.isfinite(scores)):
        wrong = int(np.sum(~np.isfinite(scores)))
        raise DataError(f"{wrong} of {len(scores)} benign scores are not finite numbers.")
    silent = silent_score(scores, max_fpr)
    louder = scores[scores > silent]
    return min(_step_above(silent), float(louder.min()) if len(louder) else math.inf)


def loosest_budget(benign: int, max_fpr: float) -> float:
    """``max_fpr``, widened to what so many benign sessions support; fewer than 4 support none below 1.

    >>> loosest_budget(1000, 0.01), loosest_budget(60, 0.01)
    (0.01, 0.05)
    """
    return max(max_fpr, BENIGN_PER_BUDGET / max(benign, BENIGN_PER_BUDGET + 1))


def attained(benign_scores: NDArray[Any], threshold: float) -> dict[str, Any]:
    """How a threshold keeps a budget on the sample that it was chosen on.

    >>> found = attained(np.arange(300) / 300, 0.99)
    >>> found["alerts"], [round(end, 4) for end in found["interval"]]
    (3, [0.0021, 0.0289])

    Args:
        benign_scores: (S,) scores of benign sessions; high = attack.
        threshold: on the same scale.

    Returns:
        ``benign`` sessions, ``alerts`` among them, ``fpr``, and the ``interval`` of
        :func:`probewatch.learn.intervals.exact_interval`, which takes the sessions for independent: where a client
        has many, the truth can lie farther off. ``fpr`` and ``interval`` are None without sessions.
    """
    benign, alerts = len(benign_scores), int(np.sum(benign_scores >= threshold))
    if not benign:
        return {"benign": 0, "alerts": 0, "fpr": None, "interval": None}
    return {"benign": benign, "alerts": alerts, "fpr": alerts / benign, "interval": exact_interval(alerts, benign)}


def _step_above(score: float) -> float:
    """The next float32 above ``score``; the next float64 where float32 does not reach that far."""
    with np.errstate(over="ignore"):
        single = np.float32(score)
        step = float(single) if single > score else float(np.nextafter(single, np.float32(np.inf)))
    return step if math.isfinite(step) else math.nextafter(score, math.inf)


def _too_few(benign: int, max_fpr: float) -> str:
    needed = math.ceil(BENIGN_PER_BUDGET / max_fpr - 1e-9)
    smallest = math.ceil(10_000 * BENIGN_PER_BUDGET / benign) / 10_000 if benign else 1.0
    instead = f" or raise the budget to {smallest:g}" if smallest < 1 else ""
    return (
        f"a false-positive budget of {max_fpr:g} can only be kept with at least {needed} benign sessions "
        f"to measure it on, found {benign}; add benign sessions{instead}."
    )
