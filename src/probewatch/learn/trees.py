"""Gradient-boosted trees that read the features of one query at a time, beside the networks that read sequences.

Two kinds of them stand in a detector. *Habits* are grown on every feature; as one query tells little of a habit, their
scores are smoothed along the session. *Evidence* is grown on what a query has to do with training records alone, may
only rise with it, and needs no smoothing, since its features add up along the session already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
HABITS = {"rounds": 30, "num_leaves": 64, "learning_rate": 0.25}
FACTS = {"rounds": 20, "num_leaves": 16, "learning_rate": 0.25}


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


def grow_habits(views: Sequence[Ragged], label: NDArray[np.int8], train: NDArray[np.int64], seed: int) -> Trees:
    """Trees of every feature, grown on the ``train`` sessions in each of their views.

    Args:
        views: of the same S sessions, with F features; their lengths may differ.
        label: (S,) 1 attack, 0 benign.
        train: (n,) indices of sessions of both classes.
        seed: of the queries and of the features that are drawn.
    """
    return _grow(views, label, train, np.arange(views[0].values.shape[1]), [], seed, HABITS)


def grow_evidence(
    whole: Ragged, names: Sequence[str], label: NDArray[np.int8], train: NDArray[np.int64], seed: int
) -> Trees | None:
    """Trees of what a query has to do with training records; None where nothing tells. See :func:`grow_habits`."""
    columns = np.array([at for at, name in enumerate(names) if theme_of(name) in EVIDENCE], np.int64)
    rising = np.array([names[at].startswith(RISING) for at in columns], bool)
    if np.isnan(whole.values[:, columns[rising]]).all():
        return None
    return _grow([whole], label, train, columns, rising.astype(int).tolist(), seed, FACTS)


def _grow(
    views: Sequence[Ragged],
    label: NDArray[np.int8],
    train: NDArray[np.int64],
    columns: NDArray[np.int64],
    rising: list[int],
    seed: int,
    size: dict[str, Any],
) -> Trees:
    random = np.random.default_rng(seed)
    drawn = [_drawn(view, columns, label, train, random) for view in views]
    rows, share, attack = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    for kind in (0, 1):  # both classes weigh the same, and a row one on average
        share[attack == kind] *= 0.5 * len(share) / share[attack == kind].sum()
    options = {
        **size, "objective": "binary", "min_data_in_leaf": LEAF * len(views), "lambda_l2": 5.0, "feature_fraction": 0.3,
        "seed": seed % 2**31, "deterministic": True, "force_col_wise": True, "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    if rising:
        options |= {"monotone_constraints": rising, "monotone_constraints_method": "advanced"}
    rounds = options.pop("rounds")
    grown = lightgbm.train(options, lightgbm.Dataset(rows, attack, weight=share, params={"verbose": -1}), rounds)
    return _as_nodes(grown.dump_model(), columns)


def _drawn(
    view: Ragged,
    columns: NDArray[np.int64],
    label: NDArray[np.int8],
    train: NDArray[np.int64],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int8]]:
    """(n, columns) steps of the ``train`` sessions, one of :data:`EVERY`; their weights, the same sum for each session;
    and the label of each."""
    steps, share = [], []
    for session in train:
        start, end = view.offsets[session], view.offsets[session + 1]
        taken = np.arange(random.integers(min(EVERY, end - start)), end - start, EVERY)
        weight = np.minimum((taken + 1) / LATE, 1.0)
        steps.append(start + taken)
        share.append(weight / weight.sum())
    rows = view.values[np.ix_(np.concatenate(steps), columns)]
    return rows, np.concatenate(share), np.repeat(label[train], [len(one) for one in steps])


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
