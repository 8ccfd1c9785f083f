"""A stream gives the scores of the batch path, however it is cut and mixed, in bounded state."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.events import Events
from probewatch.data.fields import RAW, FieldMap
from probewatch.data.live import Lines, LiveReader
from probewatch.data.logs import read_logs
from probewatch.data.records import Sessions
from probewatch.errors import BundleError, ConfigError, DataError
from probewatch.learn.detector import train_detector
from probewatch.learn.presets import PRESETS
from probewatch.score.arrivals import CONFIRMED, RECENT
from probewatch.score.batch import Scorer
from probewatch.score.incidents import Activity
from probewatch.score.limits import Limits
from probewatch.score.stream import Scores, StreamScorer
from probewatch.score.verdicts import Verdicts

quick = settings(max_examples=20, deadline=None)


@pytest.fixture(scope="module")
def sessions(labelled: Any) -> Sessions:
    return labelled.sessions


@pytest.fixture(scope="module")
def verdicts(bundle: Bundle, sessions: Sessions) -> Verdicts:
    return Verdicts.concat(list(Scorer(bundle).score([sessions], why=False)))


def events_of(sessions: Sessions) -> tuple[Events, NDArray[np.int64]]:
    """A log's queries as events, session after session, and the session of each."""
    own = np.repeat(np.arange(len(sessions)), sessions.lengths)
    vectors = np.split(sessions.inputs, sessions.input_offsets[1:-1])
    events = Events.of(
        sessions.client[own], sessions.time_s, model=sessions.model[own], session=sessions.session[own],
        confidence=sessions.confidence, predicted_class=sessions.predicted_class, inputs=vectors,
    )  # fmt: skip
    return events, own


def mixed(own: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Any interleaving in which each session keeps its order."""
    random = np.random.default_rng(seed)
    keys = random.random(len(own))
    for s in np.unique(own):
        keys[own == s] = np.sort(keys[own == s])
    return np.argsort(keys, kind="stable")


@quick
@given(
    seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 400), min_size=1, max_size=6), threads=st.integers(1, 2)
)
def test_any_cut_and_any_interleaving_gives_the_scores_of_the_batch_path(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts, seed: int, cuts: list[int], threads: int
) -> None:
    events, own = events_of(sessions)
    order = mixed(own, seed)
    watch = StreamScorer(bundle, limits=Limits(idle_s=1e9, threads=threads))
    peak, last, first, number = (np.zeros(len(sessions)) for _ in range(4))
    at, turn = 0, 0
    while at < len(order):
        rows = order[at : at + cuts[turn % len(cuts)]]
        scores = watch.push(events.take(rows))
        assert scores.event.tolist() == list(range(at, at + len(rows)))
        for i, s in enumerate(own[rows]):
            number[s] += 1
            assert scores.number[i] == number[s]
            peak[s], last[s] = scores.peak[i], scores.score[i]
            if scores.alert[i] and not first[s]:
                first[s] = number[s]
        at, turn = at + len(rows), turn + 1
    np.testing.assert_allclose(peak, verdicts.score, rtol=0, atol=1e-5)
    np.testing.assert_allclose(last, verdicts.last_score, rtol=0, atol=1e-5)
    assert first.tolist() == verdicts.first_alert.tolist()


def one_client(
    count: int, *, gap_s: float = 1.0, session: str = "s", client: str = "c", start_s: float = 1e9
) -> dict[str, Any]:
    """Ordinary queries of one client, as columns."""
    random = np.random.default_rng(count)
    return {
        "client": [client] * count, "session": [session] * count, "time_s": start_s + gap_s * np.arange(count),
        "confidence": random.uniform(0.5, 1.0, count), "inputs": random.normal(size=(count, 6)), "model": "credit",
    }  # fmt: skip


def test_where_the_log_names_no_session_a_long_pause_starts_one_as_in_the_batch_path(
    bundle: Bundle, log_files: tuple[Path, Path]
) -> None:
    fields = replace(RAW, session=None)
    with read_logs([log_files[0]], fields=fields, gap_s=300.0) as log:
        expected = Verdicts.concat(list(Scorer(bundle).score(log.sessions(), why=False)))
        watch = StreamScorer(bundle, limits=Limits(gap_s=300.0, idle_s=1e9))
        peaks: dict[str, list[float]] = {}
        for events in log.events(rows=100):
            scores = watch.push(events)
            for client, number, peak in zip(events.client.to_pylist(), scores.number, scores.peak, strict=True):
                if number == 1:
                    peaks.setdefault(client, []).append(0.0)
                peaks[client][-1] = peak
    assert len(expected) > len(peaks)
    for client, found in peaks.items():
        np.testing.assert_allclose(found, expected.score[expected.client == client], rtol=0, atol=1e-5)


def test_disorder_within_the_tolerance_changes_no_score(bundle: Bundle, sessions: Sessions) -> None:
    events, _ = events_of(sessions)
    ordered = events.take(np.argsort(events.time_s, kind="stable"))
    shaken = np.argsort(ordered.time_s + np.random.default_rng(1).uniform(0, 4.9, len(ordered)), kind="stable")
    plain = StreamScorer(bundle, limits=Limits(idle_s=1e9)).push(ordered)
    watch = StreamScorer(bundle, limits=Limits(idle_s=1e9, tolerance_s=5.0))
    parts = [watch.push(ordered.take(shaken[at : at + 77])) for at in range(0, len(shaken), 77)]
    assert watch.counts()["waiting"] > 0
    scores = Scores.concat([*parts, watch.flush()])
    assert watch.counts()["late"] == 0
    assert shaken[scores.event].tolist() == list(range(len(ordered)))  # came out in order of time
    np.testing.assert_allclose(scores.score, plain.score, rtol=0, atol=1e-5)


def test_an_event_beyond_the_tolerance_is_counted_and_scored_as_it_comes(bundle: Bundle) -> None:
    watch = StreamScorer(bundle, limits=Limits(tolerance_s=5.0))
    watch.push(one_client(20))
    late = watch.push(one_client(1, start_s=1e9 + 3.0))
    assert late.event.tolist() == [20]
    assert np.isfinite(late.score).all()
    assert watch.counts()["late"] == 1


def test_one_wild_clock_neither_moves_the_stream_nor_forgets_its_sessions(bundle: Bundle) -> None:
    watch = StreamScorer(bundle)
    watch.push(one_client(10))
    watch.push(one_client(1, client="wild", start_s=4e9))
    assert watch.clock_s == 1e9 + 9
    assert watch.push(one_client(1, start_s=1e9 + 10)).number.tolist() == [11]
    watch.push(one_client(CONFIRMED - 1, client="wild", start_s=4e9))
    assert watch.clock_s == 4e9 + CONFIRMED - 2  # so many are believed
    watch.push(one_client(RECENT, start_s=1e9 + 11))
    assert watch.clock_s == 1e9 + 10 + RECENT  # and given up when others say otherwise


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_wild_time_before_all_others_costs_no_alert(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts, cut: int
) -> None:
    events, own = events_of(sessions)
    attack = events.take(np.flatnonzero(own == int(np.argmax(verdicts.score))))
    both = Events.concat([Events.of(["wild"], [9e9]), attack])
    watch = StreamScorer(bundle)
    alerts = [watch.push(both.slice(at, min(at + cut, len(both)))).alert for at in range(0, len(both), cut)]
    assert np.concatenate([*alerts, watch.flush().alert]).any()
    assert watch.clock_s == attack.time_s.max()


def test_a_repeated_request_of_a_client_is_dropped_and_counted(bundle: Bundle) -> None:
    columns = {**one_client(6), "request": ["a", "b", "a", "", "", "c"]}
    watch = StreamScorer(bundle)
    scores = watch.push(columns)
    assert scores.event.tolist() == [0, 1, 3, 4, 5]
    assert watch.push({**one_client(1, client="another"), "request": ["a"]}).event.tolist() == [6]
    assert watch.push({**one_client(1), "request": ["c"]}).event.tolist() == []
    assert watch.counts()["duplicates"] == 2


def test_the_least_recently_used_session_makes_room_and_is_counted(bundle: Bundle) -> None:
    watch = StreamScorer(bundle, limits=Limits(max_sessions=4096))
    names = [f"client-{number}" for number in range(5000)]
    watch.push({"client": names, "time_s": np.full(5000, 1e9)})
    counts = watch.counts()
    assert (counts["sessions"], counts["evicted_crowded"]) == (4096, 904)
    again = watch.push({"client": [names[-1], names[0]], "time_s": [1e9, 1e9]})
    assert again.number.tolist() == [2, 1]


def test_an_idle_session_is_forgotten_and_counted(bundle: Bundle) -> None:
    watch = StreamScorer(bundle, limits=Limits(idle_s=3600.0))
    watch.push(one_client(5))
    watch.push(one_client(5, client="other", start_s=1e9 + 3500))
    assert watch.counts()["sessions"] == 2
    for _ in range(2):
        watch.push(one_client(5, client="other", start_s=1e9 + 3700))
    counts = watch.counts()
    assert (counts["sessions"], counts["evicted_idle"]) == (1, 1)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 10])
def test_a_session_that_goes_on_is_not_idle_wherever_the_stream_is_cut(bundle: Bundle, cut: int) -> None:
    """A micro-batch that spans more than the idle time ends no session that has a query in it soon after its last."""
    two = [one_client(3), one_client(3, start_s=1e9 + 3), one_client(2, client="other", start_s=1e9 + 8000)]
    last = one_client(2, start_s=1e9 + 8001)
    columns = {name: np.concatenate([one[name] for one in (*two, last)]) for name in last if name != "model"}
    watch = StreamScorer(bundle, limits=Limits(idle_s=3600.0))
    numbers = [
        watch.push({name: column[at : at + cut] for name, column in columns.items()}).number.tolist()
        for at in range(0, 10, cut)
    ]
    assert [number for part in numbers for number in part] == [1, 2, 3, 4, 5, 6, 1, 2, 1, 2]


def test_a_client_that_waits_out_the_clock_is_told_with_higher_severity_and_the_same_score(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts
) -> None:
    events, own = events_of(sessions)
    attack = events.take(np.flatnonzero(own == int(np.argmax(verdicts.score))))
    later = replace(attack, time_s=attack.time_s + 10 * 86_400.0)
    watch = StreamScorer(bundle, limits=Limits(idle_s=3600.0))
    first, second = watch.push(attack), watch.push(later)
    created = [[one.incident for one in part.news if one.activity is Activity.CREATE] for part in (first, second)]
    assert [len(part) for part in created] == [1, 1]
    assert not created[0][0].again and created[1][0].again
    assert created[1][0].severity == created[0][0].severity + 1
    np.testing.assert_allclose(second.score, first.score, rtol=0, atol=1e-5)


def test_a_session_that_nearly_alerted_is_remembered_when_it_is_forgotten(bundle: Bundle) -> None:
    watch = StreamScorer(bundle, threshold=1.0, limits=Limits(idle_s=3600.0))
    peak = float(watch.push(one_client(30)).peak[-1])
    watch = StreamScorer(bundle, threshold=min(1.5 * peak, 1.0), limits=Limits(idle_s=3600.0))
    watch.push(one_client(30))
    for _ in range(CONFIRMED + 1):  # a clock that is hours ahead is believed when so many say so
        watch.push(one_client(1, client="other", start_s=1e9 + 7200))
    assert watch.remembered == 1


def test_an_allowed_client_is_scored_and_raises_no_incident(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts
) -> None:
    events, own = events_of(sessions)
    s = int(np.argmax(verdicts.score))
    scores = StreamScorer(bundle, allow=[str(sessions.client[s])]).push(events.take(np.flatnonzero(own == s)))
    assert not scores.alert.any() and not scores.news
    assert scores.peak[-1] == pytest.approx(verdicts.score[s], abs=1e-5)


def test_an_allowed_client_leaves_no_record(bundle: Bundle) -> None:
    limits = Limits(idle_s=3600.0)
    peak = float(StreamScorer(bundle, threshold=1.0).push(one_client(30)).peak[-1])
    watch = StreamScorer(bundle, threshold=0.9 * peak, limits=limits, allow=["\ud800", one_client(1)["client"][0]])
    watch.push(one_client(30))
    for _ in range(CONFIRMED + 1):
        watch.push(one_client(1, client="other", start_s=1e9 + 7200))
    assert watch.counts()["evicted_idle"] == 1 and watch.remembered == 0


def test_an_attack_is_told_once_while_it_lasts_and_resolved_after_quiet(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts
) -> None:
    events, own = events_of(sessions)
    attack = events.take(np.flatnonzero(own == int(np.argmax(verdicts.score))))
    watch = StreamScorer(bundle, limits=Limits(quiet_s=600.0))
    news = [one for at in range(len(attack)) for one in watch.push(attack.slice(at, at + 1)).news]
    news += watch.push(one_client(1, client="other", start_s=float(attack.time_s[-1]) + 601)).news
    activities = [one.activity for one in news]
    assert activities[0] is Activity.CREATE and activities[-1] is Activity.CLOSE
    assert activities.count(Activity.CREATE) == activities.count(Activity.CLOSE) == 1
    incident = news[-1].incident
    assert incident.peak == pytest.approx(verdicts.score.max(), abs=1e-5)
    assert incident.number == verdicts.first_alert[int(np.argmax(verdicts.score))]
    assert news[0].incident.why


def test_state_is_bounded_by_4_kib_a_session_for_one_network_of_32(bundle: Bundle) -> None:
    watch = StreamScorer(bundle)
    bytes_of_network = 4 * watch.held.network.state_width
    assert watch.held.state_bytes - bytes_of_network <= 4096
    assert sum(column[:1].nbytes for column in watch.held.columns()) <= watch.held.state_bytes


def test_a_bundle_that_reads_from_both_ends_is_refused(bundle: Bundle) -> None:
    both = replace(bundle, manifest={**bundle.manifest, "streams": False})
    with pytest.raises(BundleError, match="reads a session from both ends, so it has no score before the end"):
        StreamScorer(both)


def test_all_wrong_limits_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"tolerance_s is -1.*idle_s is 10.*sessions is 5.*threads is 0"):
        Limits(tolerance_s=-1, idle_s=10, max_sessions=5, threads=0)


def test_scoring_changes_nothing_it_was_given(bundle: Bundle) -> None:
    events = Events.of(**one_client(30))
    backwards = events.take(np.arange(30)[::-1])
    copy = backwards.take(np.arange(30))
    StreamScorer(bundle).push(backwards)
    for name in ("time_s", "confidence", "predicted_class", "inputs", "input_offsets"):
        assert np.array_equal(getattr(copy, name), getattr(backwards, name))


def test_no_events_give_no_scores(bundle: Bundle) -> None:
    watch = StreamScorer(bundle)
    assert len(watch.push(Events.of([], []))) == 0
    assert len(watch.flush()) == 0


def test_client_days_are_counted_about_right(bundle: Bundle) -> None:
    watch = StreamScorer(bundle)
    names = [f"client-{number}" for number in range(1000)]
    for day in range(5):
        watch.push({"client": names * 2, "time_s": np.full(2000, 1e9 + 86_400.0 * day)})
    assert watch.counts()["client_days"] == pytest.approx(5000, rel=0.08)


def test_batch_stream_and_what_is_compiled_ahead_are_one_compiled_step(
    bundle: Bundle, log_files: tuple[Path, Path]
) -> None:
    code = (
        "import sys; from probewatch.data.features import compile_ahead; from probewatch.data.step import run\n"
        "from probewatch import Scorer, StreamScorer, read_bundle, read_logs\n"
        "compile_ahead(); bundle = read_bundle(sys.argv[1])\n"
        "list(Scorer(bundle).score(read_logs([sys.argv[2]]).sessions()))\n"
        "StreamScorer(bundle).push({'client': ['a'], 'time_s': [1.0], 'confidence': [0.5], 'inputs': [[0.0] * 30]})\n"
        "print(len(run.signatures))"
    )
    command = [sys.executable, "-c", code, str(bundle.folder), str(log_files[0])]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["1"]


@pytest.mark.parametrize("live", [False, True])
def test_hashes_in_the_place_of_inputs_are_streamed_too(bundle: Bundle, tmp_path: Path, live: bool) -> None:
    texts = [["ab", "cd", "ab", "ab"][at % 4] + str(at // 40) for at in range(80)]
    lines = [f'{{"c": "a", "t": {1.7e9 + at}, "p": 0.9, "x": "{text}"}}\n' for at, text in enumerate(texts)]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(lines))
    fields = FieldMap(client="c", time="t", confidence="p", inputs="x")
    with read_logs([path], fields=fields) as log:
        whole = Verdicts.concat(list(Scorer(bundle).score(log.sessions(), why=False)))
        events = Events.concat(list(log.events()))
    if live:
        reader = LiveReader(fields, {}, lambda reject: None)
        events = reader.read(Lines("".join(lines).encode(), len(lines)))
        reader.close()
    pushed = Events.of(["a"] * 80, events.time_s, confidence=events.confidence, digest=texts)
    np.testing.assert_array_equal(pushed.digest, events.digest)
    assert len(set(events.digest.tolist())) == 4
    with StreamScorer(bundle) as stream:
        scores = Scores.concat([stream.push(events), stream.flush()])
    np.testing.assert_allclose(scores.peak[-1], whole.score[0], atol=1e-5)


def test_what_cannot_be_scored_leaves_no_trace(tmp_path: Path, labelled: Any) -> None:
    config = replace(PRESETS["article"], epochs=1)
    bundle = train_detector(labelled, config, tmp_path / "article", rivals=False)[0]
    told = {"client": list("aab"), "time_s": [1.7e9, 1.7e9 + 1, 1.7e9 + 2], "request": list("123")}
    vectors = [[1.0, 2.0, 3.0]] * 3
    with StreamScorer(bundle) as stream:
        for wrong in ({"confidence": [0.5, np.nan, 0.5]}, {"confidence": [0.5] * 3, "inputs": [[0.0] * 99] * 3}):
            with pytest.raises(DataError, match="cannot be scored"):
                stream.push({**told, "inputs": vectors, **wrong})
        assert not stream.counts()["duplicates"]
        again = Scores.concat([stream.push({**told, "inputs": vectors, "confidence": [0.5] * 3}), stream.flush()])
    assert len(again) == 3
    with pytest.raises(ConfigError, match="closed"):
        stream.push(told)
    with pytest.raises(ConfigError, match="closed"):
        stream.commit()


def test_a_long_name_of_a_model_takes_the_memory_of_one(bundle: Bundle) -> None:
    names = ["m" * 1_000_000, *["credit"] * 1023]
    events = {"client": [f"c{n}" for n in range(1024)], "time_s": np.full(1024, 1.7e9), "model": names}
    tracemalloc.start()
    with StreamScorer(bundle, limits=Limits(max_sessions=4096)) as stream:
        stream.push({**events, "confidence": np.full(1024, 0.5)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_a_position_is_json(bundle: Bundle) -> None:
    with StreamScorer(bundle) as stream, pytest.raises(ConfigError, match="JSON"):
        stream.position = {"at": np.int64(3)}
