"""The features of every query, one row after the other in plain NumPy: the bench's other side and the tests' check.

Written from the FEATURES table and DESIGN's words, with whole-array operations inside a row and no compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import (
    AFIELD,
    CANDIDATES,
    CUSTOMERS,
    FAMILIAR,
    FEATURES,
    FLOOR,
    HALF_LIVES,
    NEAR,
    ODDS_FLOOR,
    PRINTS,
    SIGNALS,
    SPREADS,
    WINDOW,
)
from probewatch.data.hashes import SHIFTS, fold_all
from probewatch.data.profile import Profile
from probewatch.data.records import Sessions
from probewatch.data.scales import CLIP, SKETCH, Scale
from probewatch.data.sketches import GRAIN
from probewatch.data.state import BITS

PLACE = {name: place for place, name in enumerate(FEATURES)}
SIGNAL = {name: place for place, name in enumerate(SIGNALS)}
FOLLOWED = [SIGNAL[name] for name in SPREADS]
DECAY = 0.5 ** (1.0 / np.array(HALF_LIVES))
MEANS = slice(PLACE[f"{next(iter(SIGNALS))}_mean_{HALF_LIVES[0]}"], PLACE[f"{SPREADS[0]}_spread_{HALF_LIVES[0]}"])
DEVIATIONS = slice(MEANS.stop, PLACE[FAMILIAR])
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def compute_by_row(
    sessions: Sessions, names: Sequence[str], scales: Mapping[str, Scale], profiles: Mapping[str, Profile] | None = None
) -> NDArray[np.float32]:
    """(N, F) float32, what ``probewatch.data.features.compute`` gives."""
    profiles = profiles or {}
    members = {model: Members(profile) for model, profile in profiles.items()}
    columns = [PLACE[name] for name in names]
    rows = np.empty((len(sessions.time_s), len(names)), np.float32)
    for s in range(len(sessions)):
        model = str(sessions.model[s])
        scale = profiles[model].scale if model in profiles else scales.get(model)
        watch = Watch(scale, profiles.get(model), members.get(model))
        for i in range(sessions.offsets[s], sessions.offsets[s + 1]):
            inputs = sessions.inputs[sessions.input_offsets[i] : sessions.input_offsets[i + 1]]
            row = watch.row(sessions.time_s[i], sessions.confidence[i], int(sessions.predicted_class[i]), inputs)
            row[PLACE[FAMILIAR]] = 1.0 if model in scales else np.nan
            rows[i] = row[columns]
    return rows


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def signs_of(width: int) -> NDArray[np.float32]:
    """(width, SKETCH) random signs of the projection."""
    words = mix(np.arange(1, width + 1, dtype=np.uint64) * GOLDEN)
    bits = (words[:, None] >> np.arange(SKETCH, dtype=np.uint64)) & np.uint64(1)
    return (1.0 - 2.0 * bits).astype(np.float32)


def digest_of(inputs: NDArray[np.float64]) -> int:
    """The hash of exact inputs from which queries are counted."""
    words = (inputs + 0.0).view(np.uint64)
    halves = []
    for start, own in ((14695981039346656037, words[::2]), (1099511628211, words[1::2])):
        whole = np.array([start], np.uint64)
        for word in own:
            whole = mix(whole ^ word)
        halves.append(whole)
    return int(mix(halves[0] ^ mix(halves[1]))[0])


class Members:
    """The training records of a profile, looked up by their hashes."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.places = [{int(value): at for at, value in enumerate(row)} for row in profile.hashes]

    def find(self, inputs: NDArray[np.float64]) -> int:
        """Which record the inputs are, -1 for none."""
        words = np.frombuffer(self.profile.key, "<u8").astype(np.uint64)
        found = fold_all(inputs[None], self.profile.scale.centre, self.profile.widths, words)
        for shift in range(SHIFTS):
            if int(found[shift, 0]) in self.places[shift]:
                return self.places[shift][int(found[shift, 0])]
        return -1


class Counter:
    """Counts different hashes by the bits that they fall on, each new one for more the fewer bits are free."""

    def __init__(self) -> None:
        self.bits = np.zeros(BITS, bool)
        self.count = 0.0

    def add(self, value: int) -> None:
        at = value % BITS
        if not self.bits[at]:
            self.count += BITS / np.count_nonzero(~self.bits)
            self.bits[at] = True


class Watch:
    """One session, query after query."""

    def __init__(self, scale: Scale | None, profile: Profile | None = None, members: Members | None = None) -> None:
        self.scale = scale
        self.profile = profile
        self.members = members
        self.different, self.touched = Counter(), Counter()
        self.ground, self.taken, self.for_answers, self.for_records = 0, 0, 0.0, 0.0
        self.count = 0
        self.first = self.time = self.last_odds = np.nan
        self.high, self.low = -np.inf, np.inf
        self.last_class = -1
        self.width = 0
        self.weight = np.zeros((len(SIGNALS), len(HALF_LIVES)))
        self.mean = np.zeros((len(SIGNALS), len(HALF_LIVES)))
        self.variance = np.zeros((len(SIGNALS), len(HALF_LIVES)))

    def row(self, time: float, confidence: float, klass: int, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(len(FEATURES),) the features of the next query."""
        row = np.full(len(FEATURES), np.nan)
        signals = np.full(len(SIGNALS), np.nan)
        self._times(time, row, signals)
        odds = self._answer(confidence, row, signals)
        if klass >= 0:
            if self.last_class >= 0:
                row[PLACE["class_change"]] = signals[SIGNAL["class_change"]] = float(klass != self.last_class)
            self.last_class = klass
        if len(inputs):
            if len(inputs) != self.width:
                self._begin(len(inputs))
            self._question(confidence, odds, klass, inputs, row, signals)
        self._moments(row, signals)
        self.count += 1
        return row

    def _times(self, time: float, row: NDArray[Any], signals: NDArray[Any]) -> None:
        if self.count == 0:
            self.first = self.time = time
        delta = time - self.time
        row[PLACE["time_delta_since_last_query"]] = delta
        row[PLACE["log_gap"]] = np.log(FLOOR + delta)
        if self.count:
            signals[SIGNAL["gap"]] = row[PLACE["log_gap"]]
        row[PLACE["events"]] = np.log1p(self.count)
        row[PLACE["elapsed"]] = np.log1p(time - self.first)
        self.time = time

    def _answer(self, confidence: float, row: NDArray[Any], signals: NDArray[Any]) -> float:
        if np.isnan(confidence):
            return np.nan
        odds = float(np.log((confidence + ODDS_FLOOR) / (1.0 - confidence + ODDS_FLOOR)))
        row[PLACE["response_confidence"]] = confidence
        row[PLACE["log_odds"]] = signals[SIGNAL["confidence"]] = odds
        row[PLACE["confidence_change"]] = odds - self.last_odds
        if self.scale is not None and len(self.scale.confidences):
            rank = np.mean(self.scale.confidences <= confidence)
            row[PLACE["confidence_rank"]] = signals[SIGNAL["rank"]] = rank
        if self.profile is not None and len(self.profile.edges):
            place = np.searchsorted(self.profile.edges, odds, side="right")
            row[PLACE["member_ratio"]] = signals[SIGNAL["ratio"]] = self.profile.ratios[place]
        row[PLACE["highest_confidence"]] = self.high = max(self.high, odds)
        row[PLACE["lowest_confidence"]] = self.low = min(self.low, odds)
        self.last_odds = odds
        return odds

    def _begin(self, width: int) -> None:
        """Vectors of a new width cannot be compared with those before."""
        self.width, self.compared = width, 0
        self.signs = signs_of(width)
        scaled = self.scale is not None and len(self.scale.centre) == width
        self.reference = self.scale if scaled else None
        self.known = self.profile if scaled else None
        self.watched = np.arange(min(width, PRINTS)) * width // min(width, PRINTS)
        self.sketches = np.zeros((WINDOW, SKETCH))
        self.vectors = np.zeros((WINDOW, width))
        self.records = np.zeros(WINDOW, bool)
        self.odds = np.zeros(WINDOW, np.float32)
        self.classes = np.zeros(WINDOW, np.int64)
        self.centre, self.squares, self.farthest, self.least = np.zeros(SKETCH), 0.0, 0.0, np.inf
        self.best_confidence = -1.0
        self.held: NDArray[np.float64] | None = None

    def _question(
        self, confidence: float, odds: float, klass: int, inputs: NDArray[Any], row: NDArray[Any], signals: NDArray[Any]
    ) -> None:
        sketch, unit = self._place(inputs, row)
        signals[SIGNAL["centre"]] = row[PLACE["centre_distance"]]
        row[PLACE["farthest"]] = self.farthest = max(self.farthest, row[PLACE["centre_distance"]])
        record = self.members.find(inputs) if self.known is not None and self.members is not None else -1
        self.beside = False
        prints = mix((inputs[self.watched] + 0.0).view(np.uint64)) >> np.uint64(56)
        if self.compared:
            self._compare(inputs, sketch, unit, odds, klass, row, signals)
            changed = np.mean(prints != self.prints)
            row[PLACE["changed_share"]] = signals[SIGNAL["changed"]] = changed
        if confidence > self.best_confidence:
            self.best_confidence, self.best, self.anchor = confidence, sketch, inputs
        if not np.isnan(confidence):
            row[PLACE["anchor_distance"]] = np.log(FLOOR + np.linalg.norm(sketch - self.best) / unit)
            row[PLACE["distance_from_anchor_vector"]] = np.linalg.norm(inputs - self.anchor)
        if self.known is not None:
            row[PLACE["centre_rank"]] = np.mean(self.known.centre <= row[PLACE["centre_distance"]])
            nearest, ratio = row[PLACE["nearest_rank"]], row[PLACE["member_ratio"]]
            anew = bool(np.isnan(nearest) or (nearest > AFIELD and row[PLACE["repeat"]] == 0.0))
            self.ground += anew
            self.taken += anew and record >= 0
            row[PLACE["anchors"]] = np.log1p(self.ground)
            if not np.isnan(ratio):
                evidence = np.log(1.0 - CANDIDATES + CANDIDATES * np.exp(ratio))
                self.for_answers = max(0.0, self.for_answers + evidence * anew)
                row[PLACE["answer_evidence"]] = np.log1p(self.for_answers)
            self._touch(inputs, record, anew, self.known.rate, row, signals)
            self.held = sketch if record >= 0 else self.held
            if self.held is not None:
                row[PLACE["record_distance"]] = np.log(FLOOR + np.linalg.norm(sketch - self.held) / unit)
                signals[SIGNAL["around"]] = row[PLACE["record_distance"]] if record < 0 else np.nan
        at = self.compared % WINDOW
        self.records[at] = record >= 0
        self.sketches[at], self.vectors[at], self.odds[at], self.classes[at] = sketch, inputs, odds, klass
        self.prints = prints
        self.compared += 1

    def _touch(
        self, inputs: NDArray[Any], record: int, anew: bool, rate: float, row: NDArray[Any], signals: NDArray[Any]
    ) -> None:
        if np.isnan(rate):
            return
        usual = rate + CUSTOMERS * (1.0 - rate)
        chosen = usual + CANDIDATES * (1.0 - usual)
        evidence = np.log(chosen / usual) if record >= 0 else np.log((1.0 - chosen) / (1.0 - usual))
        self.for_records = max(0.0, self.for_records + evidence * anew)
        row[PLACE["record_evidence"]] = np.log1p(self.for_records)
        row[PLACE["anchor_share"]] = self.taken / self.ground
        self.different.add(digest_of(inputs))
        if record >= 0:
            self.touched.add(int(mix(np.array([record + 1], np.uint64))[0]))
        queries, records = self.different.count, self.touched.count
        row[PLACE["on_record"]] = signals[SIGNAL["touch"]] = float(record >= 0)
        row[PLACE["near_record"]] = float(record >= 0 or self.beside)
        row[PLACE["records_touched"]] = np.log1p(records)
        row[PLACE["records_share"]] = min(records / queries, 1.0)
        deviation = np.sqrt(rate * (1.0 - rate) * queries + 1.0)
        row[PLACE["records_excess"]] = np.arcsinh((records - rate * queries) / deviation)

    def _place(self, inputs: NDArray[Any], row: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """The sketch, as it is kept, and the usual distance; writes where the query lies among the usual ones."""
        reference = self.reference
        if reference is None:
            scaled = np.arcsinh(inputs)
        else:
            varies = reference.spread > 0
            scaled = np.zeros(len(inputs))
            np.divide(inputs - reference.centre, reference.spread, out=scaled, where=varies)
        scaled = np.clip(scaled, -CLIP, CLIP)
        if len(inputs) <= SKETCH:
            sketch = np.zeros(SKETCH)
            sketch[: len(inputs)] = scaled
        else:
            sketch = (self.signs * (scaled * 0.25)[:, None]).sum(axis=0)
        before = sketch - self.centre
        self.centre = self.centre + before / (self.compared + 1)
        squares = before @ (sketch - self.centre)
        self.squares += squares
        sketch = np.clip(np.round(sketch * GRAIN), -32767, 32767) / GRAIN
        if reference is not None:
            row[PLACE["centre_distance"]] = np.sqrt(np.mean(scaled * scaled))
            row[PLACE["constant_change"]] = np.mean(~varies & (inputs != reference.centre))
            return sketch, reference.unit
        unit = np.sqrt(2.0 * self.squares / (self.compared + 1)) or 1.0
        row[PLACE["centre_distance"]] = np.sqrt(max(squares, 0.0)) / unit
        return sketch, unit

    def _compare(
        self, inputs: NDArray[Any], sketch: NDArray[Any], unit: float, odds: float, klass: int,
        row: NDArray[Any], signals: NDArray[Any],
    ) -> None:  # fmt: skip
        order = np.arange(self.compared - 1, max(self.compared - WINDOW, 0) - 1, -1) % WINDOW  # the latest first
        distances = np.sqrt(((self.sketches[order] - sketch) ** 2).sum(axis=1))
        at = order[distances.argmin()]
        row[PLACE["nearest_distance"]] = signals[SIGNAL["nearest"]] = np.log(FLOOR + distances.min() / unit)
        row[PLACE["previous_distance"]] = signals[SIGNAL["previous"]] = np.log(FLOOR + distances[0] / unit)
        self.beside = bool(distances.min() < NEAR * unit and self.records[at])
        if self.known is not None:
            nearness = np.mean(self.known.nearest <= row[PLACE["nearest_distance"]])
            row[PLACE["nearest_rank"]] = signals[SIGNAL["nearness"]] = nearness
        row[PLACE["repeat"]] = signals[SIGNAL["repeat"]] = (self.vectors[order] == inputs).all(axis=1).any()
        row[PLACE["neighbours"]] = np.log1p(np.count_nonzero(distances < NEAR * unit))
        row[PLACE["nearest_confidence_change"]] = odds - self.odds[at]
        signals[SIGNAL["jump"]] = abs(row[PLACE["nearest_confidence_change"]])
        if klass >= 0 and self.classes[at] >= 0:
            row[PLACE["nearest_class_change"]] = klass != self.classes[at]
        row[PLACE["lowest_nearest"]] = self.least = min(self.least, row[PLACE["nearest_distance"]])

    def _moments(self, row: NDArray[Any], signals: NDArray[Any]) -> None:
        known = ~np.isnan(signals)
        self.weight[known] += (1.0 - DECAY) * (1.0 - self.weight[known])
        share = (1.0 - DECAY) / self.weight[known]
        off = signals[known, None] - self.mean[known]
        self.mean[known] += share * off
        self.variance[known] = (1.0 - share) * (self.variance[known] + share * off**2)
        told = np.where(self.weight > 0.0, 1.0, np.nan)
        row[MEANS] = (self.mean * told).reshape(-1)
        row[DEVIATIONS] = (np.sqrt(self.variance) * told)[FOLLOWED].reshape(-1)
