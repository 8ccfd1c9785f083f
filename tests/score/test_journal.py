"""A stream that was stopped anywhere goes on as if it had not been."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probewatch.bundle import Bundle
from probewatch.data.events import Events
from probewatch.data.records import Sessions
from probewatch.errors import ConfigError
from probewatch.score.arrivals import new_requests
from probewatch.score.limits import Limits
from probewatch.score.stream import Scores, StreamScorer


@pytest.fixture(scope="module")
def events(labelled: Any) -> Events:
    """The log in order of time, with request ids."""
    sessions: Sessions = labelled.sessions
    own = np.repeat(np.arange(len(sessions)), sessions.lengths)
    events = Events.of(
        sessions.client[own], sessions.time_s, model=sessions.model[own], session=sessions.session[own],
        confidence=sessions.confidence, predicted_class=sessions.predicted_class,
        inputs=np.split(sessions.inputs, sessions.input_offsets[1:-1]),
        request=[str(number) for number in range(len(own))],
    )  # fmt: skip
    return events.take(np.argsort(events.time_s, kind="stable"))


def test_a_stream_that_is_opened_again_gives_the_scores_and_news_of_one_that_was_not(
    bundle: Bundle, events: Events, tmp_path: Path
) -> None:
    whole = StreamScorer(bundle, limits=Limits(tolerance_s=5.0, quiet_s=600.0))
    expected = Scores.concat([whole.push(events), whole.flush()])
    parts = []
    for at in range(0, len(events), 300):
        with StreamScorer.open(bundle, state=tmp_path / "s.db", limits=Limits(tolerance_s=5.0, quiet_s=600.0)) as watch:
            parts.append(watch.push(events.slice(at, min(at + 300, len(events)))))
    with StreamScorer.open(bundle, state=tmp_path / "s.db", limits=Limits(tolerance_s=5.0, quiet_s=600.0)) as watch:
        parts.append(watch.flush())
        found = Scores.concat(parts)
        mine, theirs = watch.counts(), whole.counts()
        assert {**mine, "client_days": 0, "alerts_per_client_day": 0} == {
            **theirs,
            "client_days": 0,
            "alerts_per_client_day": 0,
        }  # fmt: skip  (their keys, which differ, decide which days seem the same)
    assert found.event.tolist() == expected.event.tolist()
    np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.peak, expected.peak, rtol=0, atol=1e-5)
    assert found.number.tolist() == expected.number.tolist()
    assert {(one.activity, one.incident.uid) for one in found.news} == {
        (one.activity, one.incident.uid) for one in expected.news
    }


def test_what_was_not_committed_is_as_if_it_had_not_been(bundle: Bundle, events: Events, tmp_path: Path) -> None:
    first = StreamScorer(bundle, state=tmp_path / "s.db")
    once = first.push(events.slice(0, 500))
    first.commit()
    lost = first.push(events.slice(500, 900))
    first.close()
    with StreamScorer.open(bundle, state=tmp_path / "s.db") as again:
        assert len(again.push(events.slice(0, 500))) == 0  # their request ids are known
        np.testing.assert_allclose(again.push(events.slice(500, 900)).score, lost.score, rtol=0, atol=1e-5)
        assert again.counts()["duplicates"] == len(once)


def test_alerts_stay_in_the_outbox_until_every_sink_has_them(bundle: Bundle, events: Events, tmp_path: Path) -> None:
    with StreamScorer.open(bundle, state=tmp_path / "s.db", threshold=0.3) as watch:
        watch.push(events)
        told = list(watch.outbox)
        assert len(told) > 2
        watch.commit()
        watch.delivered({"file": (told[-1][0], 7), "webhook": (told[0][0], 0)})
    with StreamScorer.open(bundle, state=tmp_path / "s.db", threshold=0.3) as watch:
        assert list(watch.outbox) == told[1:]
        assert watch.journal is not None
        assert watch.journal.sinks()["file"] == (told[-1][0], 7)


def test_fewer_slots_than_the_state_holds_keep_the_latest_sessions(bundle: Bundle, tmp_path: Path) -> None:
    names = [f"client-{number}" for number in range(6000)]
    with StreamScorer.open(bundle, state=tmp_path / "s.db", limits=Limits(max_sessions=8192)) as watch:
        watch.push({"client": names, "time_s": np.full(6000, 1e9)})
    for _ in range(2):
        with StreamScorer.open(bundle, state=tmp_path / "s.db", limits=Limits(max_sessions=4096)) as watch:
            assert watch.counts()["sessions"] == 4096
            numbers = watch.push({"client": [names[-1], names[-4000]], "time_s": [1e9, 1e9]}).number
    assert numbers.tolist() == [3, 3]


def test_a_state_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    StreamScorer(bundle, state=tmp_path / "s.db").close()
    other = replace(bundle, manifest={**bundle.manifest, "sha256": "another"})
    with pytest.raises(ConfigError, match="it is the state of another bundle"):
        StreamScorer(other, state=tmp_path / "s.db")


def test_a_state_in_use_or_no_state_at_all_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(ConfigError, match="cannot be used as state"):
        StreamScorer(bundle, state=tmp_path / "text.db")
    with StreamScorer.open(bundle, state=tmp_path / "s.db"), pytest.raises(ConfigError, match="may be in use"):
        StreamScorer(bundle, state=tmp_path / "s.db")


def test_only_its_owner_can_read_a_state(bundle: Bundle, tmp_path: Path) -> None:
    StreamScorer(bundle, state=tmp_path / "s.db").close()
    assert stat.S_IMODE((tmp_path / "s.db").stat().st_mode) == 0o600


def test_request_ids_are_known_over_many_restarts_in_the_order_in_which_they_came(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probewatch.score.memory.new_requests", lambda: new_requests(8))

    def push(ids: range) -> list[int]:
        with StreamScorer.open(bundle, state=tmp_path / "s.db") as watch:
            columns = {"client": ["a"] * len(ids), "time_s": [1e9] * len(ids), "request": list(map(str, ids))}
            start = watch.counts()["events"] + watch.counts()["duplicates"]
            return [int(event - start) for event in watch.push(columns).event]

    for first in range(0, 60, 5):
        assert push(range(first, first + 5)) == [0, 1, 2, 3, 4]
    assert push(range(52, 60)) == []  # the last eight are known
    assert push(range(50, 52)) == [0, 1]
