"""Request ids are known again for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.data.events import Events
from probewatch.score.arrivals import HELD_BACK, Queue, new_requests, note_requests


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
