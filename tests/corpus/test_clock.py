from __future__ import annotations

import numpy as np
import pytest

from probewatch.corpus.clock import DAY_S, OFFICE_S, PACES, session_times


@pytest.mark.parametrize("name", PACES)
def test_times_ascend_by_microseconds_at_least_and_begin_within_the_days(name: str) -> None:
    for seed in range(40):
        times = session_times(PACES[name], 200, 3.0, np.random.default_rng(seed))
        micros = np.rint(times * 1e6)
        assert np.all(np.diff(micros) >= 1) and np.array_equal(micros / 1e6, times)
        assert 0 <= times[0] < 3 * DAY_S


def test_office_sessions_stay_in_office_hours() -> None:
    for seed in range(60):
        times = session_times(PACES["human"], 300, 7.0, np.random.default_rng(seed))
        within = times % DAY_S
        assert within.min() >= OFFICE_S[0] and within.max() <= OFFICE_S[1] + 1
        assert times[0] // DAY_S < 5


@pytest.mark.parametrize("days", [3.0, 5.5, 7.0, 30.0])
def test_office_sessions_rest_at_weekends(days: float) -> None:
    for seed in range(40):
        for after_s in (0.0, 5.3 * DAY_S):
            times = session_times(PACES["human"], 9000, days, np.random.default_rng(seed), after_s=after_s)
            assert np.all(times // DAY_S % 7 < 5) and np.all(np.diff(times) > 0)
            assert np.median(np.diff(times)) < 60  # nor do they skip days between
            worked = np.unique(times // DAY_S)
            assert len(worked) > 2 and np.all(np.isin(np.diff(worked), (1, 3)))


def test_a_clients_next_session_begins_behind_its_last() -> None:
    for name in PACES:
        for seed in range(40):
            times = session_times(PACES[name], 5, 7.0, np.random.default_rng(seed), after_s=200_000.0)
            assert times[0] >= 200_000.0


def test_one_query_needs_no_gap() -> None:
    assert len(session_times(PACES["batch"], 1, 0.5, np.random.default_rng(1))) == 1
