"""Incidents: one alert for each client and model while it lasts, and what is remembered of clients that waited."""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.events import Events

OPEN = 10_000  # incidents at a time; beyond, the one that was quiet longest is resolved early
REMEMBERED = 65_536  # clients of which a record is kept
SUSPICIOUS = 0.5  # a session that ended with this share of the threshold, or more, leaves a record


LONGEST = 1024  # characters of a name that are kept


def shorten(name: str) -> str:
    """A name, or the beginning of a very long one with its length."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}… ({len(name):,} characters)"


class Severity(IntEnum):
    """OCSF's ``severity_id``."""

    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Activity(IntEnum):
    """OCSF's ``activity_id``: what a finding says of its incident."""

    CREATE = 1
    UPDATE = 2
    CLOSE = 3


@dataclass
class Incident:
    """Queries of one client on one model that reached the threshold, none long after the one before; it grows.

    Attributes:
        uid: the same for the same client, model and first query, in every run; empty until that is known.
        client, model, session: as in the log, at most LONGEST characters; the session of the first query.
        first_s, last_s: time of the first and the last query that reached the threshold.
        number: of the first query in its session, from 1.
        events: how many queries did.
        peak: highest score.
        severity: by the peak; one step higher if the client was suspicious before.
        again: it was.
        why: what moved the score at the query that was told last: the first, or the one at which severity rose.
        touched_s: time of the last query that did, or the stream's then, if that was later.
    """

    uid: str
    client: str
    model: str
    session: str
    first_s: float
    last_s: float
    number: int
    events: int
    peak: float
    severity: Severity
    again: bool
    why: str
    touched_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A form that JSON holds without loss."""
        return asdict(self)

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Incident:
        """What :meth:`to_json` gave."""
        return cls(**{**form, "severity": Severity(form["severity"])})


@dataclass(frozen=True)
class News:
    """An incident as it was when there was something to tell of it."""

    activity: Activity
    incident: Incident


@dataclass(frozen=True)
class _Told:
    """News before it is known what its query shows: the incident as it goes on and as it was, and the query's row.

    ``row`` is -1 where the news is that it was quiet.
    """

    activity: Activity
    owner: int
    incident: Incident
    was: Incident
    row: int


Ended = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
NONE_ENDED: Ended = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)

Opener = Callable[[list[int]], list[tuple[int, str]]]
"""From rows of events to the number of each in its session, and to why its score is high."""


class Incidents:
    """The open incidents and the records of clients; each call changes them.

    Args:
        threshold: of the score.
        quiet_s: an incident without a query over the threshold for longer is resolved.
    """

    def __init__(self, threshold: float, quiet_s: float) -> None:
        self.threshold = threshold
        self.quiet_s = quiet_s
        self.open: OrderedDict[int, Incident] = OrderedDict()  # by owner, the longest untouched first
        self.records: OrderedDict[int, float] = OrderedDict()  # owner to peak
        self.opened = 0
        self._due: list[tuple[float, int, str]] = []  # no incident is quiet before its entry says

    def _record(self, owner: int, peak: float) -> None:
        self.records[owner] = max(peak, self.records.pop(owner, 0.0))
        if len(self.records) > REMEMBERED:
            self.records.popitem(last=False)

    def follow(
        self,
        events: Events,
        owners: NDArray[np.int64],
        scores: NDArray[np.float64],
        opener: Opener,
        *,
        ended: Ended = NONE_ENDED,
        clock_s: float = 0.0,
    ) -> list[News]:
        """Take in the events over the threshold and the sessions that ended, and tell what is new.

        A session that ended suspicious leaves a record, which counts for incidents that begin at that event or later.

        Args:
            events: N events in order, those of allowed clients among them.
            owners: (N,) key of client and model.
            scores: (N,) after each; below the threshold for allowed clients.
            opener: what incidents need to know of the queries that they are told for; called once, for all.
            ended: the event by which each session had ended, ascending, its owner and its peak.
            clock_s: the stream's time before the events, from which a client that lags behind is quiet.
        """
        over = np.flatnonzero(scores >= self.threshold)
        leaving = deque(at for at, peak in enumerate(ended[2].tolist()) if peak >= SUSPICIOUS * self.threshold)

        def remember(upto: int) -> None:
            while leaving and ended[0][leaving[0]] <= upto:
                at = leaving.popleft()
                self._record(int(ended[1][at]), float(ended[2][at]))

        if not len(over):
            remember(len(events))
            return []
        over = over[np.argsort(owners[over], kind="stable")]
        own, times = owners[over], events.time_s[over]
        begins = np.ones(len(over), bool)
        begins[1:] = (own[1:] != own[:-1]) | (np.diff(times) > self.quiet_s)
        stretches = np.split(over, np.flatnonzero(begins)[1:])
        told: list[_Told] = []
        for rows in sorted(stretches, key=lambda rows: int(rows[0])):
            remember(int(rows[0]))
            owner = int(owners[rows[0]])
            told += self._touch(owner, events, rows, scores[rows])
            self.open[owner].touched_s = max(self.open[owner].last_s, clock_s)
        remember(len(events))
        self._explain(told, events, opener)
        return [News(one.activity, one.was) for one in told]

    def _explain(self, told: list[_Told], events: Events, opener: Opener) -> None:
        """Give the incidents, and what is told of them, what the queries show that they are told for."""
        shown = [one.row for one in told if one.row >= 0]
        found = iter(opener(shown) if shown else [])
        for one in told:
            incident = one.incident
            if one.row >= 0:
                number, incident.why = next(found)
            if one.activity is Activity.CREATE:
                incident.number, incident.uid = number, _uid(events, one.row, number)
                heapq.heappush(self._due, (incident.first_s, one.owner, incident.uid))
            one.was.uid, one.was.number, one.was.why = incident.uid, incident.number, incident.why

    def _touch(
        self, owner: int, events: Events, rows: NDArray[np.int64], scores: NDArray[np.float64]
    ) -> Iterator[_Told]:
        times = events.time_s[rows]
        incident = self.open.get(owner)
        if incident and times[0] - incident.last_s > self.quiet_s:
            yield self._close(owner)
            incident = None
        if incident is None:
            incident = self._begin(owner, events, int(rows[0]), float(scores[0]))
            yield _tell(Activity.CREATE, owner, incident, int(rows[0]))
            while len(self.open) > OPEN:
                yield self._close(next(iter(self.open)))
            rows, scores = rows[1:], scores[1:]
        self.open.move_to_end(owner)
        risen = [at for at, score in enumerate(scores) if self._severity(score, incident.again) > incident.severity]
        if risen:
            self._grow(incident, events, rows[: risen[0] + 1], scores[: risen[0] + 1])
            incident.severity = self._severity(float(scores[risen[0]]), incident.again)
            yield _tell(Activity.UPDATE, owner, incident, int(rows[risen[0]]))
            rows, scores = rows[risen[0] + 1 :], scores[risen[0] + 1 :]
        self._grow(incident, events, rows, scores)

    @staticmethod
    def _grow(incident: Incident, events: Events, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        incident.events += len(rows)
        incident.last_s = max(incident.last_s, float(events.time_s[rows].max(initial=0.0)))
        incident.peak = max(incident.peak, float(scores.max(initial=0.0)))

    def _begin(self, owner: int, events: Events, row: int, score: float) -> Incident:
        again = self.records.pop(owner, None) is not None
        client, model, session = (str(column[row]) for column in (events.client, events.model, events.session))
        time_s = float(events.time_s[row])
        self.open[owner] = incident = Incident(
            "", shorten(client), shorten(model), shorten(session),
            time_s, time_s, 0, 1, score, self._severity(score, again), again, "",
        )  # fmt: skip
        self.opened += 1
        return incident

    def _severity(self, score: float, again: bool) -> Severity:
        """Medium in the lower half between threshold and 1, high in the upper; one more for who was here before."""
        high = score - self.threshold >= 0.5 * (1.0 - self.threshold)
        return Severity(Severity.MEDIUM + high + again)

    def quieten(self, clock_s: float) -> Iterator[News]:
        """Resolve the incidents that have been quiet at the stream's time."""
        while self._due and clock_s - self._due[0][0] > self.quiet_s:
            _, owner, uid = heapq.heappop(self._due)
            incident = self.open.get(owner)
            if incident is None or incident.uid != uid:
                continue  # resolved before
            if clock_s - incident.touched_s > self.quiet_s:
                yield News(Activity.CLOSE, self._close(owner).was)
            else:
                heapq.heappush(self._due, (incident.touched_s, owner, uid))

    def restore(self, incidents: Iterable[tuple[int, Incident]], records: Iterable[tuple[int, float]]) -> None:
        """Go on with the open incidents and records of an earlier run, in their order."""
        self.open.update(incidents)
        self.records.update(records)
        self._due = [(incident.touched_s, owner, incident.uid) for owner, incident in self.open.items()]
        heapq.heapify(self._due)

    def _close(self, owner: int) -> _Told:
        incident = self.open.pop(owner)
        self._record(owner, incident.peak)
        return _tell(Activity.CLOSE, owner, incident, -1)


def _tell(activity: Activity, owner: int, incident: Incident, row: int) -> _Told:
    return _Told(activity, owner, incident, replace(incident), row)


def _uid(events: Events, row: int, number: int) -> str:
    """The same for a query in every run; a client whose clock stands still has more than one at its time."""
    time_us = round(float(events.time_s[row]) * 1e6)
    name = "\0".join([str(events.client[row]), str(events.model[row]), str(time_us), str(number)])
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
