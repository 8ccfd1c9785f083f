"""Why this score: the behaviours that moved it, in words, with their numbers, and the queries where it rose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import FLOOR
from probewatch.data.ragged import Ragged
from probewatch.data.records import offsets_of, ranges
from probewatch.network import Network

RECENT = 32  # queries before the explained one on which behaviours are taken away, as many as features compare
SMALLEST = 0.1  # a behaviour that moves the log-odds by less is not named


class Behaviour(NamedTuple):
    """A group of features that a person would call one thing: their prefixes, and its sentence.

    ``keys`` are the features that the sentence quotes: their means over the recent queries, or, if they count from the
    beginning (``total``), what they are at the explained one.
    """

    prefixes: tuple[str, ...]
    keys: tuple[str, ...]
    say: Callable[..., str]
    total: bool = False


def _odds(value: float) -> str:
    return f"{1.0 / (1.0 + math.exp(-value)):.3f}"


def _distance(value: float) -> str:
    return f"{max(math.exp(value) - FLOOR, 0.0):.2f}"


def _climb(early: float, late: float) -> str:
    way = "climb" if late >= early else "fall"
    return f"a {way} in confidence (from {_odds(early)} to {_odds(late)})"


def _answers(ratio: float) -> str:
    kind = "training records" if ratio >= 0.0 else "strangers"
    return f"answers as for {kind} (likelihood ratio {math.exp(ratio):.2g})"


def _rate(what: str, share: float) -> str:
    return f"{'' if share > 0.0 else 'no '}{what} ({share:.0%})"


def _records(touched: float, share: float, excess: float) -> str:
    """What ``records_touched``, ``records_share`` and ``records_excess`` were made of: see the compiled step."""
    records = math.expm1(touched)
    if share <= 0.0:
        return "no training records touched (0)"
    queries = records / share
    # excess = sinh⁻¹((records - chance) / √(chance (1 - chance / queries) + 1)), solved for chance
    square = math.sinh(excess) ** 2
    first, second, third = 1.0 + square / queries, 2.0 * records + square, records**2 - square
    root = math.sqrt(max(second**2 - 4.0 * first * third, 0.0))
    chance = max((second - math.copysign(root, excess)) / (2.0 * first), 0.0)
    told = f"about {records:.0f} of {queries:.0f} different queries so far, {chance:.1f} expected"
    return f"training records touched ({told})"


BEHAVIOURS = (
    Behaviour(
        (
            "on_record",
            "near_record",
            "records_",
            "record_evidence",
            "record_distance",
            "around_",
            "anchor_share",
            "touch_",
        ),
        ("records_touched", "records_share", "records_excess"),
        _records,
        total=True,
    ),
    Behaviour(("member_ratio", "ratio_", "answer_evidence"), ("ratio_mean_32",), _answers),
    Behaviour(
        ("anchors",), ("anchors",), lambda value: f"queries on new ground ({math.expm1(value):.0f} so far)", total=True
    ),
    Behaviour(
        ("response_confidence", "log_odds", "confidence_rank", "lowest_confidence", "confidence_mean", "rank_mean"),
        ("log_odds",),
        lambda value: f"level of confidence ({_odds(value)})",
    ),
    Behaviour(
        ("confidence_change", "highest_confidence"), ("confidence_mean_256", "confidence_mean_4"), _climb, total=True
    ),
    Behaviour(
        ("confidence_spread", "rank_spread"),
        ("confidence_spread_32",),
        lambda value: f"spread of confidence ({value:.1f} in log-odds)",
    ),
    Behaviour(
        ("nearest_confidence_change", "jump"),
        ("jump_mean_32",),
        lambda value: f"jumps of confidence between near queries ({value:.1f} in log-odds)",
    ),
    Behaviour(
        ("nearest_distance", "nearest_mean", "nearest_spread", "nearest_rank", "nearness", "lowest_nearest"),
        ("nearest_distance",),
        lambda value: f"nearness to recent queries ({_distance(value)} of usual)",
    ),
    Behaviour(
        ("anchor_distance", "distance_from_anchor", "neighbours"),
        ("neighbours", "anchor_distance"),
        lambda near, anchor: (
            f"repeats around anchors ({math.expm1(near):.0f} recent queries near,"
            f" the surest {_distance(anchor)} of usual away)"
        ),
    ),
    Behaviour(
        ("previous",),
        ("previous_distance",),
        lambda value: f"steps from query to query ({_distance(value)} of usual)",
    ),
    Behaviour(("changed",), ("changed_share",), lambda value: f"inputs changed from query to query ({value:.0%})"),
    Behaviour(("repeat",), ("repeat",), lambda value: _rate("exact repeats", value)),
    Behaviour(
        ("class_change", "nearest_class"),
        ("class_change",),
        lambda value: _rate("changes of the predicted class", value),
    ),
    Behaviour(
        ("centre", "farthest", "constant_change"),
        ("centre_distance",),
        lambda value: f"unusual inputs ({value:.1f} deviations from the centre)",
    ),
    Behaviour(
        ("log_gap", "gap", "time_delta", "elapsed", "events"),
        ("log_gap",),
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
    before: NDArray[np.int64] | None = None,
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
        before: (S,) queries of each session that came before the sequences; none without it.

    Returns:
        (S,) str objects.
    """
    effects, recent = _effects(network, features, baseline, sequences, ends, state)
    before = np.zeros(len(sequences), np.int64) if before is None else before
    sentences = []
    for s, (start, end) in enumerate(zip(sequences.offsets[:-1], ends, strict=True)):
        steep = _steepest(logits[start : start + end], before[s])
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
    """The three that added most, in words; what a client does before what it does not, which tells a reader less."""
    parts = []
    for at in np.argsort(-effects)[:3]:
        behaviour = BEHAVIOURS[at]
        if effects[at] < SMALLEST:
            break
        parts.append(f"{_quoted(behaviour, features, rows)} {effects[at]:+.1f}")
    return sorted(parts, key=lambda part: part.startswith("no "))


def _quoted(behaviour: Behaviour, features: Sequence[str], rows: NDArray[np.float32]) -> str:
    """The behaviour's sentence, without numbers where one is not known."""
    values = []
    for key in behaviour.keys:
        column = rows[:, features.index(key)] if key in features else np.zeros(0)
        known = column[~np.isnan(column)]
        if not len(known):
            # ones: of nothing it would be said that there was none
            return behaviour.say(*np.ones(len(behaviour.keys))).split(" (")[0]
        values.append(float(known[-1] if behaviour.total else np.mean(known)))
    return behaviour.say(*values)


def _steepest(logits: NDArray[np.float32], before: int) -> list[str]:
    """The two queries at which the score rose most, in words; the first rises from nothing."""
    rises = np.diff(logits, prepend=logits[:1])
    steep = sorted(at for at in np.argsort(-rises)[:2] if rises[at] > SMALLEST)
    where = ", ".join(f"{before + at + 1} ({rises[at]:+.1f})" for at in steep)
    return [f"rose most at queries {where}"] if where else []
