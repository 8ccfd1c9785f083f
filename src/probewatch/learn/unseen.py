"""What training can go without: attack families, benign uses and data sets, and the sessions that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.records import coded
from probewatch.data.wording import counted
from probewatch.errors import DataError
from probewatch.learn.dataset import Split, split_sessions
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import Config

LeaveOut = Literal["family", "dataset", "none"]
Kind = Literal["attack", "benign", "dataset", "none"]
FEWEST_SETS = 2  # one to leave out, one to learn from


class Thing(NamedTuple):
    """What is left out of training: an attack family, a benign use, a data set, or nothing."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Parts:
    """Which sessions serve for what when a thing is left out: (n,) int arrays of indices, sorted.

    Attributes:
        left: the sessions of the thing.
        split: what is learned from (``train``, ``valid``) and tested on (``test``: what is left out, and for an
            attack family benign sessions of held-out clients beside it).
    """

    left: NDArray[np.int64]
    split: Split


def things_of(data: Labelled, by: LeaveOut) -> list[Thing]:
    """What can be left out in turn: attack families, then benign uses, or data sets, by name.

    Raises:
        DataError: the labels name no family, or there is but one data set.
    """
    usable = eligible(data)
    if by == "none":
        return [Thing("none", "")]
    if by == "dataset":
        names = sorted({str(name) for name in data_sets(data)[usable]} - {""})
        if len(names) < FEWEST_SETS:
            raise DataError(
                f"the log has {counted(len(names), 'data set')}, expected at least {FEWEST_SETS} to leave one out; give"
                " --labels a target column, whose words before the first '-' name the data set."
            )
        return [Thing("dataset", name) for name in names]
    found: list[Thing] = []
    for kind, label in (("attack", 1), ("benign", 0)):
        names = sorted({str(name) for name in data.family[usable & (data.label == label)]} - {""})
        found += [Thing("attack" if kind == "attack" else "benign", name) for name in names]
    if not found:
        raise DataError("no labelled session has a family, expected some to leave out; give --labels a family column.")
    return found


def data_sets(data: Labelled) -> NDArray[np.object_]:
    """(S,) name of the data set behind each session's model: its target's, or else model's, up to the first '-'."""
    target = (
        data.sessions.model if data.target is None else np.where(data.target != "", data.target, data.sessions.model)
    )
    return np.array([str(name).split("-", 1)[0] for name in target], object)


def sessions_of(data: Labelled, thing: Thing) -> NDArray[np.int64]:
    """(n,) indices of the labelled sessions of a thing, allow-listed ones left aside; none for nothing."""
    chosen = {
        "attack": (data.family == thing.name) & (data.label == 1),
        "benign": (data.family == thing.name) & (data.label == 0),
        "dataset": data_sets(data) == thing.name,
        "none": np.zeros(len(data.label), bool),
    }[thing.kind]
    return np.flatnonzero(chosen & eligible(data))


def divide(data: Labelled, thing: Thing, config: Config) -> Parts:
    """Take a thing out: nobody who has a session of it is learned from, and what is not tested on is.

    Raises:
        DataError: too few clients or sessions are left.
    """
    left, owner = sessions_of(data, thing), coded(data.by_actor.client)[1]
    others = eligible(data) & ~np.isin(owner, owner[left])
    split = split_sessions(data.by_actor, data.label, others, config)
    if thing.kind == "none":
        return Parts(left, split)
    tested = split.test[data.label[split.test] == 0] if thing.kind == "attack" else np.zeros(0, np.int64)
    free = split.test[~np.isin(owner[split.test], owner[tested])]
    train, test = np.sort(np.concatenate([split.train, free])), np.sort(np.concatenate([left, tested]))
    return Parts(left, Split(train, split.valid, test))


def eligible(data: Labelled) -> NDArray[np.bool_]:
    """(S,) bool, the sessions that are learned from or tested on: labelled, and not allow-listed."""
    return (data.label >= 0) & ~data.allowed
