"""Labelled sessions, what is held out of them, and the scaling that sees training sessions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from probewatch.data.columns import FEATURES
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, coded
from probewatch.data.wording import counted
from probewatch.errors import DataError
from probewatch.learn.presets import Config

FEWEST = 2  # sessions of each class that training, validation and test need


@dataclass(frozen=True)
class Split:
    """Which sessions serve for what: (n,) int arrays of session indices, disjoint."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]

    def names(self, sessions: int) -> NDArray[np.object_]:
        """(S,) ``train``, ``valid``, ``test``, or ``left out``."""
        names = np.full(sessions, "left out", object)
        for name in ("train", "valid", "test"):
            names[getattr(self, name)] = name
        return names


def split_sessions(sessions: Sessions, label: NDArray[np.int8], eligible: NDArray[np.bool_], config: Config) -> Split:
    """Hold out test and validation sessions as ``config.split`` says.

    Args:
        sessions: S sessions.
        label: (S,) 1 attack, 0 benign.
        eligible: (S,) bool; the others (unlabelled, allow-listed, empty) go nowhere.
        config: ``split``, ``test_share``, ``valid_share``, ``split_seed``.

    Raises:
        DataError: a class is missing, or too few sessions or clients to hold any out.
    """
    usable = np.flatnonzero(eligible)
    if config.split == "stratified" and len(sessions.arrival):  # as the article: in the order of the log
        usable = usable[np.argsort(sessions.arrival[usable])]
    _check_classes(label[usable], "the log")
    divide = {"stratified": _divide_stratified, "client": _divide_by_client, "time": _divide_by_time}[config.split]
    rest, test = divide(sessions, label, usable, config.test_share, config.split_seed)
    train, valid = divide(sessions, label, rest, config.valid_share, config.split_seed)
    for name, part in (("training", train), ("validation", valid), ("test", test)):
        _check_classes(label[part], f"the {name} part")
    return Split(train, valid, test)


def _check_classes(label: NDArray[np.int8], where: str) -> None:
    counts = {"attack": int(np.sum(label == 1)), "benign": int(np.sum(label == 0))}
    for name, count in counts.items():
        if count < FEWEST:
            raise DataError(
                f"{where} has {counted(count, f'{name} session')}, expected at least {FEWEST};"
                " give --labels that name more of them, of more clients, or choose another --split."
            )


def _divide_stratified(
    sessions: Sessions, label: NDArray[np.int8], indices: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    try:
        rest, held = train_test_split(indices, test_size=share, random_state=seed, stratify=label[indices])
    except ValueError as error:
        raise DataError(f"{len(indices)} sessions are too few to hold {share:.0%} out: {error}.") from error
    return rest, held


def _divide_by_client(
    sessions: Sessions, label: NDArray[np.int8], indices: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whole clients are held out, the share taken of the clients of each class."""
    clients, of = coded(sessions.client[indices])
    attacker = np.zeros(len(clients), bool)
    np.logical_or.at(attacker, of, label[indices] == 1)
    random = np.random.default_rng(seed)
    held = np.zeros(len(clients), bool)
    for which in (attacker, ~attacker):
        members = random.permutation(np.flatnonzero(which))
        held[members[: max(1, round(share * len(members)))]] = True
        if len(members) < 2:
            raise DataError(
                f"the log has {counted(len(members), 'attacking client' if which is attacker else 'benign client')},"
                " expected at least 2"
                " to hold one out; label more clients, or use --split stratified."
            )
    return indices[~held[of]], indices[held[of]]


def _divide_by_time(
    sessions: Sessions, label: NDArray[np.int8], indices: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The latest are held out; a session that begins before the cut and ends behind it goes nowhere."""
    begins = sessions.time_s[sessions.offsets[:-1][indices]]
    finishes = sessions.time_s[sessions.offsets[1:][indices] - 1]
    cut = np.quantile(begins, 1.0 - share)
    return indices[(begins < cut) & (finishes < cut)], indices[begins >= cut]


def folds_by_client(
    sessions: Sessions, label: NDArray[np.int8], indices: NDArray[np.int64], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rest, held) for each fold of clients; every index is held exactly once.

    There are fewer folds where a class has fewer clients than that.

    Raises:
        DataError: a class has only one client.
    """
    clients, of = coded(sessions.client[indices])
    attacker = np.zeros(len(clients), bool)
    np.logical_or.at(attacker, of, label[indices] == 1)
    folds = min(folds, int(attacker.sum()), int((~attacker).sum()))
    if folds < 2:
        raise DataError(
            "training has fewer than 2 clients of one class, expected at least 2 of each to validate on;"
            " label more clients, or train with folds = 1 and --split stratified."
        )
    random = np.random.default_rng(seed)
    fold = np.empty(len(clients), np.int64)
    for which in (attacker, ~attacker):
        members = random.permutation(np.flatnonzero(which))
        fold[members] = np.arange(len(members)) % folds
    return [(indices[fold[of] != held], indices[fold[of] == held]) for held in range(folds)]


@dataclass(frozen=True)
class Scaler:
    """Mean and deviation of each feature over training steps, and how missing ones are told.

    Attributes:
        mean, deviation: (F,) float64.
        limit: scaled values are cut to plus or minus this; 0 leaves them whole.
        flags: (F, G) float32; column g averages the missing marks of the features of one group. G is 0
            where nothing may be missing.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    limit: float
    flags: NDArray[np.float32]

    @classmethod
    def fit(cls, sequences: Ragged, *, limit: float = 0.0, groups: Sequence[str] = ()) -> Scaler:
        """Fit on the steps of training sequences, laid end to end (A5).

        Args:
            groups: (F,) group of each feature; empty if nothing may be missing.
        """
        # a feature that no training session has stays at zero
        never: NDArray[np.bool_] = np.all(np.isnan(sequences.values), axis=0)
        scaler = StandardScaler().fit(np.where(never, 0.0, sequences.values.astype(np.float64)))
        names = sorted(set(groups) - {"time"})  # every query has its time
        flags = np.array([[(own == name) / list(groups).count(name) for name in names] for own in groups], np.float32)
        return cls(scaler.mean_, scaler.scale_, limit, flags.reshape(len(never), len(names)))

    def transform(self, sequences: Ragged) -> Ragged:
        """(N, F) features, NaN where missing -> (N, F + G) network inputs without NaN."""
        missing = np.isnan(sequences.values)
        scaled = ((sequences.values - self.mean) / self.deviation).astype(np.float32)
        scaled[missing] = 0.0
        if self.limit > 0:
            scaled = np.clip(scaled, -self.limit, self.limit)
        flags = missing.astype(np.float32) @ self.flags
        return Ragged(np.concatenate([scaled, flags], axis=1), sequences.offsets)


def groups_of(names: Sequence[str]) -> list[str]:
    """The group of each feature, which says what a log must hold for it."""
    return [FEATURES[name].group for name in names]
