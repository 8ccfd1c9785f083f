"""Data from a random generator for the benches: sequences to learn from, and sessions of raw queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, offsets_of


def make_sequences(
    count: int, low: int, high: int, *, features: int = 3, seed: int = 0
) -> tuple[Ragged, NDArray[np.int8]]:
    """``count`` sequences of ``low`` to ``high`` steps and their labels, half of them attacks.

    A sequence wanders about a level of its own; attacks lie higher on average, and the classes overlap, so
    that a network has something to learn and a loss that does not go to zero.
    """
    random = np.random.default_rng(seed)
    label = (random.permutation(count) % 2).astype(np.int8)
    offsets = offsets_of(random.integers(low, high + 1, count))
    level = random.normal(0.45 * label[:, None], 0.4, (count, features))
    noise = random.normal(size=(int(offsets[-1]), features))
    values = np.repeat(level, np.diff(offsets), axis=0) + noise
    return Ragged(values.astype(np.float32), offsets), label


def make_sessions(count: int, events: int, *, inputs: int = 30, seed: int = 0) -> Sessions:
    """``count`` sessions of about ``events`` queries on two models, one of them with every fifth input constant.

    Some queries repeat an earlier one exactly and some change a few of its inputs; one confidence in fifty and one
    vector in fifty are absent.
    """
    random = np.random.default_rng(seed)
    offsets = offsets_of(random.integers(max(events // 2, 1), events * 3 // 2 + 1, count))
    total = int(offsets[-1])
    model = np.arange(count) % 2
    vectors = random.normal(size=(total, inputs)) * np.exp(random.normal(size=inputs))
    vectors[np.repeat(model, np.diff(offsets)) == 1, ::5] = 3.0
    kind = random.random(total)
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    for event in np.flatnonzero(kind < 0.3):
        earlier = random.integers(starts[event], event + 1)
        vectors[event] = vectors[earlier]
        if kind[event] < 0.2:
            changed = 1 + 5 * random.integers(0, inputs // 5, 3)  # never a constant one
            vectors[event, changed] += random.normal(size=3)
    confidence = np.round(random.beta(5, 1.5, total), 6)
    confidence[random.random(total) < 0.02] = np.nan
    present = random.random(total) >= 0.02
    gaps = random.exponential(20.0, total)
    time_s = np.cumsum(gaps) + 1.7e9
    names = np.array([f"session_{index}" for index in range(count)], object)
    return Sessions(
        session=names,
        client=names,
        model=np.array([f"model_{index}" for index in model], object),
        offsets=offsets,
        time_s=time_s,
        confidence=confidence,
        predicted_class=random.integers(-1, 4, total),
        inputs=vectors[present].reshape(-1),
        input_offsets=offsets_of(inputs * present),
        label=np.full(count, -1, np.int8),
        before=np.zeros(count, np.int64),
        ends=np.ones(count, bool),
    )
