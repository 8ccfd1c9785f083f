"""Queries in order to sessions: the key, the gap, the chunks."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.data.fields import FieldMap
from probewatch.data.logs import Log, read_logs
from probewatch.data.records import Sessions

FIELDS = FieldMap(
    client="client", session="session", time="time", model="model", confidence="p", inputs="x", label="label"
)
START = 1_772_323_200  # 2026-03-01T00:00:00Z


def open_log(folder: Path, queries: list[dict[str, Any]], *, gap_s: float = 1800.0) -> Log:
    path = folder / "log.jsonl"
    everything = {"client": None, "session": None, "model": None, "p": None, "x": None}
    path.write_text("\n".join(json.dumps(everything | query) for query in queries))
    return read_logs([path], fields=FIELDS, gap_s=gap_s)


def query(client: str, seconds: float, session: str | None = None, model: str | None = "m") -> dict[str, Any]:
    return {"client": client, "session": session, "model": model, "time": START + seconds}


def listed(sessions: Sessions) -> list[tuple[str, str, str, list[float]]]:
    """Session, client, model and times after START, of each session."""
    bounds = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    times = [(sessions.time_s[a:b] - START).tolist() for a, b in bounds]
    return list(zip(sessions.session, sessions.client, sessions.model, times, strict=True))


def test_a_gap_longer_than_the_limit_starts_a_session(tmp_path: Path) -> None:
    with open_log(tmp_path, [query("a", 0), query("a", 10), query("a", 20.5)], gap_s=10) as log:
        assert listed(log.all_sessions()) == [
            ("a/m/2026-03-01T00:00:00+00:00", "a", "m", [0, 10]),
            ("a/m/2026-03-01T00:00:20.500000+00:00", "a", "m", [20.5]),
        ]
        assert log.summary()["sessions"] == 2


def test_each_client_and_model_has_sessions_of_its_own(tmp_path: Path) -> None:
    queries = [query("a", 0), query("b", 1), query("a", 2, model="n"), query("a", 3), query("b", 4, model=None)]
    with open_log(tmp_path, queries) as log:
        found = [row[1:] for row in listed(log.all_sessions())]
    assert found == [("a", "m", [0, 3]), ("a", "n", [2]), ("b", "", [4]), ("b", "m", [1])]


def test_a_named_session_has_no_gap_and_belongs_to_one_client_and_model(tmp_path: Path) -> None:
    queries = [query("a", 0, "t"), query("a", 9e5, "t"), query("b", 5, "t"), query("a", 7, "t", "n"), query("a", 8)]
    with open_log(tmp_path, queries, gap_s=10) as log:
        assert listed(log.all_sessions()) == [
            ("a/m/2026-03-01T00:00:08+00:00", "a", "m", [8]),
            ("t", "a", "m", [0, 9e5]),
            ("t", "a", "n", [7]),
            ("t", "b", "m", [5]),
        ]
        assert log.summary()["sessions"] == 4


def test_later_queries_do_not_change_the_ids_of_sessions(tmp_path: Path) -> None:
    queries = [query("a", 40 * step) for step in range(9)]
    ids = []
    for count in range(1, 10):
        with open_log(tmp_path, queries[:count], gap_s=30) as log:
            ids.append(log.all_sessions().session.tolist())
    for shorter, longer in itertools.pairwise(ids):
        assert longer[: len(shorter)] == shorter


def test_a_session_is_an_attack_if_one_of_its_queries_is_marked(tmp_path: Path) -> None:
    labels = {"a": [0, 1, 0], "b": [False, False], "c": [None, "true"], "d": [None]}
    queries = [query(name, n) | {"label": mark} for name, marks in labels.items() for n, mark in enumerate(marks)]
    with open_log(tmp_path, queries) as log:
        assert log.all_sessions().label.tolist() == [1, 0, 1, -1]


def test_queries_out_of_order_are_sorted_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    times = [5, 1, 3, 1, 5]
    with open_log(tmp_path, [query("a", t) | {"p": n / 10} for n, t in enumerate(times)]) as log:
        sessions = log.all_sessions()
    assert (sessions.time_s - START).tolist() == [1, 1, 3, 5, 5]
    assert sessions.confidence.tolist() == [0.1, 0.3, 0.2, 0.0, 0.4]


def test_a_session_longer_than_a_chunk_is_cut_and_joined_again(tmp_path: Path) -> None:
    with open_log(tmp_path, [query("a", n) for n in range(7)] + [query("b", 0)]) as log:
        chunks = list(log.sessions(chunk_events=3))
        whole = log.all_sessions()
    assert [chunk.lengths.tolist() for chunk in chunks] == [[3], [3], [1, 1]]
    assert [chunk.before.tolist() for chunk in chunks] == [[0], [3], [6, 0]]
    assert [chunk.ends.tolist() for chunk in chunks] == [[False], [False], [True, True]]
    assert len({chunk.session[0] for chunk in chunks}) == 1
    assert listed(Sessions.concat(chunks)) == listed(whole)


def test_chunks_of_one_query_move_on(tmp_path: Path) -> None:
    with open_log(tmp_path, [query("a", n) for n in range(3)]) as log:
        assert [chunk.lengths.tolist() for chunk in log.sessions(chunk_events=1)] == [[1], [1], [1]]


@st.composite
def query_logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Queries of a few clients and models, all at different times."""
    times = draw(st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True))
    return [
        query(
            draw(st.sampled_from(["a", "b", "ab"])),
            time,
            draw(st.sampled_from([None, None, "s", "t"])),
            draw(st.sampled_from(["m", "n"])),
        )
        | {"p": draw(st.none() | st.floats(0, 1)), "x": draw(st.none() | st.just([time, 2 * time]))}
        for time in times
    ]


def columns_of(sessions: Sessions) -> dict[str, Any]:
    return {
        name: np.asarray(value).tolist() for name, value in vars(sessions).items() if name not in ("given", "arrival")
    }


@settings(max_examples=25, deadline=None)
@given(query_logs(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_neither_the_chunks_nor_the_order_of_the_file_change_sessions(
    tmp_path_factory: pytest.TempPathFactory, queries: list[dict[str, Any]], size: int, shuffle: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with open_log(folder, queries, gap_s=60) as log:
        whole = log.all_sessions()
        chunks = list(log.sessions(chunk_events=size))
        assert log.summary()["sessions"] == len(whole)
    shuffle.shuffle(queries)
    with open_log(folder, queries, gap_s=60) as log:
        shuffled = log.all_sessions()
    expected = repr(columns_of(whole))
    assert repr(columns_of(Sessions.concat(chunks))) == expected
    assert repr(columns_of(shuffled)) == expected
    assert all(chunk.offsets[-1] <= size for chunk in chunks)
    for session, client, model, times in listed(whole):
        mine = [q for q in queries if (q["client"], q["model"]) == (client, model)]
        if session in ("s", "t"):
            assert times == sorted(q["time"] - START for q in mine if q["session"] == session)
        else:
            assert max(np.diff(times), default=0) <= 60


@pytest.mark.slow
def test_a_log_that_does_not_fit_in_memory_goes_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probewatch.data.logs.MEMORY_BYTES", 256 << 20)
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 9, size=(100, 1000)).tolist()
    queries = [query(f"c{n % 50}", n) | {"x": vectors[n % 100]} for n in range(50_000)]  # 400 MB of inputs
    with open_log(tmp_path, queries, gap_s=60) as log:
        sums = [chunk.inputs.sum() for chunk in log.sessions(chunk_events=10_000)]
        parts = list(log.events(10_000))
    assert sum(sums) == sum(part.inputs.sum() for part in parts) == 500 * np.sum(vectors)
    assert np.all(np.diff(np.concatenate([part.time_s for part in parts])) >= 0)
