"""Profile: what the owner of an attacked model knows of it, so that a query means the same on every model.

A profile holds no records: quantiles and scales of all of them, keyed hashes of the training records, and the rate
at which strangers' records coincide with one. Records of the holdout fix distributions and rates; whether a
query *is* one is never asked, since no deployment could know it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import FLOOR, ODDS_FLOOR, WINDOW
from probewatch.data.hashes import SHIFTS, fold_all, grid_of
from probewatch.data.scales import QUANTILES, Scale, Scales, learn_scale
from probewatch.data.sketches import GRAIN, sketch_all
from probewatch.data.state import Reference
from probewatch.errors import DataError

KEY_BYTES = 16
Key = bytes  # so many secret bytes
BINS = 16  # at most, of confidences whose likelihoods are compared
PER_BIN = 20  # answers of each kind that a bin should hold
CELL = 0.02  # a record is looked up in a cell of so many spreads: what is nearer is the same record
PLAIN_CELL = 1e-3  # the same for an input that never varies, of its size
NEIGHBOURHOODS = 2000  # random groups of records in which nearest distances are taken


@dataclass(frozen=True)
class Records:
    """Records of a model with its answers.

    Attributes:
        inputs: (n, D) float64.
        confidence: (n,) float64 of the predicted class, NaN where absent.
    """

    inputs: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Profile:
    """The reference distributions of one model.

    Attributes:
        scale: centre, spread, usual distance and the confidences of strangers' answers.
        edges: (E,) log-odds that part the confidences into bins; empty if either kind has no answers.
        ratios: (E + 1,) log-likelihood ratio of a confidence in each bin, training records against strangers.
        nearest: (Q,) quantiles of the logarithm of a stranger's distance to the nearest of 32 others.
        centre: (Q,) quantiles of a stranger's distance from the centre.
        widths: (D,) grid on which training records are looked up.
        hashes: (SHIFTS, R) uint64 keyed hashes of the training records; R = 0 if none are known.
        rate: share of strangers' records that coincide with a training record; NaN if R is 0.
        key: the secret of the hashes, kept apart from what is stored; empty where it is not needed.
        records: how many training and strangers' records it was made of.
        estimated: made of a log, not of records that the owner has.
    """

    scale: Scale
    edges: NDArray[np.float64]
    ratios: NDArray[np.float64]
    nearest: NDArray[np.float64]
    centre: NDArray[np.float64]
    widths: NDArray[np.float64]
    hashes: NDArray[np.uint64]
    rate: float
    key: Key
    records: tuple[int, int]
    estimated: bool = False

    def to_json(self) -> dict[str, Any]:
        """A form that JSON holds without loss; the key is not in it."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {
            "scale": self.scale.to_json(),
            **arrays,
            "hashes": base64.b64encode(self.hashes.astype("<u8").tobytes()).decode("ascii"),
            "rate": None if np.isnan(self.rate) else self.rate,
            "records": list(self.records),
            "estimated": self.estimated,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any], key: Key) -> Profile:
        """What :meth:`to_json` gave, and the key that was kept apart."""
        arrays = {name: np.array(form[name], np.float64) for name in _ARRAYS}
        hashes = np.frombuffer(base64.b64decode(form["hashes"]), "<u8").astype(np.uint64).reshape(SHIFTS, -1)
        train, strangers = (int(count) for count in form["records"])
        rate = np.nan if form["rate"] is None else float(form["rate"])
        return cls(
            scale=Scale.from_json(form["scale"]), hashes=hashes, rate=rate, key=key, records=(train, strangers),
            estimated=bool(form["estimated"]), **arrays,
        )  # fmt: skip


_ARRAYS = ("edges", "ratios", "nearest", "centre", "widths")
Profiles = Mapping[str, Profile]  # by model name


def build_profile(train: Records, holdout: Records, key: Key, model: str, *, seed: int = 0) -> Profile:
    """The profile of a model from its training records and others that it was not trained on.

    Args:
        train: the training records with the model's answers; empty if the owner has none.
        holdout: strangers' records with the model's answers.
        key: 16 secret bytes.
        model: its name in the logs, which salts the hashes.
        seed: of the groups in which nearest distances are taken.

    Raises:
        DataError: fewer than two holdout records, another width, or values that are not finite.
    """
    _check(train, holdout, model)
    random = np.random.default_rng(seed)
    both = np.concatenate([holdout.inputs, train.inputs]) if len(train) else holdout.inputs
    scale = learn_scale(both, holdout.confidence, random)
    edges, ratios = _likelihoods(train.confidence, holdout.confidence)
    distinct = np.unique(holdout.inputs, axis=0)
    grains, distances = sketch_all(distinct, scale.centre, scale.spread)
    widths = np.where(scale.spread > 0, CELL * scale.spread, PLAIN_CELL * np.maximum(np.abs(scale.centre), 1.0))
    own = derive_key(key, model)
    hashes: NDArray[np.uint64] = np.zeros((SHIFTS, 0), np.uint64)
    rate = np.nan
    if len(train):
        words = np.frombuffer(own, "<u8").astype(np.uint64)
        hashes = np.unique(fold_all(train.inputs, scale.centre, widths, words), axis=1)
        strangers = fold_all(distinct, scale.centre, widths, words)
        met = np.any([np.isin(strangers[shift], hashes[shift]) for shift in range(SHIFTS)], axis=0)
        rate = float(met.mean())
    return Profile(
        scale, edges, ratios, _nearest(grains, scale.unit, random),
        np.asarray(np.quantile(distances, QUANTILES), np.float64),
        widths, hashes, rate, own, (len(train), len(holdout)),
    )  # fmt: skip


def _check(train: Records, holdout: Records, model: str) -> None:
    if len(holdout) < 2:
        raise DataError(f"{model}: the holdout has {len(holdout)} records, expected at least 2; give more of them.")
    if len(train) and train.inputs.shape[1] != holdout.inputs.shape[1]:
        raise DataError(
            f"{model}: a training record has {train.inputs.shape[1]} inputs and one of the holdout"
            f" {holdout.inputs.shape[1]}, expected as many."
        )
    for name, records in (("training", train), ("holdout", holdout)):
        wrong = int(np.sum(~np.isfinite(records.inputs).all(axis=1)))
        if wrong:
            raise DataError(f"{model}: {wrong} {name} records have inputs that are not finite; leave them out.")


def derive_key(key: Key, model: str) -> Key:
    """The key of one model's hashes, so that a record shared by two models cannot be seen in their profiles."""
    return hashlib.blake2b(model.encode("utf-8", "surrogatepass"), key=key, digest_size=KEY_BYTES).digest()


def log_odds(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """As the compiled step takes them."""
    return np.asarray(np.log((confidence + ODDS_FLOOR) / (1.0 - confidence + ODDS_FLOOR)))


def _likelihoods(
    train: NDArray[np.float64], holdout: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bins of equal share of both kinds together, and the log-likelihood ratio in each, add-half smoothed."""
    members, strangers = log_odds(train[~np.isnan(train)]), log_odds(holdout[~np.isnan(holdout)])
    if not len(members) or not len(strangers):
        return np.zeros(0), np.zeros(0)
    bins = int(np.clip(min(len(members), len(strangers)) // PER_BIN, 2, BINS))
    between = np.linspace(0, 1, 2 * bins + 1)[1:-1]
    pooled = np.concatenate([np.quantile(kind, between) for kind in (members, strangers)])  # both count the same
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, kind, side="right"), minlength=len(edges) + 1)
        for kind in (members, strangers)
    ]
    shares = [(count + 0.5) / (count.sum() + 0.5 * len(count)) for count in counts]
    return edges, np.log(shares[0] / shares[1])


def _nearest(grains: NDArray[np.int16], unit: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Quantiles of the logarithm of a record's distance to the nearest of as many others as the step remembers."""
    chosen = random.integers(0, len(grains), (NEIGHBOURHOODS, WINDOW + 1))
    sketches = grains[chosen].astype(np.float64) / GRAIN  # (n, 33, 16)
    squares = np.sum((sketches[:, 1:] - sketches[:, :1]) ** 2, axis=2)
    squares[chosen[:, 1:] == chosen[:, :1]] = np.inf  # itself
    least = squares.min(axis=1)
    if not np.any(np.isfinite(least)):  # there is one record alone
        return np.full(len(QUANTILES), np.log(FLOOR))
    distances = np.log(FLOOR + np.sqrt(least[np.isfinite(least)]) / unit)
    return np.asarray(np.quantile(distances, QUANTILES))


def with_profiles(scales: Scales, profiles: Profiles) -> Scales:
    """``scales``, those of ``profiles`` before them."""
    return {**scales, **{model: profile.scale for model, profile in profiles.items()}}


def reference_of(profiles: Sequence[Profile | None], inputs: NDArray[np.int64]) -> Reference:
    """The profiles as the compiled step reads them, a row each.

    Args:
        inputs: (M + 1,) offsets of the models' inputs in the table of their scales.
    """
    edges = max([1, *(len(row.edges) for row in profiles if row)])
    count = len(profiles)
    found = Reference(
        np.full((count, edges), np.nan), np.zeros((count, edges + 1)),
        np.full((count, len(QUANTILES)), np.nan), np.full((count, len(QUANTILES)), np.nan),
        np.full(count, np.nan), np.zeros((count, 2), np.uint64), np.ones((int(inputs[-1]), 1 + SHIFTS)),
        np.zeros(count + 1, np.int64), np.zeros((SHIFTS, 0), np.uint64), np.zeros((SHIFTS, 0), np.int64),
    )  # fmt: skip
    hashes, numbers = [found.hashes], [found.numbers]
    for m, row in enumerate(profiles):
        found.records[m + 1] = found.records[m]
        if row is None:
            continue
        if len(row.edges):
            found.edges[m] = np.inf
            found.edges[m, : len(row.edges)] = row.edges
            found.ratios[m, : len(row.ratios)] = row.ratios
        found.nearest[m], found.centre[m] = row.nearest, row.centre
        found.grid[inputs[m] : inputs[m + 1], 0] = row.widths
        if row.hashes.shape[1]:
            found.rate[m] = row.rate
            found.keys[m] = np.frombuffer(row.key, "<u8")
            found.grid[inputs[m] : inputs[m + 1]] = grid_of(row.widths, found.keys[m])
            found.records[m + 1] += row.hashes.shape[1]
            order = np.argsort(row.hashes, axis=1)
            hashes.append(np.take_along_axis(row.hashes, order, axis=1))
            numbers.append(order)
    return found._replace(hashes=np.concatenate(hashes, axis=1), numbers=np.concatenate(numbers, axis=1))
