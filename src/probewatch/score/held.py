"""The sessions that a stream holds: a micro-batch of events in, their scores out, by the batch path's own steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.columns import ARTICLE
from probewatch.data.events import Events, text_buffers
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.profile import Profiles, with_profiles
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, gather, offsets_of, ranges
from probewatch.network import Network, sigmoid
from probewatch.score.arrivals import JUMP_S
from probewatch.score.batch import check_masks
from probewatch.score.incidents import Ended
from probewatch.score.limits import Limits
from probewatch.score.packed import Packed
from probewatch.score.slots import OWNER, Layout, Slots, arrange, assign, new_slots, purge, settle

MICRO_BATCH = 1024
PURGED = 4096  # idle sessions freed before a micro-batch, at most
SPLIT_EVENTS = 256  # fewer are not worth a second thread


@dataclass(frozen=True)
class Step:
    """What a micro-batch of N events showed, in the events' order.

    Attributes:
        score: (N,) float64 after the event.
        peak: (N,) float64 highest of its session so far.
        number: (N,) int64 number of the event in its session, from 1.
        alert: (N,) bool, the score that decides has reached the threshold.
        ended: of the sessions that ended or made room, the event by which they had, their owners and their peaks.
        places: (N,) where in ``logits`` and ``rows`` each event is; they are sorted by run.
        offsets: (R + 1,) where each run begins there.
        logits: (N,) after each event.
        rows: the features, (N, F) in pieces.
        states: (R, K) the network's state before each run; valid until the next micro-batch.
    """

    score: NDArray[np.float64]
    peak: NDArray[np.float64]
    number: NDArray[np.int64]
    alert: NDArray[np.bool_]
    ended: Ended
    places: NDArray[np.int64]
    offsets: NDArray[np.int64]
    logits: NDArray[np.float32]
    rows: list[NDArray[np.float32]]
    states: NDArray[np.float32]

    def sequences(self, events: list[int], most: int) -> tuple[Ragged, NDArray[np.float32], NDArray[np.float32]]:
        """Of each event's session in this micro-batch, up to the event, at most so many: features, logits, states.

        The (S, K) states are the network's before, zeros where events are left out.
        """
        ends = self.places[events] + 1
        runs = np.searchsorted(self.offsets, ends - 1, side="right") - 1
        lengths = np.minimum(ends - self.offsets[runs], most)
        states = np.where((lengths == ends - self.offsets[runs])[:, None], self.states[runs], np.float32(0))
        chosen = ranges(ends - lengths, lengths)
        values = np.concatenate(self.rows)[chosen]
        return Ragged(values, offsets_of(lengths)), self.logits[chosen], states


class HeldSessions:
    """The state of a bounded number of sessions, in flat arrays by slot; each call of :meth:`score` changes it.

    Args:
        bundle: a detector that streams.
        limits: sessions held, and the times after which they end.
        threshold: from 0 to 1.
        profiles: of the models that the owner knows, by name.

    Attributes:
        longest: input vector whose exact distances can be told, where the bundle asks for them; else 0, for any.
    """

    def __init__(self, bundle: Bundle, limits: Limits, threshold: float, profiles: Profiles) -> None:
        size = limits.max_sessions
        self._bundle, self._known = bundle, Known(bundle.scales, profiles)
        self.network = Network(bundle.graph, bundle.features, threads=1)
        self._limits, self._threshold = limits, threshold
        self._last_decides = bundle.manifest["decision"] == "last"
        self._pool = ThreadPoolExecutor(limits.threads - 1) if limits.threads > 1 else None
        widest = max((len(scale.centre) for scale in with_profiles(bundle.scales, profiles).values()), default=0)
        self.longest = widest if ARTICLE[2] in bundle.features else 0
        self._packed = Packed(size, MICRO_BATCH, self.longest, self.network.state_width)
        self.slots: Slots = new_slots(size)
        self.dirty = np.zeros(size, bool)
        self.freed = np.zeros(size, bool)

    def columns(self) -> list[NDArray[Any]]:
        """Every array by slot that a session's state is in."""
        return [self.slots.book, self._packed.rows]

    @property
    def state_bytes(self) -> int:
        """Bytes of a session's state, those of the hash table and the list included."""
        return (self.slots.bytes + self._packed.rows.nbytes + 2 * self.dirty.nbytes) // len(self.dirty)

    def score(self, events: Events, keys: NDArray[np.int64], arrival: int, clock_s: float) -> Step:
        """Take a micro-batch into the sessions.

        Args:
            events: at most :data:`MICRO_BATCH`.
            keys: (3, N) as ``hash_events`` gives them.
            arrival: number of the first event.
            clock_s: the stream's time before them, by which sessions are idle: by their own, one that goes on in them
                would be too.

        Raises:
            DataError: the events lack what the bundle's features need.
        """
        idle = self._purge(clock_s)
        times = events.time_s.copy()
        layout, crowd = self._lay_out(events, times, keys, arrival)
        self.dirty[layout.slot_of] = True
        logits = np.empty(len(events), np.float32)
        others = [
            self._pool.submit(self._work, events, times, layout, part, logits)
            for part in range(1, layout.parts)
            if self._pool
        ]
        rows = [self._work(events, times, layout, 0, logits), *(other.result() for other in others)]
        return self._settle(layout, logits, rows, [idle, crowd])

    def _lay_out(
        self, events: Events, times: NDArray[np.float64], keys: NDArray[np.int64], arrival: int
    ) -> tuple[Layout, Ended]:
        """Slots and runs of the events, whose late ``times`` are changed; and who made room."""
        count, limits = len(events), self._limits
        run_of, slot_of, begins = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, bool)
        when, owners, peaks = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
        unnamed = np.diff(text_buffers(events.session)[1]) == 0
        runs, crowded = assign(
            self.slots, keys[2], keys[1], unnamed, times, arrival, limits.gap_s, limits.idle_s,
            run_of, slot_of, begins, when, owners, peaks,
        )  # fmt: skip
        parts = limits.threads if count >= SPLIT_EVENTS else 1
        layout = arrange(self.slots, run_of, slot_of[:runs], begins[:runs], parts)
        return layout, (when[:crowded], owners[:crowded], peaks[:crowded])

    def _work(
        self, events: Events, times: NDArray[np.float64], layout: Layout, part: int, logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Write the logits of one part's events, and give their features; each part has slots of its own."""
        first, long, end = layout.lanes[2 * part : 2 * part + 3].tolist()
        offsets, packed = layout.offsets, self._packed
        if first == end:
            return np.zeros((0, len(self._bundle.features)), np.float32)
        sessions = _sessions(events, times, layout, first, end)
        packed.load(layout.slot_of, layout.home, layout.begins, first, end)
        home = layout.home[first:end]
        rows = compute(sessions, self._bundle.features, self._known, packed.features, home)
        check_masks(self._bundle, rows)
        for start, stop in ((first, long), (long, end)):  # runs of one length, and of several
            if start == stop:
                continue
            inside = slice(offsets[start], offsets[stop])
            own = rows.values[inside.start - offsets[first] : inside.stop - offsets[first]]
            sequences = Ragged(own, offsets[start : stop + 1] - offsets[start])
            logits[inside], after = self.network.run(sequences, packed.states[start:stop])
            packed.store(layout.slot_of, layout.home, start, stop, after)
        return rows.values

    def _purge(self, clock_s: float) -> Ended:
        """Forget sessions that are idle, before the first event."""
        before_s, ahead_s = clock_s - self._limits.idle_s, clock_s + JUMP_S
        count, owners, peaks = 0, np.empty(PURGED, np.int64), np.empty(PURGED)
        if not before_s <= self.slots.oldest_s <= ahead_s:
            freed = np.empty(PURGED, np.int64)
            count = purge(self.slots, before_s, ahead_s, owners, peaks, freed)
            self.dirty[freed[:count]] = False
            self.freed[freed[:count]] = True
        return np.full(count, -1), owners[:count], peaks[:count]

    def _settle(
        self, layout: Layout, logits: NDArray[np.float32], rows: list[NDArray[np.float32]], gone: list[Ended]
    ) -> Step:
        count, slot_of = len(logits), layout.slot_of
        out = np.empty(count), np.empty(count), np.empty(count, np.int64), np.empty(count, bool)
        places, ended = np.empty(count, np.int64), np.empty(len(slot_of))
        settle(
            self.slots, layout.order, slot_of, layout.begins, layout.offsets, sigmoid(logits), self._threshold,
            self._last_decides, out, places, ended,
        )  # fmt: skip
        over = np.flatnonzero(ended >= 0)
        gone.append((layout.order[layout.offsets[over]], self.slots.book[slot_of[over], OWNER], ended[over]))
        when, owners, peaks = (np.concatenate(column) for column in zip(*gone, strict=True))
        first = np.argsort(when, kind="stable")
        left = when[first], owners[first], peaks[first]
        return Step(*out, left, places, layout.offsets, logits, rows, self._packed.states)


_NOTHING = np.zeros(0, object)


def _sessions(events: Events, times: NDArray[np.float64], layout: Layout, first: int, end: int) -> Sessions:
    """Runs ``first`` to ``end`` as the feature step takes them; names that it does not read are left out."""
    offsets = layout.offsets[first : end + 1]
    order, begins = layout.order[offsets[0] : offsets[-1]], layout.begins[first:end]
    inputs, input_offsets = gather(events.inputs, events.input_offsets, order)
    models = events.model.dictionary_encode()
    names = np.array(models.dictionary.to_pylist(), object)  # one long name must not make all of them as long
    codes = np.asarray(models.indices)[layout.order[offsets[:-1]]]
    return Sessions(
        session=_NOTHING, client=_NOTHING, model=names[codes], offsets=offsets - offsets[0],
        time_s=times[order], confidence=events.confidence[order], predicted_class=events.predicted_class[order],
        inputs=inputs, input_offsets=input_offsets,
        label=np.full(len(begins), -1, np.int8), before=np.where(begins, 0, 1), ends=np.zeros(len(begins), bool),
        digest=events.digest[order],
    )  # fmt: skip
