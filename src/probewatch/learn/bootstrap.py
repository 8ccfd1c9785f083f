"""How far the figures would move with other clients: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPLICATES = 1000
COVERAGE = 0.95
BLOCK_CELLS = 2_000_000
"""Replicates times sessions held at once (16 MB an array)."""
NEEDS = {
    "roc_auc": (0, 1),
    "average_precision": (0, 1),
    "accuracy": (),
    "tpr_at_fpr_0.01": (0, 1),
    "tpr_at_threshold": (1,),
    "fpr_at_threshold": (0,),
}
"""Figures that get an interval, and the classes of which each needs two clients: resampling the only
client of a class would claim that nothing varies."""


def client_intervals(
    label: NDArray[np.int64],
    score: NDArray[np.float64],
    client: NDArray[np.int64],
    threshold: float,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of the figures in ``NEEDS``, resampling whole clients.

    A client's sessions resemble each other, so sessions drawn one by one would give intervals that
    are too narrow (cluster bootstrap: Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).

    Args:
        label: (S,) 1 attack, 0 benign.
        score: (S,) finite; high = attack.
        client: (S,) a code for each client.
        threshold: a session is alerted at or above it.
        replicates: number of resamples.
        seed: same seed, same intervals, in whatever order the sessions come.

    Returns:
        Name to [low, high], or None where fewer than two clients of a class that the figure needs.
    """
    enough = {
        name: all(len(np.unique(client[label == code])) > 1 for code in classes) and len(np.unique(client)) > 1
        for name, classes in NEEDS.items()
    }
    if not any(enough.values()):
        return dict.fromkeys(NEEDS)
    falling = np.argsort(-score, kind="stable")
    label, score, client = label[falling], score[falling], client[falling]
    blocks = [_figures(weights, label, score, threshold) for weights in _weights(client, replicates, seed)]
    tails = [50 * (1 - COVERAGE), 100 - 50 * (1 - COVERAGE)]
    intervals: dict[str, list[float] | None] = {}
    for name in NEEDS:
        values = np.concatenate([block[name] for block in blocks])
        values = values[np.isfinite(values)]  # a resample without attacks (or without benign) says nothing
        intervals[name] = np.percentile(values, tails).tolist() if enough[name] and len(values) else None
    return intervals


def _weights(client: NDArray[np.int64], replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(B, S) how often each session was drawn, in blocks of B resamples."""
    rng = np.random.default_rng(seed)
    clients = int(client.max()) + 1
    block = max(1, BLOCK_CELLS // max(len(client), clients))
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        drawn = rng.integers(clients, size=(size, clients)) + clients * np.arange(size)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=size * clients).reshape(size, clients)
        yield times[:, client].astype(np.float64)


def _figures(
    weights: NDArray[np.float64], label: NDArray[np.int64], score: NDArray[np.float64], threshold: float
) -> dict[str, NDArray[Any]]:
    """(B,) each figure of B resamples; sessions ordered by falling score."""
    starts = np.flatnonzero(np.diff(score, prepend=np.inf))  # sessions of equal score alert together
    attacks = np.add.reduceat(weights * label, starts, axis=1)  # (B, U) drawn at each of U scores
    benign = np.add.reduceat(weights * (1 - label), starts, axis=1)
    true, false = np.cumsum(attacks, axis=1), np.cumsum(benign, axis=1)  # alerts, were this the threshold
    all_true, all_false = true[:, -1], false[:, -1]
    alerting = int(np.sum(score[starts] >= threshold))
    alerted_true = true[:, alerting - 1] if alerting else np.zeros(len(weights))
    alerted_false = false[:, alerting - 1] if alerting else np.zeros(len(weights))
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where a class was not drawn
        tpr, fpr = true / all_true[:, None], false / all_false[:, None]
        pairs = np.sum(benign * (true - attacks / 2), axis=1)  # a tie is half a win
        precision = np.where(true > 0, true / (true + false), 0.0)
        return {
            "roc_auc": pairs / (all_true * all_false),
            "average_precision": np.sum(attacks * precision, axis=1) / all_true,
            "accuracy": (alerted_true + all_false - alerted_false) / (all_true + all_false),
            "tpr_at_fpr_0.01": np.max(np.where(fpr <= 0.01, tpr, np.where(np.isnan(fpr + tpr), np.nan, 0.0)), axis=1),
            "tpr_at_threshold": alerted_true / all_true,
            "fpr_at_threshold": alerted_false / all_false,
        }
