"""Gradient-boosted trees that read the features of one query at a time, beside the networks that read sequences.

Two kinds of them stand in a detector. *Habits* are grown on every feature; as one query tells little of a habit, their
scores are smoothed along the session. Half of them learned from queries all along it, the other half from its end,
where the running features have seen most. *Evidence* is grown on what a query has to do with training records alone,
may only rise with it, and needs no smoothing, since its features add up along the session already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import EVIDENCE, RISING, theme_of
from probewatch.data.ragged import Ragged

LATE = 256  # queries until one counts in full: habits take long to show
EVERY = 8  # of so many queries one is learned from: those between are near copies
LARGEST = float(np.finfo(np.float32).max)
START = -4.0  # the smoothed log-odds that a session begins with: benign
LEAF = 40  # rows of each view that a leaf holds at least
LIFE = 8  # queries over which they are smoothed
POORER = 0.15  # weight of a session as a poorer log shows it, where its end is learned from
ALONG = {"rounds": 30, "num_leaves": 64, "learning_rate": 0.25, "lambda_l2": 5.0, "feature_fraction": 0.3}
ENDS = {
    "rounds": 80, "num_leaves": 8, "learning_rate": 0.12, "lambda_l2": 1.0, "feature_fraction_bynode": 0.1,
    "min_data_in_leaf": 2 * LEAF,
}  # fmt: skip
FACTS = {"rounds": 20, "num_leaves": 16, "learning_rate": 0.25, "lambda_l2": 5.0, "feature_fraction": 0.3}


@dataclass(frozen=True)
class Trees:
    """Grown trees as N nodes, tree after tree.

    Attributes:
        tree, node: (N,) int64, which tree a node belongs to, and its number there.
        feature: (N,) int64, the column that it asks for; -1 in a leaf.
        value: (N,) float32, a leaf's log-odds; else the largest value that goes to ``low``.
        low, high: (N,) int64, numbers of the nodes below.
        gap_low: (N,) bool, whether a missing value goes to ``low``.
    """

    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.float32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    gap_low: NDArray[np.bool_]


class Lessons(NamedTuple):
    """Rows to learn from: (n, F) features, (n,) weight and (n,) label of each."""

    rows: NDArray[np.float32]
    share: NDArray[np.float64]
    attack: NDArray[np.int8]


def grow_habits(
    views: Sequence[Ragged], poorer: Sequence[Ragged], label: NDArray[np.int8], train: NDArray[np.int64], seed: int
) -> Trees:
    """Trees of every feature, grown on the ``train`` sessions in each of their views.

    Args:
        views: of the same S sessions, with F features; their lengths may differ.
        poorer: the same as logs that tell less would show them.
        label: (S,) 1 attack, 0 benign.
        train: (n,) indices of sessions of both classes.
        seed: of the queries and of the features that are drawn.
    """
    columns = np.arange(views[0].values.shape[1])
    random = np.random.default_rng(seed)
    along = [_along(view, label, train, random) for view in (*views, *poorer)]
    ends = [_ends(view, label, train, random, 1.0) for view in views]
    ends += [_ends(view, label, train, random, POORER) for view in poorer]
    size = {"min_data_in_leaf": LEAF * len(along)}
    return _mean(_grow(along, columns, seed, ALONG | size), _grow(ends, columns, seed, ENDS))


def grow_evidence(
    whole: Ragged, names: Sequence[str], label: NDArray[np.int8], train: NDArray[np.int64], seed: int
) -> Trees | None:
    """Trees of what a query has to do with training records; None where nothing tells. See :func:`grow_habits`."""
    columns = np.array([at for at, name in enumerate(names) if theme_of(name) in EVIDENCE], np.int64)
    rising = np.array([names[at].startswith(RISING) for at in columns], bool)
    if np.isnan(whole.values[:, columns[rising]]).all():
        return None
    options = FACTS | {
        "min_data_in_leaf": LEAF,
        "monotone_constraints": rising.astype(int).tolist(),
        "monotone_constraints_method": "advanced",
    }
    return _grow([_along(whole, label, train, np.random.default_rng(seed))], columns, seed, options)


def _grow(lessons: Sequence[Lessons], columns: NDArray[np.int64], seed: int, options: dict[str, Any]) -> Trees:
    rows, share, attack = (np.concatenate(parts) for parts in zip(*lessons, strict=True))
    for kind in (0, 1):  # both classes weigh the same, and a row one on average
        share[attack == kind] *= 0.5 * len(share) / share[attack == kind].sum()
    options = {
        **options, "objective": "binary", "seed": seed % 2**31, "deterministic": True, "force_col_wise": True,
        "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    rounds = options.pop("rounds")
    data = lightgbm.Dataset(rows[:, columns], attack, weight=share, params={"verbose": -1})
    return _as_nodes(lightgbm.train(options, data, rounds).dump_model(), columns)


def _along(view: Ragged, label: NDArray[np.int8], train: NDArray[np.int64], random: np.random.Generator) -> Lessons:
    """Steps of the ``train`` sessions, one of :data:`EVERY`, whose weights have the same sum for each session."""
    steps, share = [], []
    for session in train:
        start, end = view.offsets[session], view.offsets[session + 1]
        taken = np.arange(random.integers(min(EVERY, end - start)), end - start, EVERY)
        weight = np.minimum((taken + 1) / LATE, 1.0)
        steps.append(start + taken)
        share.append(weight / weight.sum())
    attack = np.repeat(label[train], [len(one) for one in steps])
    return Lessons(view.values[np.concatenate(steps)], np.concatenate(share), attack)


def _ends(
    view: Ragged, label: NDArray[np.int8], train: NDArray[np.int64], random: np.random.Generator, weight: float
) -> Lessons:
    """The last step of each ``train`` session and one of its second half, of this weight each."""
    lengths = view.lengths[train]
    halfway = random.integers(lengths // 2, lengths)
    steps = np.concatenate([view.offsets[train] + lengths - 1, view.offsets[train] + halfway])
    return Lessons(view.values[steps], np.full(len(steps), weight), np.tile(label[train], 2))


def _mean(one: Trees, other: Trees) -> Trees:
    """All trees of both, which give the mean of their log-odds."""
    both = together([one, other])
    return replace(both, value=np.where(both.feature < 0, np.float32(0.5) * both.value, both.value))


def together(grown: Sequence[Trees]) -> Trees:
    """The nodes of all, end to end; each tree keeps a number of its own."""
    ends = np.cumsum([0, *(1 + one.tree.max() for one in grown)])
    parts = [replace(one, tree=one.tree + first) for one, first in zip(grown, ends, strict=False)]
    return Trees(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Trees)))


def _as_nodes(model: dict[str, Any], columns: NDArray[np.int64]) -> Trees:
    rows = [(number, *row) for number, tree in enumerate(model["tree_info"]) for row in _nodes(tree["tree_structure"])]
    tree, node, feature, value, low, high, gap_low = zip(*rows, strict=True)
    asked = np.array(feature, np.int64)
    return Trees(
        np.array(tree, np.int64), np.array(node, np.int64), np.where(asked < 0, -1, columns[asked]),
        _as_single(np.array(value), asked >= 0), np.array(low, np.int64), np.array(high, np.int64),
        np.array(gap_low, bool),
    )  # fmt: skip


def _nodes(root: dict[str, Any]) -> Iterator[tuple[int, int, float, int, int, bool]]:
    """(number, feature, value, low, high, gap_low) of each node, the root first."""
    ahead, number = [root], 0
    while number < len(ahead):
        node = ahead[number]
        if "leaf_value" in node:
            yield number, -1, node["leaf_value"], 0, 0, False
        else:
            # a feature that never lacked a value takes a missing one for zero
            gap_low = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0.0
            yield number, node["split_feature"], node["threshold"], len(ahead), len(ahead) + 1, gap_low
            ahead += [node["left_child"], node["right_child"]]
        number += 1


def _as_single(value: NDArray[np.float64], is_limit: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As float32; a limit is rounded down, so that the same float32 features stay at or below it. One above all of
    them (the question is whether there is a value) becomes the largest."""
    single = np.clip(value, -LARGEST, LARGEST).astype(np.float32)
    above = is_limit & (single.astype(np.float64) > value)
    single[above] = np.nextafter(single[above], np.float32(-np.inf))
    return single
