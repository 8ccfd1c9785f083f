"""What the compiled step carries from query to query, and what it reads of the models."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import HALF_LIVES, PRINTS, SIGNALS, WINDOW
from probewatch.data.scales import SKETCH

NUMBERS = 20  # counters and extremes, see their places in step.py
MOMENTS = (len(HALF_LIVES), 3, len(SIGNALS))  # weights, means and variances
BITS = 512  # of a linear counter: enough for some 2,000 different queries


class State(NamedTuple):
    """What the step remembers of each of K sessions, in flat arrays: 2.5 KiB a session without the anchor.

    Attributes:
        numbers: (K, NUMBERS) float64 counters and extremes.
        moments: (K, HALF_LIVES, 3, SIGNALS) float32 weights, means and variances of the signals.
        sketches: (K, SKETCH, WINDOW) int16, a ring of the last queries in parts of GRAIN.
        hashes: (K, WINDOW) uint64 of the exact inputs.
        odds: (K, WINDOW) float32 log-odds of the answers.
        classes: (K, WINDOW) int32, the low half of the predicted classes' codes.
        records: (K, WINDOW) bool, whether each was a training record.
        prints: (K, PRINTS) uint8, a byte for each watched input of the previous query.
        centre: (K, SKETCH) float64 running mean of the sketches.
        best: (K, SKETCH) int16 sketch of the most confident query.
        record: (K, SKETCH) int16 sketch of the last training record touched.
        different: (K, BITS / 64) uint64 linear counter of different queries (Whang et al. 1990).
        touched: (K, BITS / 64) uint64 linear counter of different training records.
        anchor: (K, D) float64 the most confident query itself; D = 0 unless its exact distance is asked for.
    """

    numbers: NDArray[np.float64]
    moments: NDArray[np.float32]
    sketches: NDArray[np.int16]
    hashes: NDArray[np.uint64]
    odds: NDArray[np.float32]
    classes: NDArray[np.int32]
    records: NDArray[np.bool_]
    prints: NDArray[np.uint8]
    centre: NDArray[np.float64]
    best: NDArray[np.int16]
    record: NDArray[np.int16]
    different: NDArray[np.uint64]
    touched: NDArray[np.uint64]
    anchor: NDArray[np.float64]


def new_state(sessions: int, anchor_width: int = 0) -> State:
    """Room for the state of ``sessions`` sessions that have not begun."""
    return State(
        np.zeros((sessions, NUMBERS)),
        np.zeros((sessions, *MOMENTS), np.float32),
        np.zeros((sessions, SKETCH, WINDOW), np.int16),
        np.zeros((sessions, WINDOW), np.uint64),
        np.zeros((sessions, WINDOW), np.float32),
        np.zeros((sessions, WINDOW), np.int32),
        np.zeros((sessions, WINDOW), np.bool_),
        np.zeros((sessions, PRINTS), np.uint8),
        np.zeros((sessions, SKETCH)),
        np.zeros((sessions, SKETCH), np.int16),
        np.zeros((sessions, SKETCH), np.int16),
        np.zeros((sessions, BITS // 64), np.uint64),
        np.zeros((sessions, BITS // 64), np.uint64),
        np.zeros((sessions, anchor_width)),
    )


class Room(NamedTuple):
    """Scratch room of the step, for vectors of at most D inputs.

    Attributes:
        row: (FEATURES,) what the query gave.
        signals: (SIGNALS,) what is followed of it.
        signs: (SKETCH, D) of the projection.
        scaled: (D,) the query in units of the scale.
        sketch: (SKETCH,) of the query.
        grains: (SKETCH,) the same as it is kept.
        squares: (WINDOW,) squared distances from the last queries.
    """

    row: NDArray[np.float64]
    signals: NDArray[np.float32]
    signs: NDArray[np.float64]
    scaled: NDArray[np.float64]
    sketch: NDArray[np.float64]
    grains: NDArray[np.int16]
    squares: NDArray[np.float32]


class Model(NamedTuple):
    """What is known of the model that a query went to; see ``Scale`` and :class:`Reference`.

    ``number`` is its row in the reference; ``centre``, ``spread`` and ``grid`` are empty where the query's width
    is not the model's, ``grid`` also where it has no profile.
    """

    number: int
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    unit: float
    confidences: NDArray[np.float64]
    grid: NDArray[np.float64]


class Reference(NamedTuple):
    """What the step reads of the profiles of M models; a model without one has NaN and no records.

    Attributes:
        edges: (M, E) float64 log-odds between which ``ratios`` holds.
        ratios: (M, E + 1) float64 log-likelihood ratio, training records against strangers.
        nearest: (M, Q) float64 quantiles of the logarithm of a stranger's distance to the nearest of 32 others.
        centre: (M, Q) float64 quantiles of a stranger's distance from the centre.
        rate: (M,) float64 share of strangers that coincide with a training record.
        keys: (M, 2) uint64 the secret of the hashes.
        grid: (D of all models, 1 + SHIFTS) float64 the grids of each input, laid out as the scales are.
        records: (M + 1,) int64 offsets into ``hashes`` and ``numbers``.
        hashes: (SHIFTS, R) uint64, sorted within a model.
        numbers: (SHIFTS, R) int64, which record each is.
    """

    edges: NDArray[np.float64]
    ratios: NDArray[np.float64]
    nearest: NDArray[np.float64]
    centre: NDArray[np.float64]
    rate: NDArray[np.float64]
    keys: NDArray[np.uint64]
    grid: NDArray[np.float64]
    records: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    numbers: NDArray[np.int64]
