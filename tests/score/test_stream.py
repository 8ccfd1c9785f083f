"""A stream gives the scores of the batch path, however it is cut and mixed, in bounded state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.events import Events
from probewatch.data.records import Sessions
from probewatch.score.batch import Scorer
from probewatch.score.stream import StreamScorer
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
    watch = StreamScorer(bundle, idle_s=1e9, threads=threads)
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
