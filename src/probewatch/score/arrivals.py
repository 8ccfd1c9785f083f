"""What happens to events before they are scored: repeats are dropped, near neighbours in time are put in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.compiled import compiled, inner
from probewatch.data.events import Events

REMEMBERED = 1 << 20  # request ids known again: 24 MiB
HELD_BACK = 1 << 16  # events waiting for earlier ones, at most
JUMP_S = 3600.0  # a time this far from the others is believed when
RECENT = 64  # of so many events
CONFIRMED = 16  # so many say so, or half of the first few


class Requests(NamedTuple):
    """The last requests, changed in place: (R,) int64 ring, (2 R,) int64 table, (1,) int64 how many in all."""

    ring: NDArray[np.int64]
    table: NDArray[np.int64]
    noted: NDArray[np.int64]


def new_requests(size: int = REMEMBERED) -> Requests:
    """Room for ``size`` requests, a power of two."""
    return Requests(np.zeros(size, np.int64), np.zeros(2 * size, np.int64), np.zeros(1, np.int64))


@inner
def _place(table, key):  # type: ignore[no-untyped-def]
    mask = len(table) - 1
    at = key & mask
    while table[at] != 0 and table[at] != key:
        at = (at + 1) & mask
    return at


@inner
def _drop(table, key):  # type: ignore[no-untyped-def]
    mask = len(table) - 1
    hole = _place(table, key)
    at = hole
    while True:  # Knuth 6.4, algorithm R
        at = (at + 1) & mask
        if table[at] == 0:
            break
        home = table[at] & mask
        if (at - home) & mask >= (at - hole) & mask:
            table[hole] = table[at]
            hole = at
    table[hole] = 0


@compiled
def note_requests(requests, keys, repeated):  # type: ignore[no-untyped-def]
    """Remember (N,) keys, 0 for none; ``repeated`` (N,) becomes True for those that were known."""
    for i in range(len(keys)):
        repeated[i] = False
        if keys[i] == 0:
            continue
        at = _place(requests.table, keys[i])
        if requests.table[at] == keys[i]:
            repeated[i] = True
            continue
        turn = requests.noted[0] % len(requests.ring)
        if requests.ring[turn] != 0:
            _drop(requests.table, requests.ring[turn])
            at = _place(requests.table, keys[i])
        requests.table[at] = keys[i]
        requests.ring[turn] = keys[i]
        requests.noted[0] += 1


@dataclass
class Queue:
    """Events that wait until no earlier one can come; changed by each call.

    Attributes:
        tolerance_s: how far behind the latest an event may be and still be put in order; 0 takes all as they come.
        events: those that wait, ordered by time.
        arrivals: (W,) int64 their numbers.
        clock_s: the stream's time, which some wild timestamps do not move.
        recent: times of the last events as they came, at most RECENT.
    """

    tolerance_s: float
    events: Events
    arrivals: NDArray[np.int64]
    clock_s: float = 0.0
    recent: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def push(self, events: Events, arrivals: NDArray[np.int64]) -> tuple[Events, NDArray[np.int64]]:
        """Take events in; the events that can be scored now, ordered, with their numbers."""
        self._advance(events.time_s)
        if not self.tolerance_s and not len(self.events):
            return events, arrivals
        waiting = Events.concat([self.events, events])
        numbers = np.concatenate([self.arrivals, arrivals])
        order = np.lexsort((numbers, waiting.time_s))
        ready = int(np.searchsorted(waiting.time_s[order], self.clock_s - self.tolerance_s, side="right"))
        goes = np.arange(len(order)) < max(ready, len(order) - HELD_BACK)
        wild = waiting.time_s[order] > self.clock_s + JUMP_S  # of a clock that is wrong, if no more follow soon
        goes |= wild & (numbers[order] <= numbers.max(initial=0) - RECENT)
        now, later = order[goes], order[~goes]
        self.events, self.arrivals = waiting.take(later), numbers[later]
        return waiting.take(now), numbers[now]

    def flush(self) -> tuple[Events, NDArray[np.int64]]:
        """All that wait."""
        given = self.events, self.arrivals
        self.events, self.arrivals = self.events.slice(0, 0), self.arrivals[:0]
        return given

    def _advance(self, times: NDArray[np.float64]) -> None:
        """Move the clock to the latest time that is believed; back, where it went by what is not."""
        if not len(times):
            return
        self.recent = np.append(self.recent, times[-RECENT:])[-RECENT:]
        count = len(self.recent)
        place = -min(CONFIRMED, count // 2 + 1)
        agreed = float(np.partition(self.recent, place)[place])
        kept = self.clock_s if self.clock_s <= agreed + JUMP_S else 0.0
        self.clock_s = max(kept, float(times.max(initial=0.0, where=times <= agreed + JUMP_S)), agreed)
