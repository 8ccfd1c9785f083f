"""Events in, scores out, while it happens: the same numbers as in batch, with bounded state per session."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from probewatch.bundle import Bundle, read_bundle
from probewatch.data.events import Events, as_events, as_texts
from probewatch.data.profile import Profiles
from probewatch.data.profiles import read_profiles
from probewatch.data.rejects import explain_longest, explain_need
from probewatch.errors import BundleError, ConfigError, DataError
from probewatch.score.arrivals import note_requests
from probewatch.score.explain import RECENT, explain
from probewatch.score.findings import to_finding, to_line
from probewatch.score.hashing import count_days, days_of, hash_events, hash_requests
from probewatch.score.held import MICRO_BATCH, HeldSessions, Step
from probewatch.score.incidents import News
from probewatch.score.journal import Journal
from probewatch.score.limits import Limits
from probewatch.score.memory import Memory
from probewatch.score.slots import CROWDED, IDLE, LATE, SEEN, restore

DEFAULT = Limits()
OUTBOX = 65_536  # findings that wait to be delivered, at most


@dataclass(frozen=True)
class Scores:
    """What the detector says after each of N events.

    Attributes:
        event: (N,) int64 number of the event, from 0 for the first ever pushed; repeated events have none.
        score: (N,) float64 from 0 to 1, high = attack, after this event.
        peak: (N,) float64 highest of the session so far.
        number: (N,) int64 number of the event in its session, from 1.
        alert: (N,) bool, the session has reached the threshold (with a bundle that decides by the last
            score: reaches it now) and its client is not on the allow-list.
        news: what is new of incidents.
    """

    event: NDArray[np.int64]
    score: NDArray[np.float64]
    peak: NDArray[np.float64]
    number: NDArray[np.int64]
    alert: NDArray[np.bool_]
    news: tuple[News, ...] = ()

    def __len__(self) -> int:
        return len(self.event)

    @classmethod
    def concat(cls, parts: list[Scores]) -> Scores:
        """All of ``parts`` as one."""
        if len(parts) == 1:
            return parts[0]
        parts = parts or [
            cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
        ]
        names = ("event", "score", "peak", "number", "alert")
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**columns, news=tuple(one for part in parts for one in part.news))


class StreamScorer:
    """A bundle that scores event by event; holds the state of the sessions, and their state file.

    >>> with StreamScorer.open("bundle", state="state.db") as watch:  # doctest: +SKIP
    ...     scores = watch.push({"client": clients, "time_s": times, "confidence": confidences, "inputs": vectors})
    ...     print(scores.score, scores.alert)

    Args:
        bundle: a detector of one direction.
        state: file that keeps everything, so that a killed run goes on; without it all is in memory.
        threshold: from 0 to 1, instead of the bundle's.
        allow: clients that raise no alert.
        limits: sessions held, and times after which something ends.
        profiles: of the models that the owner knows, by name.

    Raises:
        BundleError: the bundle reads sessions from both ends.
        ConfigError: the state file cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        state: Path | str | None = None,
        threshold: float | None = None,
        allow: Iterable[str] = (),
        limits: Limits = DEFAULT,
        profiles: Profiles | None = None,
    ) -> None:
        if not bundle.manifest["streams"]:
            raise BundleError(
                f"{bundle.folder}: it reads a session from both ends, so it has no score before the end;"
                " train a bundle of one direction to stream with."
            )
        self.bundle, self.profiles = bundle, profiles or {}
        self._closed, self._needs = False, bundle.needs
        self.threshold = bundle.threshold if threshold is None else threshold
        self._allow = as_texts(sorted(set(allow)))
        self._allowed = np.zeros(0, np.int64)  # keys of the allowed clients that came, with their models
        try:
            self.held = HeldSessions(bundle, limits, self.threshold, self.profiles)
        except (MemoryError, ValueError) as error:  # NumPy refuses the largest by the latter
            raise ConfigError(
                f"max_sessions is {limits.max_sessions}, more than memory holds; make it less."
            ) from error
        self._memory = Memory(limits, self.threshold)
        self.outbox: deque[tuple[int, str]] = deque(maxlen=OUTBOX)
        self._committed_lines = self._committed_requests = 0
        self.journal: Journal | None = None
        self._secret = np.frombuffer(os.urandom(16), np.uint64)
        if state is not None:
            self._open_journal(Path(state))

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        *,
        state: Path | str | None = None,
        threshold: float | None = None,
        allow: Iterable[str] = (),
        limits: Limits = DEFAULT,
        profiles: Profiles | Path | str | None = None,
    ) -> StreamScorer:
        """The scorer of a bundle and profiles, or of their folders; the rest is as the class says."""
        found = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        known = read_profiles(profiles) if isinstance(profiles, Path | str) else profiles
        return cls(found, state=state, threshold=threshold, allow=allow, limits=limits, profiles=known)

    def __enter__(self) -> Self:
        self._refuse_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        self.close()

    def close(self) -> None:
        """Give the state file back without a commit."""
        self._closed = True
        if self.journal:
            self.journal.close()

    def push(self, events: Events | Mapping[str, Any]) -> Scores:
        """Take events in, in the order in which they came, and score those that need not wait.

        Args:
            events: ``Events``, or a mapping of the arguments of ``Events.of``.

        Raises:
            DataError: the columns are wrong, or lack what the bundle's features need.
        """
        self._refuse_closed()
        events = as_events(events)
        self._refuse_gaps(events)
        parts = []
        for start in range(0, len(events), MICRO_BATCH):
            piece = events.slice(start, min(start + MICRO_BATCH, len(events)))
            arrivals = np.arange(self._memory.pushed, self._memory.pushed + len(piece), dtype=np.int64)
            self._memory.pushed += len(piece)
            fresh = self._drop_repeats(piece, arrivals)
            before_s = self._settled_s
            parts.append(self._score(*self._memory.queue.push(*fresh), before_s))
        return Scores.concat(parts)

    def _refuse_gaps(self, events: Events) -> None:
        """Refuse what the detector cannot score before any of it is remembered.

        Raises:
            DataError: something is missing that it needs, or a vector is longer than it can take.
        """
        longest, widths = self.held.longest, np.diff(events.input_offsets)
        lacking = {"confidence": np.isnan(events.confidence), "inputs": widths == 0} if self._needs else {}
        wrong = [explain_need(name) for name, missing in lacking.items() if name in self._needs and missing.any()]
        if longest and widths.max(initial=0) > longest:
            wrong.append(explain_longest(int(widths.max()), longest))
        if wrong:
            raise DataError(f"these events cannot be scored: {'; '.join(wrong)}.")

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ConfigError("this StreamScorer is closed; open another.")

    def _drop_repeats(self, events: Events, arrivals: NDArray[np.int64]) -> tuple[Events, NDArray[np.int64]]:
        requests = hash_requests(events, self._secret)
        if requests is None:
            return events, arrivals
        repeated = np.empty(len(events), bool)
        note_requests(self._memory.requests, requests, repeated)
        self._memory.repeated += int(repeated.sum())
        fresh = np.flatnonzero(~repeated)
        return (events, arrivals) if len(fresh) == len(events) else (events.take(fresh), arrivals[fresh])

    def flush(self) -> Scores:
        """Score the events that wait for earlier ones: at the end of a log, or when none came for a while."""
        before_s = self._settled_s
        return self._score(*self._memory.queue.flush(), before_s)

    def _score(self, events: Events, arrivals: NDArray[np.int64], before_s: float) -> Scores:
        parts = []
        for start in range(0, len(events), MICRO_BATCH):
            stop = min(start + MICRO_BATCH, len(events))
            piece = events if stop - start == len(events) else events.slice(start, stop)
            parts.append(self._score_piece(piece, arrivals[start:stop], before_s))
        return Scores.concat(parts)

    def _score_piece(self, events: Events, arrivals: NDArray[np.int64], before_s: float) -> Scores:
        keys = hash_events(events, self._secret)
        step = self.held.score(events, keys, self._memory.scored, before_s)
        self._memory.scored += len(events)
        count_days(self._memory.days, keys[0], events.time_s)
        alert, score, ended = step.alert, step.score, step.ended
        if len(self._allow):
            allowed = pc.is_in(events.client, self._allow).to_numpy(zero_copy_only=False)
            if not np.isin(keys[1][allowed], self._allowed).all():
                self._allowed = np.union1d(self._allowed, keys[1][allowed])
            alert = alert & ~allowed
            score = np.where(allowed, -1.0, score)
            kept = ~np.isin(ended[1], self._allowed)
            ended = ended[0][kept], ended[1][kept], ended[2][kept]
        followed = self._memory.incidents.follow(
            events, keys[1], score, lambda rows: self._explain(step, rows), ended=ended, clock_s=before_s
        )
        news = [
            *followed,
            *self._memory.incidents.quieten(self._settled_s),
        ]
        for one in news:
            self._memory.told += 1
            self.outbox.append((self._memory.told, to_line(to_finding(one, self.threshold))))
        return Scores(arrivals, step.score, step.peak, step.number, alert, tuple(news))

    def _explain(self, step: Step, rows: list[int]) -> list[tuple[int, str]]:
        """The number of each event in its session, and why its score is high."""
        sequences, logits, states = step.sequences(rows, RECENT)
        usual = self.bundle.manifest["baseline"]
        number, ends = step.number[rows], sequences.lengths
        why = explain(self.held.network, self.bundle.features, usual, sequences, logits, ends, states, number - ends)
        return list(zip(number.tolist(), map(str, why), strict=True))

    def counts(self) -> dict[str, float]:
        """Numbers of the whole run, earlier ones that the state file remembers included."""
        counts = self.held.slots.counts
        days = days_of(self._memory.days)
        return {
            "alerts": self._memory.told,
            "events": self._memory.scored,
            "duplicates": self._memory.repeated,
            "late": int(counts[LATE]),
            "waiting": len(self._memory.queue.events),
            "sessions": self.held.slots.held,
            "evicted_idle": int(counts[IDLE]),
            "evicted_crowded": int(counts[CROWDED]),
            "incidents": self._memory.incidents.opened,
            "open_incidents": len(self._memory.incidents.open),
            "client_days": round(days, 1),
            "alerts_per_client_day": self._memory.incidents.opened / days if days else 0.0,
        }

    @property
    def position(self) -> dict[str, Any]:
        """Where the input is, in the caller's own terms; it is committed with the events pushed so far."""
        return self._memory.position

    @position.setter
    def position(self, position: Mapping[str, Any]) -> None:
        try:
            json.dumps(dict(position))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the position is nothing that JSON holds: {error}.") from error
        self._memory.position = dict(position)

    @property
    def remembered(self) -> int:
        """Clients of which a record is kept, since a session of theirs ended suspicious."""
        return len(self._memory.incidents.records)

    @property
    def tolerance_s(self) -> float:
        """How far behind the latest an event may be and still be put in order."""
        return self._memory.queue.tolerance_s

    @property
    def _settled_s(self) -> float:
        """The time up to which no earlier event is waited for."""
        return self.clock_s - self.tolerance_s

    @property
    def clock_s(self) -> float:
        """The stream's time: that of the latest event, in seconds since 1970."""
        return self._memory.queue.clock_s

    def commit(self) -> None:
        """Write everything to the state file, with ``position`` and the alerts so far; without one, nothing."""
        self._refuse_closed()
        journal = self.journal
        if journal is None:
            return
        with journal.transaction():
            slots = np.flatnonzero(self.held.dirty)
            journal.put_sessions(self.held.columns(), slots, np.flatnonzero(self.held.freed))
            count = int(self._memory.requests.noted[0])
            journal.put_requests(self._memory.requests.ring, self._committed_requests, count)
            journal.put_lines([entry for entry in self.outbox if entry[0] > self._committed_lines])
            journal.put(self._memory.to_values(self.held.slots.counts))
        self.held.dirty[slots] = False
        self.held.freed[:] = False
        self._committed_requests, self._committed_lines = count, self._memory.told

    def delivered(self, sinks: Mapping[str, tuple[int, int]]) -> None:
        """Note each sink's last alert and its own mark, and forget the alerts that all sinks have."""
        self._refuse_closed()
        upto = min((upto for upto, _ in sinks.values()), default=0)
        while self.outbox and self.outbox[0][0] <= upto:
            self.outbox.popleft()
        if self.journal:
            with self.journal.transaction():
                self.journal.put_sinks(sinks)

    def _open_journal(self, path: Path) -> None:
        columns = self.held.columns()
        shapes = [[str(column.dtype), list(column.shape[1:])] for column in columns]
        known = json.dumps({model: profile.to_json() for model, profile in sorted(self.profiles.items())})
        layout = {
            "bundle": self.bundle.manifest["sha256"],
            "profiles": hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest(),
            "columns": shapes,
        }
        self.journal = journal = Journal(path, layout)
        self._secret = journal.secret
        restore(self.held.slots, journal.load_sessions(columns, 8 * SEEN))
        keys, self._memory.requests.noted[0] = journal.load_requests()
        if len(keys):
            note_requests(self._memory.requests, keys, np.empty(len(keys), bool))
        self._committed_requests = int(self._memory.requests.noted[0])
        self._memory.restore(journal.get, self.held.slots.counts)
        self._committed_lines = self._memory.told
        self.outbox.extend(journal.load_lines())
