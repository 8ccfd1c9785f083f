"""Incidents are one for each client and model while they last, whatever the micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.data.events import Events
from probewatch.score import incidents as module
from probewatch.score.incidents import LONGEST, Activity, Incident, Incidents, Severity


def follow(incidents: Incidents, names: list[str], times: list[float], scores: list[float]) -> list[tuple[str, str]]:
    """What is told, as (activity, client)."""
    owners = np.array([sum(name.encode()) for name in names], np.int64)
    events = Events.of(names, times, model="m")
    news = incidents.follow(events, owners, np.array(scores), lambda rows: [(3, "because")] * len(rows))
    return [(one.activity.name, one.incident.client) for one in news]


def test_only_the_first_query_over_the_threshold_is_told() -> None:
    incidents = Incidents(0.5, 60.0)
    assert follow(incidents, ["a", "b", "a", "a"], [0, 1, 2, 3], [0.4, 0.1, 0.6, 0.7]) == [("CREATE", "a")]
    assert follow(incidents, ["a", "a"], [4, 5], [0.6, 0.2]) == []
    (incident,) = incidents.open.values()
    assert (incident.first_s, incident.last_s, incident.events, incident.peak) == (2.0, 4.0, 3, 0.7)
    assert (incident.number, incident.why) == (3, "because")


def test_severity_rises_with_the_score_and_is_told_once() -> None:
    incidents = Incidents(0.6, 60.0)
    told = follow(incidents, ["a"] * 4, [0, 1, 2, 3], [0.61, 0.79, 0.8, 0.99])
    assert told == [("CREATE", "a"), ("UPDATE", "a")]
    assert [incident.severity for incident in incidents.open.values()] == [Severity.HIGH]


def test_quiet_resolves_an_incident_and_the_next_is_more_severe() -> None:
    incidents = Incidents(0.5, 60.0)
    follow(incidents, ["a"], [0], [0.6])
    assert list(incidents.quieten(60.0)) == []
    (news,) = incidents.quieten(61.0)
    assert (news.activity, news.incident.last_s) == (Activity.CLOSE, 0.0)
    follow(incidents, ["a"], [1000], [0.6])
    (incident,) = incidents.open.values()
    assert incident.again and incident.severity is Severity.HIGH


def test_a_pause_within_a_micro_batch_ends_an_incident_too() -> None:
    told = follow(Incidents(0.5, 60.0), ["a", "a", "a"], [0, 61, 500], [0.6, 0.6, 0.1])
    assert told == [("CREATE", "a"), ("CLOSE", "a"), ("CREATE", "a")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.sampled_from([0.1, 0.55, 0.8, 0.95])),
        min_size=1, max_size=30,
    ),
    st.lists(st.integers(1, 8), min_size=1, max_size=5),
)  # fmt: skip
def test_the_cut_into_micro_batches_changes_nothing(queries: list[tuple[str, int, float]], cuts: list[int]) -> None:
    names = [name for name, _, _ in queries]
    times = np.cumsum([pause for _, pause, _ in queries]).astype(float).tolist()
    scores = [score for _, _, score in queries]

    def told(pieces: list[int]) -> tuple[list[tuple[str, str]], list[Incident]]:
        incidents, found, at, turn = Incidents(0.5, 60.0), [], 0, 0
        while at < len(names):
            piece = slice(at, at + pieces[turn % len(pieces)])
            found += follow(incidents, names[piece], times[piece], scores[piece])
            found += [(one.activity.name, one.incident.client) for one in incidents.quieten(times[piece][-1])]
            at, turn = piece.stop, turn + 1
        return sorted(found), sorted(incidents.open.values(), key=lambda one: one.uid)

    assert told(cuts) == told([len(names)])


def test_what_is_told_has_the_reason_of_its_own_query() -> None:
    incidents = Incidents(0.6, 60.0)
    events = Events.of(["a"] * 4, [0.0, 1.0, 2.0, 3.0])
    scores = np.array([0.61, 0.7, 0.8, 0.1])
    news = incidents.follow(
        events, np.full(4, 7), scores, lambda rows: [(row + 1, f"of row {row}") for row in rows]
    )  # fmt: skip
    news += incidents.quieten(100.0)
    assert [(one.activity.name, one.incident.number, one.incident.why) for one in news] == [
        ("CREATE", 1, "of row 0"), ("UPDATE", 1, "of row 2"), ("CLOSE", 1, "of row 2"),
    ]  # fmt: skip
    assert len({one.incident.uid for one in news}) == 1


def test_incidents_of_a_client_whose_clock_stands_still_are_told_apart() -> None:
    incidents, uids = Incidents(0.5, 60.0), []
    for number, clock_s in enumerate([0.0, 100.0], 1):
        events, opened = Events.of(["a"], [0.0]), [(number, "")]
        (news,) = incidents.follow(events, np.full(1, 7), np.full(1, 0.6), lambda _, opened=opened: opened)
        uids += [news.incident.uid, *(one.incident.uid for one in incidents.quieten(clock_s + 61.0))]
    assert uids[0] == uids[1] != uids[2] == uids[3]


def test_incidents_and_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN", 2)
    monkeypatch.setattr(module, "REMEMBERED", 3)
    incidents = Incidents(0.5, 60.0)
    told = follow(incidents, ["a", "b", "c"], [0, 1, 2], [0.6, 0.6, 0.6])
    assert told == [("CREATE", "a"), ("CREATE", "b"), ("CREATE", "c"), ("CLOSE", "a")]
    leave(incidents, list(range(10)), [0.3] * 10)
    assert list(incidents.records) == [7, 8, 9]


def test_a_session_that_ended_harmless_leaves_no_record() -> None:
    incidents = Incidents(0.5, 60.0)
    leave(incidents, [1, 2], [0.24, 0.25])
    assert list(incidents.records) == [2]


def leave(incidents: Incidents, owners: list[int], peaks: list[float]) -> None:
    """Sessions that end while nobody asks."""
    ended = np.full(len(owners), -1), np.array(owners, np.int64), np.array(peaks)
    assert not incidents.follow(Events.of([], []), np.zeros(0, np.int64), np.zeros(0), lambda _: [], ended=ended)


def test_a_session_counts_against_incidents_that_begin_when_it_has_ended_and_not_against_its_own() -> None:
    events, owners = Events.of(["a"] * 4, [0.0, 1.0, 500.0, 501.0]), np.full(4, 7, np.int64)
    ended = np.array([2]), np.array([7]), np.array([0.7])
    incidents = Incidents(0.5, 60.0)
    scores = np.array([0.7, 0.7, 0.7, 0.7])
    news = incidents.follow(events, owners, scores, lambda rows: [(1, "")] * len(rows), ended=ended)
    begun = [one.incident for one in news if one.activity.name == "CREATE"]
    assert [(one.first_s, one.again) for one in begun] == [(0.0, False), (500.0, True)]


def test_a_client_that_lags_behind_the_stream_has_one_incident() -> None:
    incidents = Incidents(0.5, 60.0)
    told = []
    for at in range(5):
        events = Events.of(["a"], [1000.0 + at])
        news = incidents.follow(
            events, np.array([7]), np.array([0.6]), lambda rows: [(1, "")] * len(rows), clock_s=5000.0 + at
        )
        told += [one.activity.name for one in [*news, *incidents.quieten(5001.0 + at)]]
    assert told == ["CREATE"]
    assert [one.activity.name for one in incidents.quieten(5065.1)] == ["CLOSE"]


def test_a_very_long_name_is_kept_short() -> None:
    incidents = Incidents(0.5, 60.0)
    follow(incidents, ["a" * 100_000], [0], [0.6])
    (incident,) = incidents.open.values()
    assert incident.client == "a" * LONGEST + "… (100,000 characters)"
