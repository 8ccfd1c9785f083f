"""Which slot of the flat arrays keeps a session's state: a hash table, a list by last use, and what ends.

All of it is compiled and works on a micro-batch at a time: no Python is run for an event.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

import probewatch.data.features  # noqa: F401  (it says where compiled code is kept)

HELD, FRESH, FREE, RUNS, IDLE, CROWDED, LATE = range(7)  # places in Slots.counts

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


class Slots(NamedTuple):
    """K slots, changed in place.

    Attributes:
        table: (C,) int32, slot + 1 at the place that a key hashes to, 0 for none; C is a power of two.
        keys, owners: (K,) uint64, of the session, and of its client and model.
        times: (K,) float64, of its last query.
        seen: (K,) int64, arrival number of its last query.
        events: (K,) int64, queries so far; 0 in a free slot.
        peaks: (K,) float64, highest score so far.
        firsts: (K,) int64, number of the query that first reached the threshold, 0 for none.
        before, after: (K + 1,) int32, neighbours in the order of last use; K stands between last and first.
        free: (K,) int32, slots that were given back.
        runs: (K,) int64, number of the slot's last run.
        counts: (7,) int64, see the names above.
    """

    table: NDArray[np.int32]
    keys: NDArray[np.uint64]
    owners: NDArray[np.uint64]
    times: NDArray[np.float64]
    seen: NDArray[np.int64]
    events: NDArray[np.int64]
    peaks: NDArray[np.float64]
    firsts: NDArray[np.int64]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    free: NDArray[np.int32]
    runs: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def held(self) -> int:
        """Sessions in slots."""
        return int(self.counts[HELD])


STORED = ("keys", "owners", "times", "seen", "events", "peaks", "firsts")
"""The columns that a slot must get back after a restart; :func:`restore` makes the others."""


def new_slots(size: int) -> Slots:
    """Room for ``size`` sessions; memory is taken as slots are first used."""
    places = 1 << (2 * size - 1).bit_length()
    links = np.full((2, size + 1), size, np.int32)
    return Slots(
        np.zeros(places, np.int32), np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(size),
        np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.int64),
        links[0], links[1], np.zeros(size, np.int32), np.full(size, -1, np.int64), np.zeros(7, np.int64),
    )  # fmt: skip


@_compiled
def _find(slots, key):  # type: ignore[no-untyped-def]
    """The place of a key in the table, or the empty place where it would go."""
    mask = np.uint64(len(slots.table) - 1)
    at = key & mask
    while slots.table[at] != 0 and slots.keys[slots.table[at] - 1] != key:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@_compiled
def _forget(slots, slot):  # type: ignore[no-untyped-def]
    """Take a session out of the table and the list."""
    mask = len(slots.table) - 1
    hole = _find(slots, slots.keys[slot])
    at = hole
    while True:  # what follows moves up, so that no search meets a hole before it (Knuth 6.4, algorithm R)
        at = (at + 1) & mask
        if slots.table[at] == 0:
            break
        home = np.int64(slots.keys[slots.table[at] - 1] & np.uint64(mask))
        if (at - home) & mask >= (at - hole) & mask:
            slots.table[hole] = slots.table[at]
            hole = at
    slots.table[hole] = 0
    _unlink(slots, slot)
    slots.events[slot] = 0
    slots.counts[HELD] -= 1


@_compiled
def _unlink(slots, slot):  # type: ignore[no-untyped-def]
    before, after = slots.before[slot], slots.after[slot]
    slots.after[before] = after
    slots.before[after] = before


@_compiled
def _link(slots, slot):  # type: ignore[no-untyped-def]
    """Put a slot at the end of the list."""
    last = len(slots.keys)
    before = slots.before[last]
    slots.after[before] = slot
    slots.before[slot] = before
    slots.after[slot] = last
    slots.before[last] = slot


@_compiled
def _take(slots, key):  # type: ignore[no-untyped-def]
    """A slot that is free, for the key of a new session."""
    if slots.counts[FREE] > 0:
        slots.counts[FREE] -= 1
        slot = np.int64(slots.free[slots.counts[FREE]])
    else:
        slot = slots.counts[FRESH]
        slots.counts[FRESH] += 1
    slots.keys[slot] = key
    slots.table[_find(slots, key)] = slot + 1
    slots.counts[HELD] += 1
    return slot


@_compiled
def purge(slots, before_s, owners, peaks, gone):  # type: ignore[no-untyped-def]
    """Free the least recently used slots whose last query is older; how many, at most ``len(gone)``."""
    count = 0
    while count < len(gone):
        slot = slots.after[len(slots.keys)]
        if slot == len(slots.keys) or slots.times[slot] >= before_s:
            break
        owners[count], peaks[count], gone[count] = slots.owners[slot], slots.peaks[slot], slot
        _forget(slots, slot)
        slots.free[slots.counts[FREE]] = slot
        slots.counts[FREE] += 1
        slots.counts[IDLE] += 1
        count += 1
    return count


@_compiled
def assign(slots, keys, owners, unnamed, times, arrival, gap_s, idle_s, run_of, slot_of, begins, gone, peaks):  # type: ignore[no-untyped-def]
    """Give each of N events its slot, and cut each slot's events into runs, of one session each.

    ``times`` is changed: an event older than its session's last gets that one's time. ``gone`` and ``peaks``
    ((N,), owners and highest scores) get the sessions that made room. There must be more slots than events.

    Returns:
        how many runs there are, and how many sessions made room.
    """
    size, base, runs, crowded = len(slots.keys), slots.counts[RUNS], 0, 0
    for i in range(len(keys)):
        slot = np.int64(slots.table[_find(slots, keys[i])]) - 1
        new = bool(slot < 0)
        if new:
            if slots.counts[HELD] == size:
                last = np.int64(slots.after[size])
                gone[crowded], peaks[crowded] = slots.owners[last], slots.peaks[last]
                crowded += 1
                _forget(slots, last)
                slots.free[slots.counts[FREE]] = last
                slots.counts[FREE] += 1
                slots.counts[CROWDED] += 1
            slot = _take(slots, keys[i])
            slots.owners[slot] = owners[i]
            slots.events[slot] = 0
        else:
            _unlink(slots, slot)
            pause = times[i] - slots.times[slot]
            if pause > idle_s:
                slots.counts[IDLE] += 1
            if pause > idle_s or (unnamed[i] and pause > gap_s):
                new = True
            elif pause < 0.0:
                slots.counts[LATE] += 1
                times[i] = slots.times[slot]
        _link(slots, slot)
        slots.times[slot] = times[i]
        slots.seen[slot] = arrival + i
        if new or slots.runs[slot] < base:
            slots.runs[slot] = base + runs
            slot_of[runs], begins[runs] = slot, new
            runs += 1
        run_of[i] = slots.runs[slot] - base
    slots.counts[RUNS] += runs
    return runs, crowded


@_compiled
def arrange(slots, run_of, slot_of, parts, order, places, home, offsets):  # type: ignore[no-untyped-def]
    """Sort events by run, and runs by the part that their slot is in, single events before longer runs.

    The graph is fastest on sequences of one length. Runs of one slot keep their order: they count as long.
    ``order`` (N,) gets the events in their new order, ``places`` (R,) the old number of each run, ``home`` (R,)
    the new number of the last run of its slot, ``offsets`` (R + 1,) where each begins. Returns (2 * parts + 1,)
    the first run of each part's singles and long ones.
    """
    runs, base = len(slot_of), slots.counts[RUNS] - len(slot_of)
    lengths = np.zeros(runs, np.int64)
    for i in range(len(run_of)):
        lengths[run_of[i]] += 1
    lane = np.empty(runs, np.int64)
    for r in range(runs):
        lane[r] = 2 * (slot_of[r] % parts) + (lengths[r] > 1)
    for r in range(runs):
        last = slots.runs[slot_of[r]] - base
        if last != r:
            lane[r] = lane[last] = 2 * (slot_of[r] % parts) + 1
    firsts = np.zeros(2 * parts + 1, np.int64)
    for r in range(runs):
        firsts[lane[r] + 1] += 1
    for at in range(2 * parts):
        firsts[at + 1] += firsts[at]
    nexts = firsts[: 2 * parts].copy()
    new = np.empty(runs, np.int64)
    for r in range(runs):
        new[r] = nexts[lane[r]]
        places[new[r]] = r
        offsets[new[r] + 1] = lengths[r]
        nexts[lane[r]] += 1
    offsets[0] = 0
    for r in range(runs):
        offsets[r + 1] += offsets[r]
        home[new[r]] = new[slots.runs[slot_of[r]] - base]
    ends = offsets[:runs].copy()
    for i in range(len(run_of)):
        r = new[run_of[i]]
        order[ends[r]] = i
        ends[r] += 1
    return firsts


@_compiled
def gather(order, times, confidence, klass, inputs, ends, out_times, out_confidence, out_class, out_inputs, out_ends):  # type: ignore[no-untyped-def]
    """The columns in a new order."""
    at = 0
    out_ends[0] = 0
    for i in range(len(order)):
        source = order[i]
        out_times[i], out_confidence[i], out_class[i] = times[source], confidence[source], klass[source]
        for d in range(ends[source], ends[source + 1]):
            out_inputs[at] = inputs[d]
            at += 1
        out_ends[i + 1] = at


@_compiled
def settle(slots, order, slot_of, begins, offsets, scores, threshold, last_decides, out, places, ended):  # type: ignore[no-untyped-def]
    """From the scores of R runs, sorted by run, to their slots, and to what each event shows in its old order.

    ``out`` holds ``score``, ``peak``, ``number``, ``alert``, each (N,): its own, the highest so far, its number
    in the session, the score that decides reached the threshold; ``places`` (N,): where it is among the sorted.
    ``ended`` (R,): peak of the session that was in the slot before, -1 for none.
    """
    score, peak, number, alert = out
    for r in range(len(slot_of)):
        slot = slot_of[r]
        ended[r] = slots.peaks[slot] if begins[r] and slots.events[slot] > 0 else -1.0
        if begins[r]:
            slots.events[slot] = slots.firsts[slot] = 0
            slots.peaks[slot] = 0.0
        for i in range(offsets[r], offsets[r + 1]):
            at = order[i]
            slots.events[slot] += 1
            slots.peaks[slot] = max(slots.peaks[slot], scores[i])
            over = scores[i] >= threshold
            if over and slots.firsts[slot] == 0:
                slots.firsts[slot] = slots.events[slot]
            score[at], peak[at], number[at], places[at] = scores[i], slots.peaks[slot], slots.events[slot], i
            alert[at] = over if last_decides else slots.peaks[slot] >= threshold


@_compiled
def _restore(slots, order):  # type: ignore[no-untyped-def]
    for slot in order:
        slots.table[_find(slots, slots.keys[slot])] = slot + 1
        _link(slots, slot)
    for slot in range(slots.counts[FRESH]):
        if slots.events[slot] == 0:
            slots.free[slots.counts[FREE]] = slot
            slots.counts[FREE] += 1


def restore(slots: Slots, taken: NDArray[Any]) -> None:
    """Make table and list for the slots ``taken``, whose :data:`STORED` columns are filled."""
    slots.counts[HELD] = len(taken)
    slots.counts[FRESH] = int(taken.max(initial=-1)) + 1
    _restore(slots, taken[np.argsort(slots.seen[taken], kind="stable")])
