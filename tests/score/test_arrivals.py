"""Request ids are known again for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.data.events import Events
from probewatch.score.arrivals import CONFIRMED, HELD_BACK, RECENT, Queue, new_requests, note_requests


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 24), max_size=120))
def test_the_last_requests_are_known_and_older_ones_are_not(keys: list[int]) -> None:
    requests = new_requests(8)
    known: OrderedDict[int, None] = OrderedDict()
    expected = []
    for key in keys:
        expected.append(key != 0 and key in known)
        if key and key not in known:
            known[key] = None
            if len(known) > 8:
                known.popitem(last=False)
    repeated = np.empty(len(keys), bool)
    note_requests(requests, np.array(keys, np.int64) * 16, repeated)
    assert repeated.tolist() == expected


def test_not_more_than_so_many_events_wait() -> None:
    queue = Queue(1e6, Events.of([], []), np.zeros(0, np.int64))
    events = Events.of(["a"] * 1000, np.linspace(1e9, 1e9 + 1, 1000))
    given_out = [queue.push(events, np.arange(1000) + at)[0] for at in range(0, 70_000, 1000)]
    assert len(queue.events) == HELD_BACK
    assert sum(map(len, given_out)) == 70_000 - HELD_BACK


def test_a_client_whose_clock_is_hours_ahead_does_not_wait_for_the_others() -> None:
    queue = Queue(2.0, Events.of([], []), np.zeros(0, np.int64))
    times = 1e9 + np.arange(1000.0)
    times[::10] += 7200.0
    scored = [queue.push(Events.of(["a"], times[at : at + 1]), np.array([at]))[1].tolist() for at in range(1000)]
    came = {number: at for at, numbers in enumerate(scored) for number in numbers}
    assert all(came[at] - at <= RECENT for at in range(900))
    assert queue.clock_s == 1e9 + 999


def test_times_after_a_pause_of_hours_are_put_in_order_once_they_are_believed() -> None:
    queue = Queue(2.0, Events.of([], []), np.zeros(0, np.int64))
    late = [1e9 + 36_000 + at + (1.5 if at % 2 else 0.0) for at in range(100)]
    times = np.array([1e9, *late])
    given_out = np.concatenate(
        [queue.push(Events.of(["a"], times[at : at + 1]), np.array([at]))[0].time_s for at in range(len(times))]
    )
    assert len(given_out) > 90
    assert (np.diff(given_out) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=200),
    st.integers(1, 40),
    st.sampled_from([9e9, 1.0]),
    st.integers(1, 9),
)
def test_fewer_wild_times_than_that_never_move_the_clock(wild: list[bool], normal: int, time: float, cut: int) -> None:
    queue = Queue(0.0, Events.of([], []), np.zeros(0, np.int64))
    times = [1e9 + at for at in range(normal)]
    for bad in wild:  # of RECENT in a row, and of all so far, fewer than CONFIRMED and than half
        recent = times[-(RECENT - 1) :]
        few = sum(one == time for one in recent) + 1 < min(CONFIRMED, (len(recent) + 1) // 2)
        times.append(time if bad and few else 1e9 + len(times))
    for at in range(0, len(times), cut):
        queue.push(Events.of(["a"] * len(times[at : at + cut]), times[at : at + cut]), np.arange(1))
        assert queue.clock_s == max(one for one in times[: at + cut] if one != time)


def test_a_clock_that_went_ahead_comes_back() -> None:
    queue = Queue(0.0, Events.of([], []), np.zeros(0, np.int64))
    for times in (np.full(100, 9e9), 1e9 + np.arange(RECENT - CONFIRMED + 1)):
        queue.push(Events.of(["a"] * len(times), times), np.arange(len(times)))
    assert queue.clock_s == 1e9 + RECENT - CONFIRMED
