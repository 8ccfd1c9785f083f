"""Rivals: what a user could run instead of Probewatch, on the same sessions and features.

Two learn from labelled sessions (gradient boosting and logistic regression on aggregates of the features),
three are published rules on the raw queries (:mod:`probewatch.learn.rules`). A high score is an attack.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions
from probewatch.errors import DataError
from probewatch.learn.rules import count_per_hour, near_duplicates, prada

Scores = NDArray[np.float64]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # minimum and maximum are the outer two
PADDED_ELEMENTS = 2_000_000  # values sorted at a time: 8 MB of float32

FOLDS = 3  # parts of the training clients, each once held out to stop the boosting
PATIENCE = 20  # rounds without a lower loss on the held-out part
MOST_ROUNDS = 600
USUAL_ROUNDS = 200  # where there are too few clients to hold any out


def score_rivals(
    sessions: Sessions, sequences: Ragged, label: NDArray[np.int8], train: NDArray[np.integer], *, seed: int
) -> dict[str, Scores]:
    """The scores of all five rivals for every session, by name; they learn from the ``train`` ones alone.

    Args:
        sessions: S sessions of raw queries; a rule that needs inputs scores 0 where there are none.
        sequences: (T, F) features of each session, NaN where missing.
        label: (S,) 1 attack, 0 benign, -1 unknown; unknown ones are not learned from.
        train: (K,) indices of the sessions to learn from.
        seed: fixes the boosting's random choices and Blacklight's salt.

    Returns:
        name to (S,) float64, high for an attack: ``boosting`` and ``logistic`` are probabilities,
        ``count_per_hour`` and ``near_duplicates`` are counts of queries, ``prada`` is from 0 to 1.

    Raises:
        DataError: the training sessions with a known label are not of both classes.
    """
    return {
        **score_learned(sessions, sequences, label, train, seed=seed),
        "count_per_hour": count_per_hour(sessions),
        "prada": prada(sessions, train),
        "near_duplicates": near_duplicates(sessions, train, seed=seed),
    }


def score_learned(
    sessions: Sessions, sequences: Ragged, label: NDArray[np.int8], train: NDArray[np.integer], *, seed: int
) -> dict[str, Scores]:
    """The scores of boosting and logistic regression alone; see :func:`score_rivals`."""
    known = train[label[train] >= 0]
    if len(np.unique(label[known])) < 2:
        found = "attacks" if np.any(label[known]) else "benign"
        raise DataError(
            f"the {len(known)} labelled training sessions are all {found}, expected attacks and benign ones; "
            "label more sessions or change the split."
        )
    columns = aggregate(sequences)
    means = columns[:, : sequences.values.shape[1]]
    return {
        "boosting": boosting(columns, label, known, sessions.client, seed=seed),
        "logistic": logistic(means, label, known),
    }


def boosting(
    columns: NDArray[np.float64],
    label: NDArray[np.int8],
    train: NDArray[np.integer],
    client: NDArray[np.object_],
    *,
    seed: int,
) -> Scores:
    """(S,) probability of attack by gradient boosting on the (S, C) aggregates of the features.

    The number of trees is the median of three early stops, each on a third of the training clients; then they
    grow on all training sessions. A missing value is sent to the better side of each split.
    """
    seen, known, owner = columns[train], label[train], client[train]
    # Fits this small gain little from more threads, and lose a hundredfold where other work holds the cores.
    with threadpool_limits(1):
        there = _there(seen)
        model = _trees(_rounds(seen, known, owner, seed), seed, early_stopping=False)
        model.fit(seen[:, there], known)
        return np.asarray(model.predict_proba(columns[:, there])[:, 1], np.float64)


def _rounds(columns: NDArray[np.float64], label: NDArray[np.int8], client: NDArray[np.object_], seed: int) -> int:
    clients = [len(np.unique(client[label == kind])) for kind in (0, 1)]
    folds = min(FOLDS, *clients)
    if folds < 2:
        return USUAL_ROUNDS
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(columns, label, client)
    best = []
    for fit, held in splits:
        if len(np.unique(label[fit])) == len(np.unique(label[held])) == 2:
            there = _there(columns[fit])
            model = _trees(MOST_ROUNDS, seed, early_stopping=True)
            model.fit(columns[fit][:, there], label[fit], X_val=columns[held][:, there], y_val=label[held])
            best.append(max(model.n_iter_ - PATIENCE, 1))
    return int(np.median(best)) if best else USUAL_ROUNDS


def _there(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The columns with a value: scikit-learn 1.9 finds no bins for one that has none, and fails."""
    return np.asarray(np.any(~np.isnan(columns), axis=0), np.bool_)


def _trees(rounds: int, seed: int, *, early_stopping: bool) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=rounds,
        max_leaf_nodes=8,
        min_samples_leaf=10,
        l2_regularization=1.0,
        max_features=0.1,  # of the columns at each split: the aggregates of a feature are near copies
        early_stopping=early_stopping,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )


def logistic(columns: NDArray[np.float64], label: NDArray[np.int8], train: NDArray[np.integer]) -> Scores:
    """(S,) probability of attack by logistic regression on (S, F) means, the median where one is missing."""
    model: Pipeline = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=5000),
    )
    model.fit(columns[train], label[train])
    return np.asarray(model.predict_proba(columns)[:, 1], np.float64)


def aggregate(sequences: Ragged) -> NDArray[np.float64]:
    """What a session's features look like without their order: the columns the learned rivals see.

    Args:
        sequences: S sequences of F features; a missing value is NaN (infinity counts as missing).

    Returns:
        (S, 10 F + 1): F means, F standard deviations, F last known values, then the F minima, 10 %, 25 %,
        50 %, 75 % and 90 % quantiles (linear interpolation) and maxima, then log(1 + the session's length).
        NaN where a session has no value of the feature.
    """
    values = np.where(np.isfinite(sequences.values), sequences.values, np.float32(np.nan))
    known = ~np.isnan(values)
    counts = _sums(known, sequences)
    filled = np.where(known, values, 0.0).astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a feature that a session never has
        means = _sums(filled, sequences) / counts
        off_mean = np.where(known, filled - np.repeat(means, sequences.lengths, axis=0), 0.0)
        stds = np.sqrt(_sums(off_mean**2, sequences) / counts)
    quantiles = _quantiles(Ragged(values, sequences.offsets), counts.astype(np.int64))
    columns = [means, stds, _last_known(values, known, sequences), *quantiles]
    return np.column_stack([*columns, np.log1p(sequences.lengths)])


def _sums(columns: NDArray[np.generic], sequences: Ragged) -> NDArray[np.float64]:
    sums = np.zeros((len(sequences), columns.shape[1]))
    filled = sequences.lengths > 0  # reduceat would give an empty session its neighbour's row
    if filled.any():
        sums[filled] = np.add.reduceat(columns, sequences.offsets[:-1][filled], axis=0, dtype=np.float64)
    return sums


def _last_known(values: NDArray[np.float32], known: NDArray[np.bool_], sequences: Ragged) -> NDArray[np.float64]:
    last = np.full((len(sequences), values.shape[1]), np.nan)
    filled = sequences.lengths > 0
    if filled.any():
        step = np.where(known, np.arange(len(values))[:, None], -1)  # (N, F)
        at = np.maximum.reduceat(step, sequences.offsets[:-1][filled], axis=0)  # (filled S, F)
        last[filled] = np.where(at >= 0, np.take_along_axis(values, np.maximum(at, 0), axis=0), np.nan)
    return last


def _quantiles(sequences: Ragged, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(Q, S, F): sequences of like lengths are padded with NaN, which sorts last, and sorted together."""
    quantiles = np.full((len(QUANTILES), *counts.shape), np.nan)
    sizes = np.maximum(sequences.lengths, 1) * max(counts.shape[1], 1)
    by_length = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(by_length):
        ahead = by_length[start : start + max(PADDED_ELEMENTS // int(sizes[by_length[start]]), 1)]
        fitting = np.count_nonzero(sizes[ahead] * np.arange(1, len(ahead) + 1) <= PADDED_ELEMENTS)
        members = ahead[: max(fitting, 1)]
        start += len(members)
        steps = max(int(sequences.lengths[members].max()), 1)
        padded = sequences.take(members).pad(steps, value=np.nan)[0]  # (B, T, F)
        ordered = np.sort(padded.transpose(0, 2, 1), axis=2)  # (B, F, T), NaN last
        for row, quantile in enumerate(QUANTILES):
            quantiles[row, members] = _at_quantile(ordered, counts[members], quantile)
    return quantiles


def _at_quantile(ordered: NDArray[np.float32], counts: NDArray[np.int64], quantile: float) -> NDArray[np.float64]:
    position = quantile * np.maximum(counts - 1, 0)  # (B, F)
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    low = np.take_along_axis(ordered, below[..., None], axis=2)[..., 0].astype(np.float64)
    high = np.take_along_axis(ordered, above[..., None], axis=2)[..., 0]
    return low + (high - low) * (position - below)
