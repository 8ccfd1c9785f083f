"""Published rules that look for an attack in the raw queries alone: Elastic's count, PRADA, Blacklight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from probewatch.data.records import Sessions, ranges

Scores = NDArray[np.float64]

WINDOW_S = 3600.0  # Elastic's rule counts within 60 minutes

PRADA_QUERIES = 500  # the test costs the square of them
PRADA_DISTANCES = 20  # the authors wait for 100; many sessions are shorter than that
PRADA_CLASS_DISTANCES = 10  # a class counts from so many on, as in their implementation
PRADA_OUTLIER_SIGMA = 3.0  # as there

FINGERPRINT = 50  # Blacklight keeps the top 50 hashes of a query
BLACKLIGHT_WINDOW = 20  # numbers hashed together, its setting for small images
BLACKLIGHT_STEP = 50 / 255  # its quantisation there: steps of 50 on pixels from 0 to 255
LOOK_BACK = 1000  # earlier queries of the client to compare with: bounds the cost
BLOCK = 512  # queries compared at a time

INPUT_LIMIT = 1e100  # beyond it differences and squares overflow
SCALED_LIMIT = 1e6  # spreads from the median; beyond them an input is as far as can be


def count_per_hour(sessions: Sessions) -> Scores:
    """(S,) the most queries that the client sent to the session's model within 60 minutes of the session.

    Elastic's rule "AWS Bedrock High-Frequency Single-Model Inference API Probing" (detection-rules 6256,
    June 2026) alerts at 500 calls of one principal to one model in 60 minutes; this score reaches 500 exactly
    where the rule, run after every query, alerts. Windows end at a query of the session, so a session is not
    blamed for what the client does afterwards, and all of the client's given sessions count.
    """
    most = np.zeros(len(sessions))
    for members in _groups(sessions.client, sessions.model):
        lengths = sessions.lengths[members]
        times = sessions.time_s[ranges(sessions.offsets[members], lengths)]
        ordered = np.sort(times)
        until = np.searchsorted(ordered, times, side="right")
        within = until - np.searchsorted(ordered, times - WINDOW_S, side="right")
        np.maximum.at(most, np.repeat(members, lengths), within)
    return most


def prada(sessions: Sessions, train: NDArray[np.integer]) -> Scores:
    """(S,) 1 - W of the Shapiro-Wilk test on the distances between a session's queries; 0 if not tested.

    PRADA (Juuti et al. 2019, "PRADA: Protecting against DNN Model Stealing Attacks", EuroS&P, with the
    authors' implementation): take the minimum distance of each query to the earlier ones of the same
    predicted class, without outliers beyond 3 standard deviations. Benign clients' are near normal; W below
    a threshold is an attack.

    Four things differ. A query is compared with every earlier one of its class, not with a growing set of
    distant ones. Inputs are columns of unequal scale, so each is divided by its spread in the training
    sessions. A session is tested from 20 distances on, not 100, and by its first 500 queries only. Distances
    that are all equal say nothing and score 0.
    """
    scores = np.zeros(len(sessions))
    for group in _scaled_groups(sessions, train):
        for session, rows in group.by_session():
            rows = rows[:PRADA_QUERIES]
            scores[session] = _non_normality(group.inputs[rows], sessions.predicted_class[group.queries[rows]])
    return scores


def _non_normality(inputs: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    earlier = np.tri(len(inputs), k=-1, dtype=bool) & (classes[:, None] == classes)
    nearest = np.where(earlier, cdist(inputs, inputs), np.inf).min(axis=1, initial=np.inf)  # (T,)
    seen = np.isfinite(nearest)
    counts = (classes[:, None] == classes[seen]).sum(axis=1)  # distances of each query's class
    distances = nearest[seen & (counts >= PRADA_CLASS_DISTANCES)]
    if len(distances):
        off_mean = np.abs(distances - distances.mean())
        distances = distances[off_mean <= PRADA_OUTLIER_SIGMA * distances.std()]
    if len(distances) < PRADA_DISTANCES or np.ptp(distances) <= 1e-9 * np.abs(distances).max():
        return 0.0
    return float(1.0 - stats.shapiro(distances).statistic)


def near_duplicates(sessions: Sessions, train: NDArray[np.integer], *, seed: int) -> Scores:
    """(S,) how many of a session's queries nearly repeat an earlier query of the same client on the model.

    Blacklight (Li et al. 2022, "Blacklight: Scalable Defense for Neural Networks against Query-Based
    Black-Box Attacks", USENIX Security, with the authors' implementation): a query is quantised with a secret
    salt, every window of it is hashed, the top 50 hashes are its fingerprint, and it matches an earlier query
    with which it shares more than half of them. There one match raises the alert, which is where this score
    reaches 1. An exact repeat is a match too.

    The quantisation step is theirs, 50 of 255, of the column's spread in the training sessions. A vector too
    short for 50 windows of 20 numbers is hashed number by number, each with its column: where columns hold
    few distinct values, unrelated records match as well.
    """
    counts = np.zeros(len(sessions))
    for group in _scaled_groups(sessions, train):
        for rows in group.by_client(sessions):
            matched = _matches_earlier(_fingerprints(group.inputs[rows], np.random.default_rng(seed)))
            np.add.at(counts, group.owners[rows], matched)
    return counts


def _fingerprints(inputs: NDArray[np.float64], salt: np.random.Generator) -> NDArray[np.uint64]:
    """(n, K) the K smallest hashes of each of n scaled inputs: K is 50, or all where there are fewer."""
    width = inputs.shape[1]
    window = BLACKLIGHT_WINDOW if width - BLACKLIGHT_WINDOW + 1 >= FINGERPRINT else 1
    levels = np.floor(inputs / BLACKLIGHT_STEP + salt.random(width)).astype(np.int64).view(np.uint64)
    windows = sliding_window_view(levels, window, axis=1)  # (n, windows, window)
    places = salt.integers(1 << 63, size=windows.shape[1], dtype=np.uint64)
    hashes = _mixed(windows @ salt.integers(1 << 63, size=window, dtype=np.uint64) + places)
    kept = min(FINGERPRINT, hashes.shape[1])
    return np.partition(hashes, kept - 1, axis=1)[:, :kept]


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): any bit of the input changes half of the output's."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _matches_earlier(prints: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) whether a query shares more than half of its hashes with one of the LOOK_BACK before it."""
    matched = np.zeros(len(prints), bool)
    for start in range(0, len(prints), BLOCK):
        first = max(start - LOOK_BACK, 0)
        near = prints[first : start + BLOCK]  # (W, K)
        codes = np.unique(near, return_inverse=True)[1].reshape(near.shape)
        ends = np.arange(0, codes.size + 1, near.shape[1])
        holds = sparse.csr_array((np.ones(codes.size, np.int32), codes.ravel(), ends))  # (W, distinct hashes)
        shared = (holds[start - first :] @ holds.T).toarray()  # (B, W)
        age = np.arange(start - first, len(near))[:, None] - np.arange(len(near))
        best = np.where((age > 0) & (age <= LOOK_BACK), shared, 0).max(axis=1)
        matched[start : start + BLOCK] = best > prints.shape[1] / 2
    return matched


@dataclass(frozen=True)
class _Group:
    """n queries of one model in log order: (n,) their numbers and sessions, (n, D) their scaled inputs."""

    queries: NDArray[np.int64]
    owners: NDArray[np.int64]
    inputs: NDArray[np.float64]

    def by_session(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each session with its rows, in time order."""
        owners, starts = np.unique(self.owners, return_index=True)
        for owner, rows in zip(owners, np.split(np.arange(len(self.owners)), starts[1:]), strict=True):
            yield int(owner), rows

    def by_client(self, sessions: Sessions) -> Iterator[NDArray[np.int64]]:
        """The rows of each client, in time order."""
        for members in _groups(sessions.client[self.owners]):
            yield members[np.argsort(sessions.time_s[self.queries[members]], kind="stable")]


def _scaled_groups(sessions: Sessions, train: NDArray[np.integer]) -> Iterator[_Group]:
    """Queries by model, scaled by its training sessions; on a model that has none, by their own client's."""
    trained = np.isin(np.arange(len(sessions)), train)
    seen = np.isin(sessions.model, sessions.model[trained])
    for members in _groups(sessions.model, np.where(seen, "", sessions.client)):
        lengths = sessions.lengths[members]
        queries = ranges(sessions.offsets[members], lengths)
        widths = np.diff(sessions.input_offsets)[queries]
        owners = np.repeat(members, lengths)
        reference = trained[owners] | ~seen[owners]
        usual = np.bincount(widths[reference & (widths > 0)], minlength=1).argmax()
        fits = (widths == usual) & (usual > 0)
        starts = sessions.input_offsets[queries[fits]]
        if len(starts):
            inputs = sessions.inputs[ranges(starts, widths[fits])].reshape(len(starts), -1)
            yield _Group(queries[fits], owners[fits], _scaled(inputs, reference[fits]))


def _scaled(inputs: NDArray[np.float64], reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, D) inputs as distances from the reference rows' median, in units of their 5 % to 95 % range.

    A column that seldom varies is measured by its full range, one that never does is dropped, and a
    value that is missing counts as the median.
    """
    inputs = np.clip(np.where(np.isfinite(inputs), inputs, np.nan), -INPUT_LIMIT, INPUT_LIMIT)
    inputs[:, np.isnan(inputs[reference]).all(axis=0)] = 0.0
    least, low, centre, high, most = np.nanquantile(inputs[reference], [0.0, 0.05, 0.5, 0.95, 1.0], axis=0)
    spread = np.where(high > low, high - low, most - least)
    if not spread.any():  # a model that is always asked the same: keep its columns, at distance 0
        spread = np.ones_like(spread)
    varied = spread > 0
    with np.errstate(over="ignore"):
        scaled = (inputs[:, varied] - centre[varied]) / spread[varied]
    return np.asarray(np.nan_to_num(np.clip(scaled, -SCALED_LIMIT, SCALED_LIMIT), nan=0.0), np.float64)


def _groups(*keys: NDArray[np.object_]) -> Iterator[NDArray[np.int64]]:
    """The indices at which the keys are the same, a group at a time, in the order of first appearance."""
    places: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(zip(*keys, strict=True)):
        places.setdefault(key, []).append(index)
    for indices in places.values():
        yield np.array(indices, np.int64)
