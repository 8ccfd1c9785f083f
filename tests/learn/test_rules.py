from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probewatch.data.records import Sessions, offsets_of
from probewatch.learn import rules
from probewatch.learn.rules import count_per_hour, near_duplicates, prada

Rows = Sequence[Sequence[float]]


def sessions_of(
    inputs: Sequence[Rows],
    *,
    client: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    times: Sequence[Sequence[float]] | None = None,
    classes: Sequence[Sequence[int]] | None = None,
) -> Sessions:
    lengths = np.array([len(rows) for rows in inputs], np.int64)
    count, total = len(lengths), int(lengths.sum())
    flat = [row for rows in inputs for row in rows]
    clock = [float(step) for rows in inputs for step in range(len(rows))]
    return Sessions(
        session=np.array([f"s{index}" for index in range(count)], object),
        client=np.array(client or [f"c{index}" for index in range(count)], object),
        model=np.array(model or ["m"] * count, object),
        offsets=offsets_of(lengths),
        time_s=np.array(clock if times is None else [t for part in times for t in part], np.float64),
        confidence=np.full(total, np.nan),
        predicted_class=np.array([k for part in classes for k in part], np.int64)
        if classes
        else np.full(total, -1, np.int64),
        inputs=np.array([value for row in flat for value in row], np.float64),
        input_offsets=offsets_of(np.array([len(row) for row in flat], np.int64)),
        label=np.full(count, -1, np.int8),
        before=np.zeros(count, np.int64),
        ends=np.ones(count, bool),
    )


def every(sessions: Sessions) -> np.ndarray:
    return np.arange(len(sessions))


def without_inputs(times: Sequence[Sequence[float]], client: Sequence[str], model: Sequence[str]) -> Sessions:
    return sessions_of([[[]] * len(part) for part in times], client=client, model=model, times=times)


def test_the_count_is_the_most_queries_in_any_hour_that_ends_in_the_session() -> None:
    times = [[0.0, 10.0, 20.0], [3605.0, 3610.0], [3615.0], [3615.0]]
    sessions = without_inputs(times, ["a", "a", "b", "a"], ["m", "m", "m", "other"])
    # at 3605: 10, 20 and itself; at 3610: 20, 3605 and itself (10 is exactly an hour ago)
    assert count_per_hour(sessions).tolist() == [3.0, 3.0, 1.0, 1.0]


def test_sessions_of_one_client_at_the_same_time_count_together() -> None:
    times = [[0.0, 100.0], [50.0, 5000.0]]
    sessions = without_inputs(times, ["a", "a"], ["m", "m"])
    assert count_per_hour(sessions).tolist() == [3.0, 2.0]


def test_five_hundred_calls_an_hour_reach_the_rule_and_a_paced_client_does_not() -> None:
    fast, slow = (np.arange(500) * 7.0).tolist(), (np.arange(500) * 8.0).tolist()
    scores = count_per_hour(without_inputs([fast, slow], ["fast", "slow"], ["m", "m"]))
    assert scores[0] >= 500 > scores[1] == 450


def test_prada_is_one_minus_the_statistic_of_the_distances_to_earlier_queries() -> None:
    steps = np.random.default_rng(0).uniform(0.5, 1.5, 40)
    line = np.cumsum(steps)  # rising, so the nearest earlier query is the previous one
    spread = np.subtract(*np.quantile(line, [0.95, 0.05]))
    expected = 1 - stats.shapiro(np.diff(line) / spread).statistic
    sessions = sessions_of([line[:, None].tolist()])
    assert prada(sessions, every(sessions)) == pytest.approx([expected], abs=1e-12)


def test_prada_compares_within_a_class_and_leaves_out_classes_with_few_distances() -> None:
    line = np.cumsum(np.random.default_rng(1).uniform(0.5, 1.5, 39))
    rows = np.sort(np.append(line, [0.0, 0.01]))  # two queries of their own class, close to each other
    classes = [7 if value in (0.0, 0.01) else 3 for value in rows]
    alone = prada(sessions_of([line[:, None].tolist()]), np.array([0]))
    mixed = sessions_of([rows[:, None].tolist()], classes=[classes])
    assert prada(mixed, np.array([0])) == pytest.approx(alone, abs=1e-9)


def test_prada_leaves_out_distances_beyond_three_standard_deviations() -> None:
    line = np.cumsum(np.random.default_rng(2).uniform(0.5, 1.5, 60))
    far = np.append(line, line[-1] + 1000.0)
    usual, outlying = (sessions_of([rows[:, None].tolist()]) for rows in (line, far))
    assert prada(outlying, np.array([0])) == pytest.approx(prada(usual, np.array([0])), abs=1e-9)


def test_prada_says_nothing_of_short_constant_or_absent_inputs() -> None:
    short = [[float(step**2)] for step in range(rules.PRADA_DISTANCES)]
    even = [[float(step)] for step in range(40)]
    same = [[5.0]] * 40
    sessions = sessions_of([short, even, same, [[]] * 40, []])
    assert prada(sessions, every(sessions)).tolist() == [0.0] * 5


def test_a_query_near_an_earlier_one_of_the_same_client_counts() -> None:
    draws = np.random.default_rng(0).uniform(0, 1000, (6, 30))
    near = draws[0].copy()
    near[:5] += 500.0  # 25 of 30 numbers stay
    far = draws[1].copy()
    far[:16] += 500.0  # 14 of 30 stay: not more than half
    sessions = sessions_of(
        [[*draws[:2], near, far], [near, draws[2]], [draws[0], draws[0]], [draws[0]]],
        client=["a", "b", "c", "d"],
    )
    # c repeats its query exactly; b and d ask what others asked
    assert near_duplicates(sessions, every(sessions), seed=0).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_earlier_sessions_of_the_client_are_remembered_and_later_ones_are_not() -> None:
    row, other = np.random.default_rng(0).uniform(0, 1000, (2, 30))
    sessions = sessions_of(
        [[row], [row, other], [row]],
        client=["a", "a", "a"],
        model=["m", "m", "n"],
        times=[[100.0], [0.0, 1.0], [200.0]],
    )
    assert near_duplicates(sessions, every(sessions), seed=0).tolist() == [1.0, 0.0, 0.0]


def test_long_vectors_are_hashed_in_windows() -> None:
    image, *others = np.random.default_rng(0).uniform(0, 255, (20, 300))
    patch, speckled = image.copy(), image.copy()
    patch[:30] += 120.0  # 30 numbers side by side spoil 30 of 281 windows
    speckled[::15] += 120.0  # every window holds one of them
    sessions = sessions_of([[image, patch], [image, speckled], [image, image], others])
    assert near_duplicates(sessions, every(sessions), seed=0).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_the_comparison_reaches_back_over_blocks_as_far_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = np.arange(60, dtype=np.uint64).reshape(20, 3)
    prints[15] = prints[3]  # 12 queries before
    prints[17, :2] = prints[2, :2]  # 15 before: 2 of 3 hashes
    prints[19, 0] = prints[18, 0]  # 1 of 3 is not more than half
    for block in (1, 4, 7, 100):
        monkeypatch.setattr(rules, "BLOCK", block)
        monkeypatch.setattr(rules, "LOOK_BACK", 15)
        assert np.flatnonzero(rules._matches_earlier(prints)).tolist() == [15, 17]
        monkeypatch.setattr(rules, "LOOK_BACK", 14)
        assert np.flatnonzero(rules._matches_earlier(prints)).tolist() == [15]


def test_a_health_check_on_an_unknown_model_repeats_itself() -> None:
    sessions = sessions_of([[[1.0, 2.0]] * 4, [[3.0, 1.0], [9.0, 4.0]]], model=["new", "known"])
    assert near_duplicates(sessions, np.array([1]), seed=0).tolist() == [3.0, 0.0]


def test_scales_come_from_the_training_sessions_alone() -> None:
    random = np.random.default_rng(0)
    trained, other = random.normal(size=(40, 3)), random.normal(size=(40, 3))
    wild = other * [1e3, 1.0, 1e-3]
    calm_sessions = sessions_of([trained, other])
    wild_sessions = sessions_of([trained, wild])
    for rule in (prada, lambda given, train: near_duplicates(given, train, seed=0)):
        assert rule(calm_sessions, np.array([0]))[0] == rule(wild_sessions, np.array([0]))[0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1.0])), max_size=3), max_size=25),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 3),
)
def test_any_inputs_give_finite_scores_without_a_warning(inputs: list[list[list[float]]], trained: int) -> None:
    sessions = sessions_of(inputs, client=["a", "a", "b", "c"][: len(inputs)])
    train = np.arange(min(trained, len(inputs)))
    for scores in (
        prada(sessions, train),
        near_duplicates(sessions, train, seed=0),
        count_per_hour(sessions),
    ):
        assert np.isfinite(scores).all()
        assert (scores >= 0).all()
