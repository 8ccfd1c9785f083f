"""The one implementation of the features: a compiled step ``(state, query) -> row``.

A whole session is a loop over the step and a stream is the same step with carried state, so a prefix
of a session has the same rows, bit for bit, as the session itself. Every feature is causal: it knows
the query it stands at and those before it.
"""

from __future__ import annotations

import math

import numpy as np

from probewatch.data.columns import (
    AFIELD,
    CANDIDATES,
    CUSTOMERS,
    FEATURES,
    FLOOR,
    HALF_LIVES,
    NEAR,
    ODDS_FLOOR,
    SIGNALS,
    SPREADS,
    WINDOW,
)
from probewatch.data.compiled import compiled, inlined, inner
from probewatch.data.hashes import find_record, mark
from probewatch.data.scales import SKETCH
from probewatch.data.sketches import between, digest, distances, grains_of, mix, project, rank
from probewatch.data.state import NUMBERS, Model

LARGEST = 3e38  # a feature is kept as float32

# positions in a row, in the order of FEATURES
(_CONFIDENCE, _DELTA, _ANCHOR, _LOG_ODDS, _RANK, _LOG_GAP, _NEAREST, _PREVIOUS, _BEST_DISTANCE, _CHANGED, _REPEAT,
 _CLASS_CHANGE, _CHANGE, _NEAREST_CHANGE, _NEAREST_CLASS, _NEIGHBOURS, _CENTRE, _CONSTANTS, _EVENTS, _ELAPSED,
 _HIGHEST, _LOWEST, _LEAST, _FARTHEST, _RATIO, _NEAREST_RANK, _CENTRE_RANK, _ON_RECORD, _NEAR_RECORD, _AROUND, _TOUCHED,
 _SHARE, _ANCHORS, _ANSWERS, _ANCHOR_SHARE, _EVIDENCE, _EXCESS, _MEANS) = range(38)  # fmt: skip
_DEVIATIONS = _MEANS + len(SIGNALS) * len(HALF_LIVES)
_ROW = len(FEATURES)
_SIGNALS = len(SIGNALS)
# positions among the signals
(_S_ODDS, _S_RANK, _S_GAP, _S_NEAREST, _S_PREVIOUS, _S_CHANGED, _S_REPEAT, _S_CLASS, _S_JUMP, _S_CENTRE, _S_RATIO,
 _S_NEARNESS, _S_AROUND, _S_TOUCH) = range(len(SIGNALS))  # fmt: skip
# positions in State.numbers
(_COUNT, _TIME, _FIRST, _LAST_ODDS, _LAST_CLASS, _HIGH_ODDS, _LOW_ODDS, _LEAST_NEAREST, _BEST_CONFIDENCE, _COMPARED,
 _SQUARES, _WIDTH, _MOST_CENTRE, _DIFFERENT, _RECORDS, _GROUND, _TAKEN,
 _FOR_ANSWERS, _FOR_RECORDS, _HELD) = range(NUMBERS)  # fmt: skip
_DECAY = tuple(0.5 ** (1.0 / life) for life in HALF_LIVES)
_SPREAD_OF = tuple(list(SIGNALS).index(name) for name in SPREADS)


@inner
def _locate(state, k, inputs, model, room):  # type: ignore[no-untyped-def]
    """Where the query lies: its sketch, and how far it is from the centre. Returns the unit of distances."""
    numbers, row = state.numbers[k], room.row
    sketch = room.sketch
    seen = numbers[_COMPARED]
    length, constants = project(inputs, model.centre, model.spread, room.signs, room.scaled, sketch)
    moved = 0.0
    for p in range(SKETCH):  # Welford 1962
        delta = sketch[p] - state.centre[k, p]
        state.centre[k, p] += delta / (seen + 1.0)
        moved += delta * (sketch[p] - state.centre[k, p])
    numbers[_SQUARES] += moved
    unit = model.unit
    if len(model.centre) > 0:
        row[_CENTRE] = math.sqrt(length / len(inputs))
        row[_CONSTANTS] = constants / len(inputs)
    else:  # no scale of this model: the session's own running spread is the unit
        unit = math.sqrt(2.0 * numbers[_SQUARES] / (seen + 1.0))
        unit = unit if unit > 0.0 else 1.0
        row[_CENTRE] = math.sqrt(max(moved, 0.0)) / unit
    room.signals[_S_CENTRE] = row[_CENTRE]
    row[_FARTHEST] = numbers[_MOST_CENTRE] = max(numbers[_MOST_CENTRE], row[_CENTRE])
    grains_of(sketch, room.grains)
    return unit


@inner
def _compare(state, k, odds, klass, here, changed, unit, room):  # type: ignore[no-untyped-def]
    """What the query shows against the last ones of its session. Returns whether a training record is beside it."""
    numbers, row, signals, squares = state.numbers[k], room.row, room.signals, room.squares
    seen = int(numbers[_COMPARED])
    if seen == 0:
        return False
    distances(room.grains, state.sketches, k, squares)
    nearest, at, near, repeat = np.float32(np.inf), 0, 0, 0.0
    limit = NEAR * NEAR * unit * unit
    for back in range(1, min(seen, WINDOW) + 1):  # the latest first: of equally near ones it is the one compared with
        w = (seen - back) % WINDOW
        if state.hashes[k, w] == here:
            repeat = 1.0
        if squares[w] < nearest:
            nearest, at = squares[w], w
        if squares[w] < limit:
            near += 1
    row[_NEAREST] = signals[_S_NEAREST] = math.log(FLOOR + math.sqrt(nearest) / unit)
    previous = squares[(seen - 1) % WINDOW]
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
    return math.sqrt(nearest) < NEAR * unit and state.records[k, at]


@inner
def _climb(state, k, confidence, inputs, unit, room):  # type: ignore[no-untyped-def]
    """How far the query is from the most confident one so far."""
    numbers, row, grains = state.numbers[k], room.row, room.grains
    if confidence > numbers[_BEST_CONFIDENCE]:
        numbers[_BEST_CONFIDENCE] = confidence
        for p in range(SKETCH):
            state.best[k, p] = grains[p]
        for d in range(min(len(inputs), state.anchor.shape[1])):
            state.anchor[k, d] = inputs[d]
    if not math.isnan(confidence):
        row[_BEST_DISTANCE] = math.log(FLOOR + math.sqrt(between(grains, state.best, k)) / unit)
        if state.anchor.shape[1] >= len(inputs):
            total = 0.0
            for d in range(len(inputs)):
                total += (inputs[d] - state.anchor[k, d]) ** 2
            row[_ANCHOR] = min(math.sqrt(total), LARGEST)


@inner
def _advance(numbers, row, record):  # type: ignore[no-untyped-def]
    """Queries on new ground, and what their answers say (Page 1954: a sum that starts anew below zero).

    Returns whether this one is on new ground.
    """
    anew = math.isnan(row[_NEAREST_RANK]) or (row[_NEAREST_RANK] > AFIELD and row[_REPEAT] == 0.0)
    if anew:
        numbers[_GROUND] += 1.0
        numbers[_TAKEN] += 1.0 if record >= 0 else 0.0
        if not math.isnan(row[_RATIO]):
            evidence = math.log(1.0 - CANDIDATES + CANDIDATES * math.exp(row[_RATIO]))
            numbers[_FOR_ANSWERS] = max(0.0, numbers[_FOR_ANSWERS] + evidence)
    row[_ANCHORS] = math.log1p(numbers[_GROUND])
    if not math.isnan(row[_RATIO]):
        row[_ANSWERS] = math.log1p(numbers[_FOR_ANSWERS])
    return anew


@inner
def _touch(state, k, here, record, beside, anew, rate, row, signals):  # type: ignore[no-untyped-def]
    """How many training records the session has touched, against what strangers would."""
    if math.isnan(rate):
        return
    numbers = state.numbers[k]
    numbers[_DIFFERENT] += mark(state.different, k, here)
    if record >= 0:
        numbers[_RECORDS] += mark(state.touched, k, mix(np.uint64(record + 1)))
    row[_ON_RECORD] = signals[_S_TOUCH] = 1.0 if record >= 0 else 0.0
    row[_NEAR_RECORD] = 1.0 if record >= 0 or beside else 0.0
    row[_TOUCHED] = math.log1p(numbers[_RECORDS])
    row[_SHARE] = min(numbers[_RECORDS] / numbers[_DIFFERENT], 1.0)
    row[_ANCHOR_SHARE] = numbers[_TAKEN] / numbers[_GROUND]
    if anew:
        usual = rate + CUSTOMERS * (1.0 - rate)
        chosen = usual + CANDIDATES * (1.0 - usual)
        evidence = math.log(chosen / usual) if record >= 0 else math.log((1.0 - chosen) / (1.0 - usual))
        numbers[_FOR_RECORDS] = max(0.0, numbers[_FOR_RECORDS] + evidence)
    row[_EVIDENCE] = math.log1p(numbers[_FOR_RECORDS])
    chance = rate * numbers[_DIFFERENT]
    row[_EXCESS] = math.asinh((numbers[_RECORDS] - chance) / math.sqrt(chance * (1.0 - rate) + 1.0))


@inner
def _circle(state, k, record, unit, room):  # type: ignore[no-untyped-def]
    """How far the query is from the last training record touched: what is made up around one is told by that."""
    numbers, row = state.numbers[k], room.row
    if record >= 0:
        numbers[_HELD] = 1.0
        for p in range(SKETCH):
            state.record[k, p] = room.grains[p]
    if numbers[_HELD] > 0.0:
        row[_AROUND] = math.log(FLOOR + math.sqrt(between(room.grains, state.record, k)) / unit)
        room.signals[_S_AROUND] = row[_AROUND] if record < 0 else np.nan


@inner
def _keep(state, k, odds, klass, here, record, grains):  # type: ignore[no-untyped-def]
    """Put the query among the last ones of its session."""
    w = int(state.numbers[k, _COMPARED]) % WINDOW
    for p in range(SKETCH):
        state.sketches[k, p, w] = grains[p]
    state.records[k, w] = record >= 0
    state.hashes[k, w] = here
    state.odds[k, w] = odds
    state.classes[k, w] = klass & 0x7FFFFFFF if klass >= 0 else -1
    state.numbers[k, _COMPARED] += 1.0


@inlined
def _ask(state, k, confidence, odds, klass, inputs, model, reference, room):  # type: ignore[no-untyped-def]
    """What the input vector shows against the earlier ones of its session."""
    unit = _locate(state, k, inputs, model, room)
    here, changed = digest(inputs, state.prints, k)
    beside = _compare(state, k, odds, klass, here, changed, unit, room)
    _climb(state, k, confidence, inputs, unit, room)
    record = -1
    if len(model.grid) > 0:
        row, signals, m = room.row, room.signals, model.number
        record = find_record(reference, model, inputs)
        row[_CENTRE_RANK] = rank(reference.centre[m], row[_CENTRE])
        if not math.isnan(row[_NEAREST]):
            row[_NEAREST_RANK] = signals[_S_NEARNESS] = rank(reference.nearest[m], row[_NEAREST])
        anew = _advance(state.numbers[k], row, record)
        _touch(state, k, here, record, beside, anew, reference.rate[m], row, signals)
        _circle(state, k, record, unit, room)
    _keep(state, k, odds, klass, here, record, room.grains)


@inner
def _recall(state, k, hashed, row, signals):  # type: ignore[no-untyped-def]
    """What the hash of an input vector shows, where the log has no more of it: whether it is a repeat."""
    seen = int(state.numbers[k, _COMPARED])
    repeat = 0.0
    for w in range(min(seen, WINDOW)):
        if state.hashes[k, w] == hashed:
            repeat = 1.0
    if seen > 0:
        row[_REPEAT] = signals[_S_REPEAT] = repeat
    state.hashes[k, seen % WINDOW] = hashed
    state.numbers[k, _COMPARED] = seen + 1.0


@inner
def _follow(moments, k, signals, row):  # type: ignore[no-untyped-def]
    """Running means and spreads of the signals (West 1979); a missing one leaves them as they are.

    Those of one life lie side by side and go through vector registers, so nothing here branches.
    """
    nothing = np.float32(np.nan)
    for life in range(len(_DECAY)):
        rate = np.float32(1.0 - _DECAY[life])
        for s in range(_SIGNALS):
            value = signals[s]
            told = not math.isnan(value)
            mean = moments[k, life, 1, s]
            gain = rate if told else np.float32(0.0)
            weight = moments[k, life, 0, s] + gain * (np.float32(1.0) - moments[k, life, 0, s])
            share = gain / max(weight, np.float32(1e-9))
            off = (value if told else mean) - mean
            moments[k, life, 0, s] = weight
            moments[k, life, 1, s] = mean + share * off
            square = moments[k, life, 2, s] + share * off * off
            moments[k, life, 2, s] = (np.float32(1.0) - share) * square
        for s in range(_SIGNALS):
            known = moments[k, life, 0, s] > 0.0
            row[_MEANS + s * len(_DECAY) + life] = moments[k, life, 1, s] if known else nothing
        for place in range(len(_SPREAD_OF)):
            s = _SPREAD_OF[place]
            known = moments[k, life, 0, s] > 0.0
            row[_DEVIATIONS + place * len(_DECAY) + life] = math.sqrt(moments[k, life, 2, s]) if known else nothing


@inner
def _blank(values):  # type: ignore[no-untyped-def]
    for i in range(len(values)):  # an assignment to a slice takes a quarter of a second to compile
        values[i] = np.nan


@inner
def _begin(state, k, time):  # type: ignore[no-untyped-def]
    """Forget what was counted for another session."""
    numbers = state.numbers[k]
    for n in range(NUMBERS):
        numbers[n] = 0.0
    numbers[_TIME] = numbers[_FIRST] = time
    numbers[_HIGH_ODDS], numbers[_LOW_ODDS] = -np.inf, np.inf
    numbers[_LAST_ODDS], numbers[_LAST_CLASS] = np.nan, -1.0
    for life in range(len(_DECAY)):
        for kind in range(3):
            for s in range(_SIGNALS):
                state.moments[k, life, kind, s] = np.float32(0.0)
    for w in range(state.different.shape[1]):
        state.different[k, w] = state.touched[k, w] = np.uint64(0)


@inner
def _time(numbers, time, row, signals):  # type: ignore[no-untyped-def]
    """When the query came."""
    row[_DELTA] = time - numbers[_TIME]
    row[_LOG_GAP] = math.log(FLOOR + row[_DELTA])
    if numbers[_COUNT] > 0.0:
        signals[_S_GAP] = row[_LOG_GAP]
    row[_EVENTS] = math.log1p(numbers[_COUNT])
    row[_ELAPSED] = math.log1p(time - numbers[_FIRST])
    numbers[_TIME] = time
    numbers[_COUNT] += 1.0


@inner
def _answer(numbers, confidence, klass, model, reference, row, signals):  # type: ignore[no-untyped-def]
    """What the model's answer shows. Returns its log-odds."""
    odds = np.nan
    if not math.isnan(confidence):
        odds = math.log((confidence + ODDS_FLOOR) / (1.0 - confidence + ODDS_FLOOR))
        row[_CONFIDENCE] = confidence
        row[_LOG_ODDS] = signals[_S_ODDS] = odds
        row[_CHANGE] = odds - numbers[_LAST_ODDS]
        if len(model.confidences) > 0:
            row[_RANK] = signals[_S_RANK] = rank(model.confidences, confidence)
        if not math.isnan(reference.edges[model.number, 0]):
            place = 0
            for edge in reference.edges[model.number]:
                place += 1 if edge <= odds else 0
            row[_RATIO] = signals[_S_RATIO] = reference.ratios[model.number, place]
        row[_HIGHEST] = numbers[_HIGH_ODDS] = max(numbers[_HIGH_ODDS], odds)
        row[_LOWEST] = numbers[_LOW_ODDS] = min(numbers[_LOW_ODDS], odds)
        numbers[_LAST_ODDS] = odds
    if klass >= 0:
        if numbers[_LAST_CLASS] >= 0.0:
            row[_CLASS_CHANGE] = signals[_S_CLASS] = 1.0 if klass != numbers[_LAST_CLASS] else 0.0
        numbers[_LAST_CLASS] = klass
    return odds


@inner
def _refit(state, k, width):  # type: ignore[no-untyped-def]
    """The first vector, or one that those before cannot be compared with, begins the comparing anew."""
    numbers = state.numbers[k]
    if width != numbers[_WIDTH]:
        numbers[_WIDTH] = width
        numbers[_COMPARED] = numbers[_SQUARES] = numbers[_MOST_CENTRE] = 0.0
        numbers[_LEAST_NEAREST], numbers[_BEST_CONFIDENCE], numbers[_HELD] = np.inf, -1.0, 0.0
        for p in range(SKETCH):
            state.centre[k, p] = 0.0


@inlined
def step(state, k, time, confidence, klass, inputs, hashed, model, reference, room):  # type: ignore[no-untyped-def]
    """Take one query of session ``k`` into its state; writes its features to ``room.row``, NaN where it tells none."""
    row, signals, numbers = room.row, room.signals, state.numbers[k]
    _blank(row)
    _blank(signals)
    if numbers[_COUNT] == 0.0:
        _begin(state, k, time)
    _time(numbers, time, row, signals)
    odds = _answer(numbers, confidence, klass, model, reference, row, signals)
    width = len(inputs) if len(inputs) > 0 or hashed == 0 else -1
    if width != 0:
        _refit(state, k, width)
    if width > 0:
        _ask(state, k, confidence, odds, klass, inputs, model, reference, room)
    elif width < 0:
        _recall(state, k, hashed, row, signals)
    _follow(state.moments, k, signals, row)


@compiled
def run(  # type: ignore[no-untyped-def]
    state,
    slots,
    begins,
    offsets,
    models,
    time,
    confidence,
    klass,
    inputs,
    input_offsets,
    digests,
    table,
    reference,
    columns,
    room,
    out,
):
    """Step through all queries of all sessions; session ``s`` keeps its state in slot ``slots[s]``."""
    for s in range(len(offsets) - 1):
        if begins[s]:
            state.numbers[slots[s], _COUNT] = 0.0
        m = models[s]
        known = slice(table.inputs[m], table.inputs[m + 1])
        confidences = table.confidences[table.quantiles[m] : table.quantiles[m + 1]]
        grid = reference.grid[known] if not math.isnan(reference.nearest[m, 0]) else reference.grid[:0]
        model = Model(m, table.centre[known], table.spread[known], table.unit[m], confidences, grid)
        other = Model(m, model.centre[:0], model.spread[:0], model.unit, confidences, grid[:0])
        for i in range(offsets[s], offsets[s + 1]):
            vector = inputs[input_offsets[i] : input_offsets[i + 1]]
            fits = len(vector) == len(model.centre)
            step(
                state,
                slots[s],
                time[i],
                confidence[i],
                klass[i],
                vector,
                digests[i],
                model if fits else other,
                reference,
                room,
            )
            for j in range(len(columns)):
                out[i, j] = room.row[columns[j]]
