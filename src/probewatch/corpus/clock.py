"""The simulated clock: when a session's queries come, without waiting for any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0
OFFICE_S = (8 * 3600.0, 18 * 3600.0)  # of a day
WORKDAYS = 5  # of a week that begins on a Monday


@dataclass(frozen=True)
class Pace:
    """How fast a client's queries follow each other.

    Args:
        gaps: gives (n,) seconds before each of n queries; the first does not count.
        office: the client works in office hours, on its week's first five days.
        text: what it is like, in a sentence.
    """

    gaps: Callable[[int, np.random.Generator], NDArray[np.float64]]
    office: bool
    text: str


def _even(low: float, high: float, random: np.random.Generator) -> float:
    """A number drawn evenly over the logarithm."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _human(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    gaps = _even(4.0, 20.0, random) * random.lognormal(0.0, 0.9, queries)
    breaks = random.random(queries) < 0.03
    gaps[breaks] += random.exponential(240.0, int(breaks.sum()))
    return gaps


def _script(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    return _even(0.1, 4.0, random) * random.lognormal(0.0, 0.25, queries)


def _batch(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    gaps = _even(0.003, 0.06, random) * random.lognormal(0.0, 0.3, queries)
    every = int(random.integers(16, 129))
    gaps[every::every] += random.exponential(2.0, len(gaps[every::every]))
    return gaps


def _timer(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    period_s = float(random.choice([5.0, 10.0, 15.0, 30.0, 60.0]))
    return np.asarray(np.maximum(period_s + random.normal(0.0, 0.02 * period_s, queries), 0.001))


def _throttled(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    return _even(1.0, 6.0, random) + random.exponential(0.1, queries)


def _spread(queries: int, random: np.random.Generator) -> NDArray[np.float64]:
    return random.exponential(_even(30.0, 300.0, random), queries)


PACES: dict[str, Pace] = {
    "human": Pace(_human, True, "a person who thinks, works in office hours and takes breaks"),
    "script": Pace(_script, False, "a loop that waits for each answer"),
    "batch": Pace(_batch, False, "a job as fast as the model answers, with pauses between its parts"),
    "timer": Pace(_timer, False, "one query a period"),
    "throttled": Pace(_throttled, False, "a client held to a rate"),
    "spread": Pace(_spread, False, "a query now and then, all day"),
}
"""By name."""


def session_times(
    pace: Pace, queries: int, days: float, random: np.random.Generator, *, after_s: float = 0.0
) -> NDArray[np.float64]:
    """(n,) ascending seconds since the log's beginning, a Monday at 0:00, to the microsecond.

    >>> times = session_times(PACES["human"], 50, 7.0, np.random.default_rng(0))
    >>> bool(np.all(np.diff(times) > 0)), bool(OFFICE_S[0] <= times[0] % DAY_S <= OFFICE_S[1])
    (True, True)

    Args:
        days: in which a session begins.
        after_s: a client's next session begins after this, where ``days`` leaves room.
    """
    gaps = np.maximum(pace.gaps(queries, random), 1e-3)
    gaps[0] = 0.0
    begins = _beginning(pace, days, random)
    if begins < after_s < days * DAY_S:
        begins = after_s + random.exponential(1800.0)
        begins = _into_office(begins) if pace.office else begins
    times = begins + np.cumsum(gaps)
    if pace.office:
        times = _within_office(begins, gaps)
    micros = np.rint(times * 1e6)
    steps = np.arange(queries)
    return np.asarray((np.maximum.accumulate(micros - steps) + steps) / 1e6)


def _beginning(pace: Pace, days: float, random: np.random.Generator) -> float:
    if not pace.office:
        return float(random.uniform(0.0, days * DAY_S))
    day = np.floor(random.uniform(0.0, max(days, 1.0)))
    if day % 7 >= WORKDAYS:
        day -= 2.0
    return float(day * DAY_S + random.uniform(OFFICE_S[0], OFFICE_S[1]))


def _within_office(begins: float, gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times whose gaps run in office hours only: a session that is not done goes on the next workday."""
    day, within = divmod(begins, DAY_S)
    week, weekday = divmod(day, 7)
    days, within_s = np.divmod(within - OFFICE_S[0] + np.cumsum(gaps), OFFICE_S[1] - OFFICE_S[0])
    weeks, weekdays = np.divmod(weekday + days, WORKDAYS)
    return np.asarray((7 * (week + weeks) + weekdays) * DAY_S + OFFICE_S[0] + within_s)


def _into_office(time: float) -> float:
    """The next moment in office hours."""
    day, within = divmod(time, DAY_S)
    if within >= OFFICE_S[1]:
        day, within = day + 1, 0.0
    if day % 7 >= WORKDAYS:
        day, within = day + 7 - day % 7, 0.0
    return day * DAY_S + max(within, OFFICE_S[0])
