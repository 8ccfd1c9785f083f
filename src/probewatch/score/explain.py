"""Why this score: the behaviours that moved it, in words, with their numbers, and the queries where it rose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.features import FLOOR
from probewatch.data.ragged import Ragged
from probewatch.data.records import offsets_of, ranges
from probewatch.network import Network

RECENT = 32  # queries before the explained one on which behaviours are taken away, as many as features compare
SMALLEST = 0.1  # a behaviour that moves the log-odds by less is not named


class Behaviour(NamedTuple):
    """A group of features that a person would call one thing: their prefixes, and its sentence.

    ``key`` is the feature whose mean over the recent queries the sentence quotes.
    """

    prefixes: tuple[str, ...]
    key: str
    say: Callable[[float], str]


def _odds(value: float) -> str:
    return f"{1.0 / (1.0 + math.exp(-value)):.3f}"


def _distance(value: float) -> str:
    return f"{max(math.exp(value) - FLOOR, 0.0):.2f}"


BEHAVIOURS = (
    Behaviour(
        (
            "response_confidence",
            "log_odds",
            "confidence_rank",
            "highest_",
            "lowest_confidence",
            "confidence_mean",
            "rank_mean",
        ),
        "log_odds",
        lambda value: f"level of confidence ({_odds(value)})",
    ),
    Behaviour(
        ("confidence_change", "confidence_spread", "rank_spread"),
        "confidence_spread_32",
        lambda value: f"spread of confidence ({value:.1f} in log-odds)",
    ),
    Behaviour(
        ("nearest_confidence_change", "jump"),
        "jump_mean_32",
        lambda value: f"jumps of confidence between near queries ({value:.1f} in log-odds)",
    ),
    Behaviour(
        ("nearest_distance", "nearest_mean", "nearest_spread", "neighbours", "lowest_nearest"),
        "nearest_distance",
        lambda value: f"nearness to recent queries ({_distance(value)} of usual)",
    ),
    Behaviour(
        ("previous", "anchor_distance", "distance_from_anchor"),
        "previous_distance",
        lambda value: f"steps from query to query ({_distance(value)} of usual)",
    ),
    Behaviour(("changed",), "changed_share", lambda value: f"inputs changed from query to query ({value:.0%})"),
    Behaviour(("repeat",), "repeat", lambda value: f"exact repeats ({value:.0%})"),
    Behaviour(
        ("class_change", "nearest_class"), "class_change", lambda value: f"changes of the predicted class ({value:.0%})"
    ),
    Behaviour(
        ("centre", "farthest", "constant_change"),
        "centre_distance",
        lambda value: f"unusual inputs ({value:.1f} deviations from the centre)",
    ),
    Behaviour(
        ("log_gap", "gap", "time_delta", "elapsed", "events"),
        "log_gap",
        lambda value: f"pacing ({max(math.exp(value) - FLOOR, 0.0):.2g} s between queries)",
    ),
)


def explain(
    network: Network,
    features: Sequence[str],
    baseline: Mapping[str, float],
    sequences: Ragged,
    logits: NDArray[np.float32],
    ends: NDArray[np.int64],
    state: NDArray[np.float32] | None = None,
) -> NDArray[np.object_]:
    """A sentence for each sequence on what made its score at one query.

    What a behaviour added is how far the score falls when it alone is set to what is usual in the recent
    queries, and how far it rises when all but it are, meaned: the first and last terms of its Shapley
    value (Lundberg and Lee 2017, equation 8), so that two that say the same do not hide each other.

    Args:
        network: the bundle's.
        features: F names, the columns of ``sequences``.
        baseline: what is usual of each feature in benign training sessions.
        sequences: S sequences of N steps in all.
        logits: (N,) the network's logit after each.
        ends: (S,) number of the query, from 1, that is explained.
        state: (S, K) the network's before the sequences, which then have at most RECENT queries; zeros without it.

    Returns:
        (S,) str objects.
    """
    effects, recent = _effects(network, features, baseline, sequences, ends, state)
    sentences = []
    for s, (start, end) in enumerate(zip(sequences.offsets[:-1], ends, strict=True)):
        steep = _steepest(logits[start : start + end])
        sentences.append("; ".join([*_behaviours(features, recent[s], effects[:, s]), *steep]))
    return np.array(sentences, object)


def _effects(
    network: Network,
    features: Sequence[str],
    baseline: Mapping[str, float],
    sequences: Ragged,
    ends: NDArray[np.int64],
    state: NDArray[np.float32] | None,
) -> tuple[NDArray[np.float64], Ragged]:
    """(behaviours, S) what each added in log-odds, and the recent queries that it was measured on."""
    kept = np.minimum(ends, RECENT)
    recent = Ragged(sequences.values[ranges(sequences.offsets[:-1] + ends - kept, kept)], offsets_of(kept))
    usual = np.where(np.isnan(recent.values), np.nan, [baseline[name] for name in features]).astype(np.float32)
    finish = recent.offsets[1:] - 1

    def score(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return network.run(Ragged(values, recent.offsets), state)[0][finish]

    everything, nothing = score(recent.values), score(usual)
    effects = np.zeros((len(BEHAVIOURS), len(recent)))
    for row, behaviour in enumerate(BEHAVIOURS):
        own = np.array([name.startswith(behaviour.prefixes) for name in features])
        if own.any():
            without = everything - score(np.where(own, usual, recent.values))
            alone = score(np.where(own, recent.values, usual)) - nothing
            effects[row] = 0.5 * (without + alone)
    return effects, recent


def _behaviours(features: Sequence[str], rows: NDArray[np.float32], effects: NDArray[np.float64]) -> list[str]:
    """The three that added most, in words."""
    parts = []
    for at in np.argsort(-effects)[:3]:
        behaviour = BEHAVIOURS[at]
        if effects[at] < SMALLEST:
            break
        column = rows[:, features.index(behaviour.key)] if behaviour.key in features else np.zeros(0)
        known = column[~np.isnan(column)]
        text = behaviour.say(float(np.mean(known))) if len(known) else behaviour.say(0.0).split(" (")[0]
        parts.append(f"{text} {effects[at]:+.1f}")
    return parts


def _steepest(logits: NDArray[np.float32]) -> list[str]:
    """The two queries at which the score rose most, in words; the first rises from nothing."""
    rises = np.diff(logits, prepend=logits[:1])
    steep = sorted(at for at in np.argsort(-rises)[:2] if rises[at] > SMALLEST)
    where = ", ".join(f"{at + 1} ({rises[at]:+.1f})" for at in steep)
    return [f"rose most at queries {where}"] if where else []
