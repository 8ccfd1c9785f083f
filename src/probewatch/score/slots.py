"""Which slot of the flat arrays keeps a session's state: a hash table, a list by last use, and what ends.

All of it works on a micro-batch at a time: no Python is run for an event.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.compiled import compiled, inner
from probewatch.data.records import offsets_of

HELD, FRESH, FREE, RUNS, IDLE, CROWDED, LATE = range(7)  # places in Slots.counts
KEY, OWNER, TIME, SEEN, EVENTS, PEAK, FIRST, RUN = range(8)  # columns of Slots.book
BEFORE, AFTER = range(2)  # columns of Slots.links


class Slots(NamedTuple):
    """K slots, changed in place.

    Attributes:
        book: (K, 8) int64, a line of the processor's cache for each slot: the bits of the session's key, and of
            that of its client and model; time of its last query and its arrival number; queries so far, 0 in a
            free slot; highest score; number of the query that first reached the threshold, 0 for none; number
            of the slot's last run.
        reals: the same memory as float64, in which times and scores are.
        table: (C,) int32, slot + 1 at the place that a key hashes to, 0 for none; C is a power of two.
        links: (K + 1, 2) int32, neighbours in the order of last use; K stands between last and first.
        free: (K,) int32, slots that were given back.
        counts: (7,) int64, see the names above.
    """

    book: NDArray[np.int64]
    reals: NDArray[np.float64]
    table: NDArray[np.int32]
    links: NDArray[np.int32]
    free: NDArray[np.int32]
    counts: NDArray[np.int64]

    @property
    def held(self) -> int:
        """Sessions in slots."""
        return int(self.counts[HELD])

    @property
    def oldest_s(self) -> float:
        """Time of the last query of the least recently used session; infinite where none is held."""
        size = len(self.book)
        slot = int(self.links[size, AFTER])
        return float(self.reals[slot, TIME]) if slot < size else np.inf

    @property
    def bytes(self) -> int:
        """Of memory, where all slots are used."""
        return sum(array.nbytes for array in (self.book, self.table, self.links, self.free))


def new_slots(size: int) -> Slots:
    """Room for ``size`` sessions; memory is taken as slots are first used."""
    book = np.zeros((size, 8), np.int64)
    table = np.zeros(1 << (2 * size - 1).bit_length(), np.int32)
    links = np.zeros((size + 1, 2), np.int32)
    links[size] = size
    return Slots(book, book.view(np.float64), table, links, np.zeros(size, np.int32), np.zeros(7, np.int64))


@inner
def _find(slots, key):  # type: ignore[no-untyped-def]
    """The place of a key in the table, or the empty place where it would go."""
    mask = len(slots.table) - 1
    at = key & mask
    while slots.table[at] != 0 and slots.book[slots.table[at] - 1, KEY] != key:
        at = (at + 1) & mask
    return at


@inner
def _forget(slots, slot):  # type: ignore[no-untyped-def]
    """Take a session out of the table and the list, and give its slot back."""
    mask = len(slots.table) - 1
    hole = _find(slots, slots.book[slot, KEY])
    at = hole
    while True:  # what follows moves up, so that no search meets a hole before it (Knuth 6.4, algorithm R)
        at = (at + 1) & mask
        if slots.table[at] == 0:
            break
        home = slots.book[slots.table[at] - 1, KEY] & mask
        if (at - home) & mask >= (at - hole) & mask:
            slots.table[hole] = slots.table[at]
            hole = at
    slots.table[hole] = 0
    _unlink(slots, slot)
    slots.book[slot, EVENTS] = 0
    slots.free[slots.counts[FREE]] = slot
    slots.counts[FREE] += 1
    slots.counts[HELD] -= 1


@inner
def _unlink(slots, slot):  # type: ignore[no-untyped-def]
    before, after = slots.links[slot, BEFORE], slots.links[slot, AFTER]
    slots.links[before, AFTER] = after
    slots.links[after, BEFORE] = before


@inner
def _link(slots, slot):  # type: ignore[no-untyped-def]
    """Put a slot at the end of the list."""
    last = len(slots.book)
    before = slots.links[last, BEFORE]
    slots.links[before, AFTER] = slot
    slots.links[slot, BEFORE] = before
    slots.links[slot, AFTER] = last
    slots.links[last, BEFORE] = slot


@compiled
def purge(slots, before_s, ahead_s, owners, peaks, gone):  # type: ignore[no-untyped-def]
    """Free the least recently used slots whose last query is older; how many, at most ``len(gone)``.

    A time after ``ahead_s`` is wrong: such a slot is as old as the next that was used after it.
    """
    count, size, reached = 0, len(slots.book), 0
    at = slots.links[size, AFTER]
    while at != size and reached < len(gone):
        reached += 1
        time_s, following = slots.reals[at, TIME], slots.links[at, AFTER]
        if time_s < before_s:
            while count < reached:
                slot = slots.links[size, AFTER]
                owners[count], peaks[count], gone[count] = slots.book[slot, OWNER], slots.reals[slot, PEAK], slot
                _forget(slots, slot)
                slots.counts[IDLE] += 1
                count += 1
        elif time_s <= ahead_s:
            break
        at = following
    return count


@compiled
def assign(slots, keys, owners, unnamed, times, arrival, gap_s, idle_s, run_of, slot_of, begins, when, gone, peaks):  # type: ignore[no-untyped-def]
    """Give each of N events its slot, and cut each slot's events into runs, of one session each.

    ``times`` is changed: an event older than its session's last gets that one's time. ``when``, ``gone`` and ``peaks``
    ((N,), events, owners and highest scores) get the sessions that made room. There must be more slots than events.

    Returns:
        how many runs there are, and how many sessions made room.
    """
    size, base, runs, crowded = len(slots.book), slots.counts[RUNS], 0, 0
    for i in range(len(keys)):
        at = _find(slots, keys[i])
        slot = np.int64(slots.table[at]) - 1
        new = bool(slot < 0)
        if new:
            if slots.counts[HELD] == size:
                last = np.int64(slots.links[size, AFTER])
                when[crowded], gone[crowded], peaks[crowded] = i, slots.book[last, OWNER], slots.reals[last, PEAK]
                crowded += 1
                _forget(slots, last)
                slots.counts[CROWDED] += 1
                at = _find(slots, keys[i])
            if slots.counts[FREE] > 0:
                slots.counts[FREE] -= 1
                slot = np.int64(slots.free[slots.counts[FREE]])
            else:
                slot = slots.counts[FRESH]
                slots.counts[FRESH] += 1
            slots.table[at] = slot + 1
            slots.counts[HELD] += 1
            slots.book[slot, KEY], slots.book[slot, OWNER] = keys[i], owners[i]
            slots.book[slot, EVENTS], slots.book[slot, RUN] = 0, -1
        else:
            _unlink(slots, slot)
            pause = times[i] - slots.reals[slot, TIME]
            if pause > idle_s:
                slots.counts[IDLE] += 1
            if pause > idle_s or (unnamed[i] and pause > gap_s):
                new = True
            elif pause < 0.0:
                slots.counts[LATE] += 1
                times[i] = slots.reals[slot, TIME]
        _link(slots, slot)
        slots.reals[slot, TIME] = times[i]
        slots.book[slot, SEEN] = arrival + i
        if new or slots.book[slot, RUN] < base:
            slots.book[slot, RUN] = base + runs
            slot_of[runs], begins[runs] = slot, new
            runs += 1
        run_of[i] = slots.book[slot, RUN] - base
    slots.counts[RUNS] += runs
    return runs, crowded


class Layout(NamedTuple):
    """A micro-batch sorted by run: a session's consecutive events.

    ``order`` (N,) the events; ``slot_of``, ``begins``, ``home`` (R,) slot, whether the session begins, and the last
    run of the slot; ``offsets`` (R + 1,); ``lanes`` (2 * parts + 1,) the first run of each part's single events
    and of its longer runs.
    """

    order: NDArray[np.int64]
    slot_of: NDArray[np.int64]
    begins: NDArray[np.bool_]
    home: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lanes: NDArray[np.int64]
    parts: int


def arrange(
    slots: Slots, run_of: NDArray[np.int64], slot_of: NDArray[np.int64], begins: NDArray[np.bool_], parts: int
) -> Layout:
    """Sort events by run, and runs by the part that their slot is in, single events before longer runs.

    The graph is fastest on sequences of one length. Runs of one slot keep their order: they count as long.

    Args:
        slots: as :func:`assign` left them.
        run_of, slot_of, begins: what that gave for N events and R runs.
        parts: that the runs are worked on in.
    """
    lengths, own = np.bincount(run_of, minlength=len(slot_of)), np.arange(len(slot_of))
    last = slots.book[slot_of, RUN] - (slots.counts[RUNS] - len(slot_of))
    long = lengths > 1
    shared = np.flatnonzero(last != own)
    long[shared] = long[last[shared]] = True
    lane = 2 * (slot_of % parts) + long
    places = np.argsort(lane, kind="stable")
    new = np.empty_like(places)
    new[places] = own
    return Layout(
        order=np.argsort(new[run_of], kind="stable"),
        slot_of=slot_of[places],
        begins=begins[places],
        home=new[last[places]],
        offsets=offsets_of(lengths[places]),
        lanes=offsets_of(np.bincount(lane, minlength=2 * parts)),
        parts=parts,
    )


@compiled
def settle(slots, order, slot_of, begins, offsets, scores, threshold, last_decides, out, places, ended):  # type: ignore[no-untyped-def]
    """From the scores of R runs, sorted by run, to their slots, and to what each event shows in its old order.

    ``out`` holds ``score``, ``peak``, ``number``, ``alert``, each (N,): its own, the highest so far, its number
    in the session, the score that decides reached the threshold; ``places`` (N,): where it is among the sorted.
    ``ended`` (R,): peak of the session that was in the slot before, -1 for none.
    """
    score, peak, number, alert = out
    for r in range(len(slot_of)):
        own, reals = slots.book[slot_of[r]], slots.reals[slot_of[r]]
        ended[r] = reals[PEAK] if begins[r] and own[EVENTS] > 0 else -1.0
        if begins[r]:
            own[EVENTS] = own[FIRST] = 0
            reals[PEAK] = 0.0
        for i in range(offsets[r], offsets[r + 1]):
            at = order[i]
            own[EVENTS] += 1
            reals[PEAK] = max(reals[PEAK], scores[i])
            over = scores[i] >= threshold
            if over and own[FIRST] == 0:
                own[FIRST] = own[EVENTS]
            score[at], peak[at], number[at], places[at] = scores[i], reals[PEAK], own[EVENTS], i
            alert[at] = over if last_decides else reals[PEAK] >= threshold


@compiled
def _restore(slots, order):  # type: ignore[no-untyped-def]
    for slot in order:
        slots.table[_find(slots, slots.book[slot, KEY])] = slot + 1
        slots.book[slot, RUN] = -1
        _link(slots, slot)
    for slot in range(slots.counts[FRESH]):
        if slots.book[slot, EVENTS] == 0:
            slots.free[slots.counts[FREE]] = slot
            slots.counts[FREE] += 1


def restore(slots: Slots, taken: NDArray[np.int64]) -> None:
    """Make table and list for the slots ``taken``, whose rows of the book are filled."""
    slots.counts[HELD] = len(taken)
    slots.counts[FRESH] = int(taken.max(initial=-1)) + 1
    _restore(slots, taken[np.argsort(slots.book[taken, SEEN], kind="stable")])
