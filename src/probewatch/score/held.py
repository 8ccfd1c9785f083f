"""The sessions that a stream holds: a micro-batch of events in, their scores out, by the batch path's own steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.events import Events, text_buffers
from probewatch.data.features import ARTICLE, compute
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, offsets_of, ranges
from probewatch.network import Network, sigmoid
from probewatch.score.batch import check_masks
from probewatch.score.packed import Packed
from probewatch.score.slots import OWNER, Slots, arrange, assign, gather, new_slots, purge, settle

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
        ended: owners and peaks of sessions that ended or made room.
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
    ended: tuple[NDArray[np.int64], NDArray[np.float64]]
    places: NDArray[np.int64]
    offsets: NDArray[np.int64]
    logits: NDArray[np.float32]
    rows: list[Ragged]
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
        values = np.concatenate([rows.values for rows in self.rows])[chosen]
        return Ragged(values, offsets_of(lengths)), self.logits[chosen], states


class HeldSessions:
    """The state of up to ``size`` sessions, in flat arrays by slot; each call of :meth:`score` changes it.

    Args:
        bundle: a detector that streams.
        size: sessions held at most, more than a micro-batch has events.
        gap_s: where the log names no session, a longer pause starts a new one.
        idle_s: a session whose last query is older is forgotten; at least ``gap_s``.
        threshold: from 0 to 1.
        threads: cores used.
    """

    def __init__(
        self, bundle: Bundle, *, size: int, gap_s: float, idle_s: float, threshold: float, threads: int
    ) -> None:
        self._bundle = bundle
        self.network = Network(bundle.graph, bundle.features, threads=1)
        self._gap_s, self._idle_s, self._threshold = gap_s, idle_s, threshold
        self._last_decides = bundle.manifest["decision"] == "last"
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._threads = threads
        widest = max((len(scale.centre) for scale in bundle.scales.values()), default=0)
        anchor = widest if ARTICLE[2] in bundle.features else 0
        self._packed = Packed(size, MICRO_BATCH, anchor, self.network.state_width)
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
            clock_s: the stream's time, by which sessions are idle.

        Raises:
            DataError: the events lack what the bundle's features need.
        """
        count = len(events)
        idle = self._purge(clock_s - self._idle_s)
        times = events.time_s.copy()
        run_of, slot_of, begins = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, bool)
        crowd = np.empty(count, np.int64), np.empty(count)
        unnamed = _is_empty(events)
        runs, crowded = assign(
            self.slots, keys[2], keys[1], unnamed, times, arrival, self._gap_s, self._idle_s,
            run_of, slot_of, begins, *crowd,
        )  # fmt: skip
        order, offsets = np.empty(count, np.int64), np.empty(runs + 1, np.int64)
        places, home = np.empty(runs, np.int64), np.empty(runs, np.int64)
        parts = self._threads if count >= SPLIT_EVENTS else 1
        lanes = arrange(self.slots, run_of, slot_of[:runs], parts, order, places, home, offsets)
        slot_of, begins = slot_of[places], begins[places]
        self.dirty[slot_of] = True
        sessions = _sessions(events, times, order, offsets, begins)
        logits, packed = np.empty(count, np.float32), self._packed
        firsts = lanes[::2]
        rows: list[Ragged | None] = [None] * parts

        def work(part: int) -> None:
            own, (first, long, end) = slice(firsts[part], firsts[part + 1]), lanes[2 * part : 2 * part + 3]
            if first == end:
                return
            span = slice(offsets[first], offsets[end])
            piece = sessions if parts == 1 else _piece(sessions, own, span)
            packed.load(slot_of, home, begins, first, end)
            values = compute(piece, self._bundle.features, self._bundle.scales, packed.features, home[own])
            check_masks(self._bundle, values)
            rows[part] = values
            for start, stop in ((first, long), (long, end)):  # runs of one length, and of several
                if start == stop:
                    continue
                inside = slice(offsets[start], offsets[stop])
                lengths = offsets[start : stop + 1] - offsets[start]
                sequences = Ragged(values.values[inside.start - span.start : inside.stop - span.start], lengths)
                logits[inside], after = self.network.run(sequences, packed.states[start:stop])
                packed.store(slot_of, home, start, stop, after)

        others = [self._pool.submit(work, part) for part in range(1, parts)] if self._pool else []
        work(0)
        for other in others:
            other.result()
        gone = tuple(np.concatenate([one, other[:crowded]]) for one, other in zip(idle, crowd, strict=True))
        kept = [part for part in rows if part is not None]
        return self._settle(order, slot_of, begins, offsets, logits, kept, packed.states, gone)

    def _purge(self, before_s: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Forget sessions whose last query is older; their owners and peaks."""
        if self.slots.oldest_s >= before_s:
            return np.zeros(0, np.int64), np.zeros(0)
        owners, peaks, freed = np.empty(PURGED, np.int64), np.empty(PURGED), np.empty(PURGED, np.int64)
        count = purge(self.slots, before_s, owners, peaks, freed)
        self.dirty[freed[:count]] = False
        self.freed[freed[:count]] = True
        return owners[:count], peaks[:count]

    def _settle(
        self, order: NDArray[np.int64], slot_of: NDArray[np.int64], begins: NDArray[np.bool_],
        offsets: NDArray[np.int64], logits: NDArray[np.float32], rows: list[Ragged],
        states: NDArray[np.float32], gone: tuple[NDArray[Any], ...],
    ) -> Step:  # fmt: skip
        count = len(order)
        scores = sigmoid(logits)
        out = np.empty(count), np.empty(count), np.empty(count, np.int64), np.empty(count, bool)
        places, ended = np.empty(count, np.int64), np.empty(len(slot_of))
        settle(
            self.slots, order, slot_of, begins, offsets, scores, self._threshold, self._last_decides,
            out, places, ended,
        )  # fmt: skip
        over = ended >= 0
        left = np.concatenate([gone[0], self.slots.book[slot_of[over], OWNER]]), np.concatenate([gone[1], ended[over]])
        return Step(*out, left, places, offsets, logits, rows, states)


def _is_empty(events: Events) -> NDArray[np.bool_]:
    """(N,) True where the log names no session."""
    return np.asarray(np.diff(text_buffers(events.session)[1]) == 0)


_NOTHING = np.zeros(0, object)


def _sessions(
    events: Events,
    times: NDArray[np.float64],
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    begins: NDArray[np.bool_],
) -> Sessions:
    """The events in a new order as the feature step takes them; names that it does not read are left out."""
    count, runs = len(order), len(begins)
    out = np.empty(count), np.empty(count), np.empty(count, np.int64), np.empty(len(events.inputs))
    ends = np.empty(count + 1, np.int64)
    gather(
        order, times, events.confidence, events.predicted_class, events.inputs, events.input_offsets, *out, ends
    )  # fmt: skip
    models = events.model.dictionary_encode()
    codes = np.asarray(models.indices)[order[offsets[:-1]]]
    return Sessions(
        session=_NOTHING, client=_NOTHING, model=np.array(models.dictionary.to_pylist())[codes], offsets=offsets,
        time_s=out[0], confidence=out[1], predicted_class=out[2], inputs=out[3], input_offsets=ends,
        label=np.full(runs, -1, np.int8), before=np.where(begins, 0, 1), ends=np.zeros(runs, bool),
    )  # fmt: skip


def _piece(sessions: Sessions, own: slice, span: slice) -> Sessions:
    """The runs ``own``, which hold the events ``span``."""
    ends = sessions.input_offsets[span.start : span.stop + 1]
    return Sessions(
        session=_NOTHING, client=_NOTHING, model=sessions.model[own],
        offsets=sessions.offsets[own.start : own.stop + 1] - span.start,
        time_s=sessions.time_s[span], confidence=sessions.confidence[span],
        predicted_class=sessions.predicted_class[span], inputs=sessions.inputs[ends[0] : ends[-1]],
        input_offsets=ends - ends[0], label=sessions.label[own], before=sessions.before[own], ends=sessions.ends[own],
    )  # fmt: skip
