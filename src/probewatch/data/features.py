"""The FEATURES table, and its one implementation: a compiled step ``(state, query) -> row``.

A whole session is a loop over the step and a stream is the same step with carried state, so a prefix
of a session has the same rows, bit for bit, as the session itself. Every feature is causal: it knows
the query it stands at and those before it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions
from probewatch.data.scales import CLIP, SKETCH, Scales, table_of
from probewatch.errors import ConfigError, DataError

WINDOW = 32  # earlier queries that a new one is compared with
PRINTS = 64  # inputs whose change from one query to the next is watched
HALF_LIVES = (4, 32, 256)  # in queries
NEAR = 0.25  # a neighbour is nearer than this share of the usual distance between two queries
FLOOR = 1e-3  # added to a distance or gap before its logarithm
LARGEST = 3e38  # a feature is kept as float32
ODDS_FLOOR = 1e-5  # added to a probability before its log-odds: logs round to 4 to 6 digits


class Feature(NamedTuple):
    """One column: what it needs from the log (``group``) and what it says."""

    group: str
    text: str


SIGNALS = {  # followed over time: name -> what it says
    "confidence": Feature("confidence", "log-odds of the confidence"),
    "rank": Feature("scale", "share of this model's usual confidences that are not higher"),
    "gap": Feature("time", "logarithm of the gap to the previous query"),
    "nearest": Feature("inputs", "logarithm of the distance to the nearest recent query"),
    "previous": Feature("inputs", "logarithm of the distance to the previous query"),
    "changed": Feature("inputs", "share of inputs changed since the previous query"),
    "repeat": Feature("inputs", "exact repeat of a recent query"),
    "class_change": Feature("class", "predicted class other than the previous one"),
    "jump": Feature("inputs", "jump of confidence against the nearest recent query"),
    "centre": Feature("inputs", "distance from the centre of the usual queries"),
}
SPREADS = (
    "confidence",
    "rank",
    "gap",
    "nearest",
    "previous",
    "changed",
    "centre",
)  # signals whose running spread is followed too

FEATURES: dict[str, Feature] = {
    "response_confidence": Feature("confidence", "confidence of the predicted class"),
    "time_delta_since_last_query": Feature("time", "seconds since the previous query"),
    "distance_from_anchor_vector": Feature("inputs", "distance from the most confident query so far"),
    "log_odds": Feature("confidence", "log-odds of the confidence"),
    "confidence_rank": Feature("scale", "share of this model's usual confidences that are not higher"),
    "log_gap": Feature("time", "logarithm of the seconds since the previous query"),
    "nearest_distance": Feature("inputs", "distance to the nearest of the last 32 queries"),
    "previous_distance": Feature("inputs", "distance to the previous query"),
    "anchor_distance": Feature("inputs", "distance from the most confident query so far, in usual distances"),
    "changed_share": Feature("inputs", "share of inputs changed since the previous query"),
    "repeat": Feature("inputs", "exact repeat of one of the last 32 queries"),
    "class_change": Feature("class", "predicted class other than the previous one"),
    "confidence_change": Feature("confidence", "change of confidence since the previous query"),
    "nearest_confidence_change": Feature("inputs", "change of confidence against the nearest recent query"),
    "nearest_class_change": Feature("inputs", "predicted class other than that of the nearest recent query"),
    "neighbours": Feature("inputs", "how many of the last 32 queries lie near this one"),
    "centre_distance": Feature("inputs", "distance from the centre of the usual queries"),
    "constant_change": Feature("scale", "share of inputs varied that never vary on this model"),
    "events": Feature("time", "number of queries so far"),
    "elapsed": Feature("time", "time since the first query"),
    "highest_confidence": Feature("confidence", "highest confidence so far"),
    "lowest_confidence": Feature("confidence", "lowest confidence so far"),
    "lowest_nearest": Feature("inputs", "smallest distance between two queries so far"),
    "farthest": Feature("inputs", "longest distance from the centre of the usual queries so far"),
    **{
        f"{name}_mean_{life}": Feature(group, f"{text}, mean over about {life} queries")
        for name, (group, text) in SIGNALS.items()
        for life in HALF_LIVES
    },
    **{
        f"{name}_spread_{life}": Feature(SIGNALS[name].group, f"{SIGNALS[name].text}, spread over about {life} queries")
        for name in SPREADS
        for life in HALF_LIVES
    },
}
ARTICLE = tuple(FEATURES)[:3]
DEFAULT = tuple(FEATURES)[3:]

# positions in a row, in the order of FEATURES
(_CONFIDENCE, _DELTA, _ANCHOR, _LOG_ODDS, _RANK, _LOG_GAP, _NEAREST, _PREVIOUS, _BEST_DISTANCE, _CHANGED, _REPEAT,
 _CLASS_CHANGE, _CHANGE, _NEAREST_CHANGE, _NEAREST_CLASS, _NEIGHBOURS, _CENTRE, _CONSTANTS, _EVENTS, _ELAPSED,
 _HIGHEST, _LOWEST, _LEAST, _FARTHEST, _MEANS) = range(25)  # fmt: skip
_DEVIATIONS = _MEANS + len(SIGNALS) * len(HALF_LIVES)
_ROW = len(FEATURES)
_SIGNALS = len(SIGNALS)
# positions among the signals
(_S_ODDS, _S_RANK, _S_GAP, _S_NEAREST, _S_PREVIOUS, _S_CHANGED, _S_REPEAT, _S_CLASS, _S_JUMP, _S_CENTRE) = range(
    len(SIGNALS)
)
# positions in State.numbers
(_COUNT, _TIME, _FIRST, _LAST_ODDS, _LAST_CLASS, _HIGH_ODDS, _LOW_ODDS, _LEAST_NEAREST, _BEST_CONFIDENCE, _COMPARED,
 _SQUARES, _WIDTH, _MOST_CENTRE, _WEIGHT) = range(14)  # fmt: skip
_MOMENTS = len(SIGNALS) * len(HALF_LIVES)
_MEAN = _WEIGHT + _MOMENTS
_SQUARE = _MEAN + _MOMENTS
NUMBERS = _SQUARE + len(SPREADS) * len(HALF_LIVES)
_DECAY = tuple(0.5 ** (1.0 / life) for life in HALF_LIVES)
_SPREAD_OF = tuple(list(SIGNALS).index(name) for name in SPREADS)


class State(NamedTuple):
    """What the step remembers of each of K sessions, in flat arrays: 3.4 KiB a session without the anchor.

    Attributes:
        numbers: (K, NUMBERS) float64 counters and running moments.
        sketches: (K, WINDOW, SKETCH) float32, a ring of the last queries (Numba has no float16 on the CPU).
        hashes: (K, WINDOW) uint64 of the exact inputs.
        odds: (K, WINDOW) float32 log-odds of the answers.
        classes: (K, WINDOW) int32, the low half of the predicted classes' codes.
        prints: (K, PRINTS) uint8, a byte for each watched input of the previous query.
        centre: (K, SKETCH) float64 running mean of the sketches.
        best: (K, SKETCH) float32 sketch of the most confident query.
        anchor: (K, D) float64 the most confident query itself; D = 0 unless its exact distance is asked for.
    """

    numbers: NDArray[np.float64]
    sketches: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    odds: NDArray[np.float32]
    classes: NDArray[np.int32]
    prints: NDArray[np.uint8]
    centre: NDArray[np.float64]
    best: NDArray[np.float32]
    anchor: NDArray[np.float64]


def new_state(sessions: int, anchor_width: int = 0) -> State:
    """Room for the state of ``sessions`` sessions that have not begun."""
    return State(
        np.zeros((sessions, NUMBERS)),
        np.zeros((sessions, WINDOW, SKETCH), np.float32),
        np.zeros((sessions, WINDOW), np.uint64),
        np.zeros((sessions, WINDOW), np.float32),
        np.zeros((sessions, WINDOW), np.int32),
        np.zeros((sessions, PRINTS), np.uint8),
        np.zeros((sessions, SKETCH)),
        np.zeros((sessions, SKETCH), np.float32),
        np.zeros((sessions, anchor_width)),
    )


# Compiled code goes to the user's cache folder, since the package's own may be shared or read-only; where that
# cannot be written either, Numba looks for another place.
_settings = vars(numba.config)
if not _settings["CACHE_DIR"]:
    _settings["CACHE_DIR"] = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "probewatch")

# Sums may be reordered, which lets them run in vector registers; the order is then fixed in the compiled
# code, the same for every call, so prefixes stay bit-equal. NaN keeps its meaning.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


@_compiled
def _mix(value):  # type: ignore[no-untyped-def]
    """A well-mixed 64-bit word (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@_compiled
def _between(left, right):  # type: ignore[no-untyped-def]
    """Squared distance of two sketches."""
    total = np.float32(0.0)
    for p in range(SKETCH):
        delta = left[p] - right[p]
        total += delta * delta
    return total


@_compiled
def _rank(quantiles, value):  # type: ignore[no-untyped-def]
    """Share of the quantiles that are not above the value, by bisection."""
    low, high = 0, len(quantiles)
    while low < high:
        middle = (low + high) // 2
        if quantiles[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low / len(quantiles)


@_compiled
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Element by element: an assignment of slices compiles three seconds of error messages."""
    for p in range(SKETCH):
        target[p] = source[p]


@_compiled
def _sketch(inputs, centre, spread, sketch):  # type: ignore[no-untyped-def]
    """Scale, cut and project the inputs into ``sketch``.

    Returns the squared length of the scaled inputs, and how many inputs left their constant value. A
    model without a scale gets logarithmic inputs, whose differences need no scale: asinh.
    """
    sketch[:] = 0.0
    length, constants = 0.0, 0.0
    for d in range(len(inputs)):
        if len(centre) == 0:
            value = math.asinh(inputs[d])
        elif spread[d] > 0.0:
            value = (inputs[d] - centre[d]) / spread[d]
        else:
            constants += 1.0 if inputs[d] != centre[d] else 0.0
            continue
        value = min(max(value, -CLIP), CLIP)
        length += value * value
        if len(inputs) <= SKETCH:  # few columns need no projection
            sketch[d] = value
            continue
        signs = _mix(np.uint64(d + 1) * np.uint64(0x9E3779B97F4A7C15))
        for p in range(SKETCH):  # random signs: distances are kept on average (Achlioptas 2003)
            sign = np.float32(1.0 - 2.0 * ((signs >> np.uint64(p)) & np.uint64(1)))
            sketch[p] += sign * np.float32(value * 0.25)  # 0.25 = 1 / sqrt(SKETCH)
    return length, constants


@_compiled
def _digest(inputs, prints):  # type: ignore[no-untyped-def]
    """Replace the bytes of the previous query by those of this one.

    Returns a hash of the exact inputs, and the share of the watched inputs that changed.
    """
    bits = inputs.view(np.uint64)
    whole = np.uint64(14695981039346656037)
    changed = 0.0
    watched = min(len(inputs), PRINTS)
    at = 0
    for d in range(len(inputs)):
        word = np.uint64(0) if inputs[d] == 0.0 else bits[d]  # -0.0 is 0.0
        whole = _mix(whole ^ word)
        if at < watched and d == (at * len(inputs)) // watched:
            byte = np.uint8(_mix(word) >> np.uint64(56))
            changed += 1.0 if byte != prints[at] else 0.0
            prints[at] = byte
            at += 1
    return whole, changed / watched


@_compiled
def _compare(state, k, sketch, here, unit, held, seen):  # type: ignore[no-untyped-def]
    """The nearest of the ``held`` last queries: squared distance, place; neighbours; repeat."""
    nearest, at, near, repeat = np.float32(np.inf), 0, 0, 0.0
    limit = NEAR * NEAR * unit * unit
    for back in range(1, held + 1):  # the latest first: of equally near ones it is the one compared with
        w = (seen - back) % WINDOW
        distance = _between(sketch, state.sketches[k, w])
        if state.hashes[k, w] == here:
            repeat = 1.0
        if distance < nearest:
            nearest, at = distance, w
        if distance < limit:
            near += 1
    return nearest, at, near, repeat


@_compiled
def _ask(state, k, confidence, odds, klass, inputs, centre, spread, unit, row, signals, sketch):  # type: ignore[no-untyped-def]
    """What the input vector shows against the earlier ones of its session."""
    numbers = state.numbers[k]
    seen = int(numbers[_COMPARED])
    length, constants = _sketch(inputs, centre, spread, sketch)
    squares = 0.0
    for p in range(SKETCH):  # Welford 1962
        delta = sketch[p] - state.centre[k, p]
        state.centre[k, p] += delta / (seen + 1.0)
        squares += delta * (sketch[p] - state.centre[k, p])
    numbers[_SQUARES] += squares
    if len(centre) > 0:
        row[_CENTRE] = math.sqrt(length / len(inputs))
        row[_CONSTANTS] = constants / len(inputs)
    else:  # no scale of this model: the session's own running spread is the unit
        unit = math.sqrt(2.0 * numbers[_SQUARES] / (seen + 1.0))
        unit = unit if unit > 0.0 else 1.0
        row[_CENTRE] = math.sqrt(max(squares, 0.0)) / unit
    signals[_S_CENTRE] = row[_CENTRE]
    row[_FARTHEST] = numbers[_MOST_CENTRE] = max(numbers[_MOST_CENTRE], row[_CENTRE])
    here, changed = _digest(inputs, state.prints[k])
    held = min(seen, WINDOW)
    if held > 0:
        nearest, at, near, repeat = _compare(state, k, sketch, here, unit, held, seen)
        row[_NEAREST] = signals[_S_NEAREST] = math.log(FLOOR + math.sqrt(nearest) / unit)
        previous = _between(sketch, state.sketches[k, (seen - 1) % WINDOW])
        row[_PREVIOUS] = signals[_S_PREVIOUS] = math.log(FLOOR + math.sqrt(previous) / unit)
        row[_CHANGED] = signals[_S_CHANGED] = changed
        row[_REPEAT] = signals[_S_REPEAT] = repeat
        row[_NEIGHBOURS] = math.log1p(near)
        row[_NEAREST_CHANGE] = odds - state.odds[k, at]
        signals[_S_JUMP] = abs(row[_NEAREST_CHANGE])
        if klass >= 0 and state.classes[k, at] >= 0:
            row[_NEAREST_CLASS] = 1.0 if klass & 0x7FFFFFFF != state.classes[k, at] else 0.0
        numbers[_LEAST_NEAREST] = min(numbers[_LEAST_NEAREST], row[_NEAREST])
        row[_LEAST] = numbers[_LEAST_NEAREST]
    if confidence > numbers[_BEST_CONFIDENCE]:
        numbers[_BEST_CONFIDENCE] = confidence
        _copy(sketch, state.best[k])
        for d in range(min(len(inputs), state.anchor.shape[1])):
            state.anchor[k, d] = inputs[d]
    if not math.isnan(confidence):
        row[_BEST_DISTANCE] = math.log(FLOOR + math.sqrt(_between(sketch, state.best[k])) / unit)
        if state.anchor.shape[1] >= len(inputs):
            total = 0.0
            for d in range(len(inputs)):
                total += (inputs[d] - state.anchor[k, d]) ** 2
            row[_ANCHOR] = min(math.sqrt(total), LARGEST)
    w = seen % WINDOW
    _copy(sketch, state.sketches[k, w])
    state.hashes[k, w] = here
    state.odds[k, w] = odds
    state.classes[k, w] = klass & 0x7FFFFFFF if klass >= 0 else -1
    numbers[_COMPARED] = seen + 1.0


@_compiled
def _follow(numbers, signals, row):  # type: ignore[no-untyped-def]
    """Running means and spreads of the signals; a missing one leaves them as they are."""
    for signal in range(len(signals)):
        value = signals[signal]
        for life in range(len(_DECAY)):
            at = signal * len(_DECAY) + life
            if not math.isnan(value):
                numbers[_WEIGHT + at] += (1.0 - _DECAY[life]) * (1.0 - numbers[_WEIGHT + at])
                numbers[_MEAN + at] += (1.0 - _DECAY[life]) * (value - numbers[_MEAN + at])
            if numbers[_WEIGHT + at] > 0.0:
                row[_MEANS + at] = numbers[_MEAN + at] / numbers[_WEIGHT + at]
    for place in range(len(_SPREAD_OF)):
        value = signals[_SPREAD_OF[place]]
        for life in range(len(_DECAY)):
            at = place * len(_DECAY) + life
            source = _SPREAD_OF[place] * len(_DECAY) + life
            if not math.isnan(value):
                numbers[_SQUARE + at] += (1.0 - _DECAY[life]) * (value * value - numbers[_SQUARE + at])
            if numbers[_WEIGHT + source] > 0.0:
                mean = row[_MEANS + source]
                square = numbers[_SQUARE + at] / numbers[_WEIGHT + source]
                row[_DEVIATIONS + at] = math.sqrt(max(square - mean * mean, 0.0))


@_compiled
def step(state, k, time, confidence, klass, inputs, centre, spread, unit, confidences, row, signals, sketch):  # type: ignore[no-untyped-def]
    """Take one query of session ``k`` into its state and write its features to ``row``.

    ``row`` (len(FEATURES),) and ``signals`` (len(SIGNALS),) are float64 and ``sketch`` (SKETCH,) float32
    scratch room. A feature that the query does not tell is NaN.
    """
    numbers = state.numbers[k]
    row[:] = np.nan
    signals[:] = np.nan
    count = numbers[_COUNT]
    if count == 0.0:
        numbers[:] = 0.0
        numbers[_TIME] = numbers[_FIRST] = time
        numbers[_HIGH_ODDS], numbers[_LOW_ODDS] = -np.inf, np.inf
        numbers[_LAST_ODDS], numbers[_LAST_CLASS] = np.nan, -1.0
    row[_DELTA] = time - numbers[_TIME]
    row[_LOG_GAP] = math.log(FLOOR + row[_DELTA])
    if count > 0.0:
        signals[_S_GAP] = row[_LOG_GAP]
    row[_EVENTS] = math.log1p(count)
    row[_ELAPSED] = math.log1p(time - numbers[_FIRST])

    odds = np.nan
    if not math.isnan(confidence):
        odds = math.log((confidence + ODDS_FLOOR) / (1.0 - confidence + ODDS_FLOOR))
        row[_CONFIDENCE] = confidence
        row[_LOG_ODDS] = signals[_S_ODDS] = odds
        row[_CHANGE] = odds - numbers[_LAST_ODDS]
        if len(confidences) > 0:
            row[_RANK] = signals[_S_RANK] = _rank(confidences, confidence)
        row[_HIGHEST] = numbers[_HIGH_ODDS] = max(numbers[_HIGH_ODDS], odds)
        row[_LOWEST] = numbers[_LOW_ODDS] = min(numbers[_LOW_ODDS], odds)
        numbers[_LAST_ODDS] = odds
    if klass >= 0:
        if numbers[_LAST_CLASS] >= 0.0:
            row[_CLASS_CHANGE] = signals[_S_CLASS] = 1.0 if klass != numbers[_LAST_CLASS] else 0.0
        numbers[_LAST_CLASS] = klass

    if len(inputs) > 0:
        if len(inputs) != numbers[_WIDTH]:  # the first vector, or one that those before cannot be compared with
            numbers[_WIDTH] = len(inputs)
            numbers[_COMPARED] = numbers[_SQUARES] = numbers[_MOST_CENTRE] = 0.0
            numbers[_LEAST_NEAREST], numbers[_BEST_CONFIDENCE] = np.inf, -1.0
            state.centre[k] = 0.0
        _ask(state, k, confidence, odds, klass, inputs, centre, spread, unit, row, signals, sketch)
    _follow(numbers, signals, row)
    numbers[_TIME] = time
    numbers[_COUNT] = count + 1.0


@_compiled
def _run(state, slots, begins, offsets, models, time, confidence, klass, inputs, input_offsets, table, columns, out):  # type: ignore[no-untyped-def]
    """Step through all queries of all sessions; session ``s`` keeps its state in slot ``slots[s]``."""
    row = np.empty(_ROW)
    signals = np.empty(_SIGNALS)
    sketch = np.empty(SKETCH, np.float32)
    for s in range(len(offsets) - 1):
        if begins[s]:
            state.numbers[slots[s]] = 0.0
        m = models[s]
        centre = table.centre[table.inputs[m] : table.inputs[m + 1]]
        spread = table.spread[table.inputs[m] : table.inputs[m + 1]]
        confidences = table.confidences[table.quantiles[m] : table.quantiles[m + 1]]
        for i in range(offsets[s], offsets[s + 1]):
            vector = inputs[input_offsets[i] : input_offsets[i + 1]]
            fits = len(vector) == len(centre)
            step(
                state, slots[s], time[i], confidence[i], klass[i], vector,
                centre if fits else centre[:0], spread if fits else spread[:0],
                table.unit[m], confidences, row, signals, sketch,
            )  # fmt: skip
            for j in range(len(columns)):
                out[i, j] = row[columns[j]]


def check_names(names: Sequence[str]) -> None:
    """Raise :class:`ConfigError` unless every name is a feature and none comes twice."""
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise ConfigError(f"unknown features {unknown}, expected one or more of: {', '.join(FEATURES)}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"features {sorted({n for n in names if list(names).count(n) > 1})} are named twice.")


def compute(
    sessions: Sessions,
    names: Sequence[str],
    scales: Scales,
    state: State | None = None,
    slots: NDArray[np.int64] | None = None,
) -> Ragged:
    """The features of every query of ``sessions``.

    Args:
        sessions: S sessions over N queries; one with ``before`` > 0 goes on from ``state``.
        names: F names out of :data:`FEATURES`, the order of the columns.
        scales: by model; a model that is not in it is scaled by each session's own running spread.
        state: what is remembered of each slot, changed in place; needed to go on with sessions.
        slots: (S,) place of each session in ``state``; without it all take turns in the first.

    Returns:
        (N, F) float32 values, NaN where the log does not tell, with the offsets of the sessions.

    Raises:
        ConfigError: an unknown feature.
        DataError: the log has ready-made features but not one of those asked for.
    """
    check_names(names)
    missing = [name for name in ARTICLE if name in names and sessions.given and name not in sessions.given]
    if missing:
        raise DataError(f"the log has no column {missing}, expected all of {list(ARTICLE)}; add what is missing.")
    state = state or new_state(1, anchor_width(sessions, names))
    slots = np.zeros(len(sessions), np.int64) if slots is None else slots
    models, rows = np.unique(sessions.model.astype(str), return_inverse=True)
    columns = np.array([list(FEATURES).index(name) for name in names], np.int64)
    out = np.empty((len(sessions.time_s), len(names)), np.float32)
    _run(
        state, slots, sessions.before == 0, sessions.offsets, rows.astype(np.int64), sessions.time_s,
        sessions.confidence, sessions.predicted_class, sessions.inputs, sessions.input_offsets,
        table_of(scales, models.tolist()), columns, out,
    )  # fmt: skip
    for name, column in sessions.given.items():
        if name in names:
            out[:, list(names).index(name)] = column
    return Ragged(out, sessions.offsets)


def anchor_width(sessions: Sessions, names: Sequence[str]) -> int:
    """How wide :attr:`State.anchor` must be for these sessions and features; 0 if the anchor is not needed."""
    return int(np.diff(sessions.input_offsets).max(initial=0)) if ARTICLE[2] in names else 0
