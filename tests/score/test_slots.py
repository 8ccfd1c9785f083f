"""Slots against an ordered dictionary that does the same, an event at a time."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.score.slots import AFTER, CROWDED, EVENTS, IDLE, KEY, arrange, assign, new_slots, purge, restore, settle

SIZE, GAP_S, IDLE_S = 16, 10.0, 50.0
events = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(events, min_size=1, max_size=25), st.integers(1, 3))
def test_slots_hold_what_a_dictionary_by_last_use_would(batches: list[list[tuple[int, int]]], parts: int) -> None:
    slots = new_slots(SIZE)
    held: OrderedDict[int, tuple[float, int]] = OrderedDict()  # key -> last time, events
    clock, arrival, crowded = 0.0, 0, 0
    for batch in batches:
        keys = np.array([key for key, _ in batch], np.int64) * 0x10000  # all hash to one place
        times = clock + np.cumsum([pause for _, pause in batch]).astype(float)
        count = len(batch)
        gone = np.empty(64, np.int64), np.empty(64), np.empty(64, np.int64)
        purged = purge(slots, clock - IDLE_S, clock, *gone)
        while held and next(iter(held.values()))[0] < clock - IDLE_S:
            key, _ = held.popitem(last=False)
            assert key in gone[0][:purged]
        run_of, slot_of, begins = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, bool)
        runs, _ = assign(
            slots, keys, keys, np.ones(count, bool), times, arrival, GAP_S, IDLE_S, run_of, slot_of, begins,
            np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count),
        )  # fmt: skip
        expected = []
        for key, time in zip(keys.tolist(), times.tolist(), strict=True):
            last, number = held.pop(key, (time, 0))
            if not number and len(held) == SIZE:
                held.popitem(last=False)
                crowded += 1
            held[key] = (time, 1 if time - last > GAP_S else number + 1)
            expected.append(held[key][1])
        layout = arrange(slots, run_of, slot_of[:runs], begins[:runs], parts)
        order, offsets, firsts = layout.order, layout.offsets, layout.lanes
        assert sorted(order.tolist()) == list(range(count))
        assert firsts[-1] == runs and offsets[-1] == count
        lengths = np.diff(offsets)
        for part in range(parts):
            singles = slice(firsts[2 * part], firsts[2 * part + 1])
            assert (lengths[singles] == 1).all()
            assert (layout.slot_of[firsts[2 * part] : firsts[2 * part + 2]] % parts == part).all()
        out = np.empty(count), np.empty(count), np.empty(count, np.int64), np.empty(count, bool)
        settle(
            slots, layout.order, layout.slot_of, layout.begins, layout.offsets, np.zeros(count), 0.5, False, out,
            np.empty(count, np.int64), np.empty(runs),
        )  # fmt: skip
        assert out[2].tolist() == expected
        clock, arrival = float(times[-1]), arrival + count
    assert slots.held == len(held)
    assert slots.counts[CROWDED] == crowded
    taken = np.flatnonzero(slots.book[:, EVENTS])
    assert {int(slots.book[slot, KEY]): slots.book[slot, EVENTS] for slot in taken} == {
        k: n for k, (_, n) in held.items()
    }
    assert slots.counts[IDLE] >= 0
    again = new_slots(SIZE)
    again.book[:] = slots.book
    restore(again, taken)
    walked = []
    slot = int(again.links[SIZE, AFTER])
    while slot != SIZE:
        walked.append(int(again.book[slot, KEY]))
        slot = int(again.links[slot, AFTER])
    assert walked == list(held)


def test_a_second_session_of_a_slot_in_one_micro_batch_keeps_the_peaks_of_both() -> None:
    slots = new_slots(SIZE)
    keys = np.full(4, 7, np.int64)
    times = np.array([0.0, 1.0, 100.0, 101.0])
    run_of, slot_of, begins = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, bool)
    runs, _ = assign(
        slots, keys, keys, np.ones(4, bool), times, 0, GAP_S, 1e9, run_of, slot_of, begins,
        np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4),
    )  # fmt: skip
    layout = arrange(slots, run_of, slot_of[:runs], begins[:runs], 1)
    out, ended = (np.empty(4), np.empty(4), np.empty(4, np.int64), np.empty(4, bool)), np.empty(runs)
    settle(
        slots, layout.order, layout.slot_of, layout.begins, layout.offsets, np.array([0.9, 0.1, 0.2, 0.3]), 0.5, False,
        out, np.empty(4, np.int64), ended,
    )  # fmt: skip
    assert ended.tolist() == [-1.0, 0.9]
    assert out[1].tolist() == [0.9, 0.9, 0.2, 0.3]
    assert out[2].tolist() == [1, 2, 1, 2]
    assert out[3].tolist() == [True, True, False, False]


def test_a_session_with_a_wild_time_keeps_no_idle_ones_from_being_forgotten() -> None:
    slots = new_slots(SIZE)
    keys, times = np.arange(1, 4, dtype=np.int64), np.array([9e9, 0.0, 90.0])
    empty = (np.empty(3, np.int64) for _ in range(4))
    assign(slots, keys, keys, np.ones(3, bool), times, 0, GAP_S, 1e9, next(empty), next(empty), np.empty(3, bool),
           next(empty), next(empty), np.empty(3))  # fmt: skip
    gone = np.empty(8, np.int64), np.empty(8), np.empty(8, np.int64)
    assert purge(slots, 50.0, 100.0, *gone) == 2
    assert gone[0][:2].tolist() == [1, 2]
    assert purge(slots, 50.0, 100.0, *gone) == 0
    assert slots.held == 1
