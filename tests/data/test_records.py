"""The columns of sessions: taking, joining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probewatch.data.fields import FieldMap
from probewatch.data.logs import read_logs
from probewatch.data.records import Sessions, offsets_of, ranges


def make(lengths: list[int], *, before: int = 0, ends: bool = True) -> Sessions:
    """Sessions whose every value tells where it stands."""
    count, total = len(lengths), sum(lengths)
    names = np.array([f"s{index}" for index in range(count)], object)
    numbers = np.arange(total, dtype=np.float64)
    widths = np.arange(total) % 3
    return Sessions(
        session=names,
        client=names + "c",
        model=names + "m",
        offsets=offsets_of(np.array(lengths, np.int64)),
        time_s=numbers,
        confidence=numbers / 100,
        predicted_class=numbers.astype(np.int64),
        inputs=np.repeat(numbers, widths),
        input_offsets=offsets_of(widths),
        label=np.arange(count, dtype=np.int8),
        before=np.array([before] + [0] * (count - 1), np.int64)[:count],
        ends=np.array([True] * (count - 1) + [ends])[:count],
        given={"column": numbers * 2},
    )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_take_gives_the_sessions_in_the_order_asked(lengths: list[int], data: st.DataObject) -> None:
    sessions = make(lengths)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    taken = sessions.take(np.array(indices, np.int64))
    assert taken.session.tolist() == [f"s{index}" for index in indices]
    assert taken.lengths.tolist() == [lengths[index] for index in indices]
    rows = [row for i in indices for row in range(sessions.offsets[i], sessions.offsets[i + 1])]
    assert taken.time_s.tolist() == rows
    assert taken.given["column"].tolist() == [2 * row for row in rows]
    assert taken.inputs.tolist() == [row for row in rows for _ in range(row % 3)]
    assert np.diff(taken.input_offsets).tolist() == [row % 3 for row in rows]
    assert taken.label.tolist() == indices


def test_take_by_a_mask_keeps_the_order() -> None:
    assert make([1, 2, 3]).take(np.array([True, False, True])).lengths.tolist() == [1, 3]


def test_concat_joins_a_session_that_was_cut() -> None:
    joined = Sessions.concat([make([2, 3], ends=False), make([4], before=3, ends=False), make([1, 2], before=7)])
    assert joined.lengths.tolist() == [2, 8, 2]
    assert joined.session.tolist() == ["s0", "s1", "s1"]
    assert joined.before.tolist() == [0, 0, 0]
    assert joined.ends.tolist() == [True, True, True]
    assert joined.time_s.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]
    assert joined.input_offsets[-1] == len(joined.inputs)
    assert joined.given["column"].tolist() == (2 * joined.time_s).tolist()


def test_concat_of_nothing_is_no_session() -> None:
    assert len(Sessions.concat([])) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=10))
def test_ranges_are_the_integers_of_each_pair(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(pairs, np.int64).reshape(-1, 2).T
    assert ranges(starts, lengths).tolist() == [start + step for start, length in pairs for step in range(length)]


def test_a_session_knows_where_it_first_comes_up_even_if_it_is_cut(tmp_path: Path) -> None:
    rows = [("zoe", 3), ("adam", 1), ("zoe", 1), ("mia", 2), ("adam", 9)]
    lines = [f'{{"user": "{user}", "t": {second}}}\n' for user, second in rows]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    with read_logs([tmp_path / "log.jsonl"], fields=FieldMap(client="user", time="t")) as log:
        whole = log.all_sessions()
        cut = Sessions.concat(list(log.sessions(chunk_events=1)))
    assert whole.client.tolist() == ["adam", "mia", "zoe"]
    for sessions in (whole, cut):
        assert sessions.take(np.argsort(sessions.arrival)).client.tolist() == ["zoe", "adam", "mia"]
