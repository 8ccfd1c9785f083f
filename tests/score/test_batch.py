"""A session's score depends on that session and the bundle, and on nothing else."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from probewatch.bundle import Bundle
from probewatch.data.logs import read_logs
from probewatch.data.profile import Records, build_profile
from probewatch.data.records import Sessions
from probewatch.errors import ConfigError, DataError
from probewatch.score.batch import Scorer
from probewatch.score.verdicts import Verdicts


@pytest.fixture(scope="module")
def sessions(labelled: Any) -> Sessions:
    return labelled.sessions


@pytest.fixture(scope="module")
def verdicts(bundle: Bundle, sessions: Sessions) -> Verdicts:
    return Verdicts.concat(list(Scorer(bundle).score([sessions])))


def test_every_session_gets_a_verdict_in_order(sessions: Sessions, verdicts: Verdicts) -> None:
    assert verdicts.session.tolist() == sessions.session.tolist()
    assert verdicts.events.tolist() == sessions.lengths.tolist()
    assert np.all((verdicts.score >= 0) & (verdicts.score <= 1))
    assert np.all(verdicts.last_score <= verdicts.score + 1e-12)


def test_an_alert_is_a_score_that_reached_the_threshold(bundle: Bundle, verdicts: Verdicts) -> None:
    assert np.array_equal(verdicts.alert, verdicts.score >= bundle.threshold)
    assert np.array_equal(verdicts.alert, verdicts.first_alert > 0)
    assert np.array_equal(verdicts.alert, verdicts.why != "")
    assert 0 < verdicts.alert.sum() < len(verdicts)


def test_a_session_alone_scores_as_in_the_log(bundle: Bundle, sessions: Sessions, verdicts: Verdicts) -> None:
    scorer = Scorer(bundle)
    for index in range(0, len(sessions), 7):
        (alone,) = scorer.score([sessions.take(np.array([index]))])
        assert alone.score[0] == pytest.approx(verdicts.score[index], abs=1e-5)
        assert alone.first_alert[0] == verdicts.first_alert[index]


def test_a_prefix_scores_as_the_session_did_when_it_was_that_long(bundle: Bundle, sessions: Sessions) -> None:
    scorer = Scorer(bundle, threshold=1.0)
    one = sessions.take(np.array([0]))
    peaks = []
    for events in range(1, int(one.lengths[0]) + 1):
        (verdict,) = scorer.score([_cut(one, 0, events, before=0, ends=True)])
        peaks.append(verdict.last_score[0])
    (whole,) = scorer.score([one])
    assert whole.score[0] == pytest.approx(max(peaks), abs=1e-5)
    assert whole.last_score[0] == pytest.approx(peaks[-1], abs=1e-5)


def _cut(one: Sessions, start: int, stop: int, *, before: int, ends: bool) -> Sessions:
    """Queries ``start`` to ``stop`` of a single session, as a chunk."""
    inputs = one.input_offsets[start : stop + 1]
    return replace(
        one,
        offsets=np.array([0, stop - start]),
        time_s=one.time_s[start:stop],
        confidence=one.confidence[start:stop],
        predicted_class=one.predicted_class[start:stop],
        inputs=one.inputs[inputs[0] : inputs[-1]],
        input_offsets=inputs - inputs[0],
        before=np.array([before]),
        ends=np.array([ends]),
    )


@pytest.mark.parametrize("pieces", [(5,), (1, 2, 3), (3, 4, 5, 6)])
def test_a_session_cut_into_chunks_is_told_once_and_scores_as_if_whole(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts, pieces: tuple[int, ...]
) -> None:
    index = int(np.argmax(np.where(sessions.lengths > 20, verdicts.score, 0)))
    one = sessions.take(np.array([index]))
    edges = [0, *pieces, int(one.lengths[0])]
    chunks = [_cut(one, start, stop, before=start, ends=stop == edges[-1]) for start, stop in itertools.pairwise(edges)]
    (whole,) = Scorer(bundle).score(chunks)
    assert whole.session[0] == verdicts.session[index]
    assert whole.events[0] == verdicts.events[index]
    assert whole.score[0] == pytest.approx(verdicts.score[index], abs=1e-5)
    assert whole.last_score[0] == pytest.approx(verdicts.last_score[index], abs=1e-5)
    assert whole.first_alert[0] == verdicts.first_alert[index]
    steep = [int(at) for at in re.findall(r"(\d+) \(\+", whole.why[0].split("rose most at queries")[-1])]
    assert all(pieces[-1] < at <= edges[-1] for at in steep)
    assert steep or "rose most" not in whole.why[0]


def test_small_chunks_of_a_log_change_no_verdict(
    bundle: Bundle, log_files: tuple[Path, Path], verdicts: Verdicts
) -> None:
    with read_logs([log_files[0]]) as log:
        cut = Verdicts.concat(list(Scorer(bundle).score(log.sessions(chunk_events=17))))
    assert cut.session.tolist() == verdicts.session.tolist()
    assert cut.events.tolist() == verdicts.events.tolist()
    np.testing.assert_allclose(cut.score, verdicts.score, atol=1e-5)
    np.testing.assert_allclose(cut.last_score, verdicts.last_score, atol=1e-5)
    assert cut.first_alert.tolist() == verdicts.first_alert.tolist()


def test_a_profile_counts_and_small_chunks_change_no_verdict_with_one(
    bundle: Bundle, log_files: tuple[Path, Path]
) -> None:
    random = np.random.default_rng(0)
    train, holdout = (Records(random.normal(size=(60, 6)), random.uniform(0.5, 1.0, 60)) for _ in range(2))
    scorer = Scorer(bundle, profiles={"credit": build_profile(train, holdout, bytes(16), "credit")})
    with read_logs([log_files[0]]) as log:
        whole = list(scorer.score(log.sessions()))
        small = list(scorer.score(log.sessions(chunk_events=7)))
        plain = list(Scorer(bundle).score(log.sessions()))
    assert scorer.bundle.wants_profiles
    one, two, three = (np.concatenate([part.score for part in parts]) for parts in (whole, small, plain))
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert not np.allclose(one, three, atol=1e-5)


def test_scoring_changes_nothing_it_was_given(bundle: Bundle, sessions: Sessions) -> None:
    copy = sessions.take(np.arange(len(sessions)))
    list(Scorer(bundle).score([sessions]))
    for name in ("time_s", "confidence", "predicted_class", "inputs", "offsets", "before", "ends"):
        assert np.array_equal(getattr(copy, name), getattr(sessions, name), equal_nan=name == "confidence")


def test_an_allowed_client_keeps_its_score_and_raises_no_alert(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts
) -> None:
    client = verdicts.client[verdicts.alert][0]
    (allowing,) = Scorer(bundle, allow=frozenset([client])).score([sessions])
    own = allowing.client == client
    assert own.any()
    assert allowing.allowed[own].all()
    assert not allowing.alert[own].any()
    np.testing.assert_array_equal(allowing.score, verdicts.score)
    assert np.array_equal(allowing.alert[~own], verdicts.alert[~own])


def test_a_higher_threshold_alerts_later_or_not_at_all(bundle: Bundle, sessions: Sessions) -> None:
    (low,) = Scorer(bundle, threshold=0.3).score([sessions])
    (high,) = Scorer(bundle, threshold=0.9).score([sessions])
    assert np.all(low.alert | ~high.alert)
    both = low.alert & high.alert
    assert np.all(high.first_alert[both] >= low.first_alert[both])


@pytest.mark.parametrize("prior", [0.001, 0.5, 0.9])
def test_another_share_of_attacks_moves_every_score_and_no_alert(
    bundle: Bundle, sessions: Sessions, verdicts: Verdicts, prior: float
) -> None:
    scorer = Scorer(bundle, prior=prior)
    moved = Verdicts.concat(list(scorer.score([sessions])))
    shift = logit(prior) - logit(bundle.prior)
    for column in ("score", "last_score"):
        told = getattr(verdicts, column) < 1 - 1e-6  # nearer to 1 a score has no more digits to compare
        assert told.sum() > 40
        difference = logit(getattr(moved, column)[told]) - logit(getattr(verdicts, column)[told])
        np.testing.assert_allclose(difference, shift, atol=1e-9)
    assert logit(scorer.threshold) - logit(bundle.threshold) == pytest.approx(shift, abs=1e-9)
    for column in ("alert", "first_alert", "why"):
        assert np.array_equal(getattr(moved, column), getattr(verdicts, column))
    assert np.array_equal(moved.alert, moved.score >= scorer.threshold)


def test_a_threshold_of_ones_own_is_on_the_moved_scores(bundle: Bundle, sessions: Sessions) -> None:
    (usual,) = Scorer(bundle, prior=0.01).score([sessions])
    middle = float(np.median(usual.score)) + 1e-9
    (verdict,) = Scorer(bundle, prior=0.01, threshold=middle).score([sessions])
    assert np.array_equal(verdict.alert, verdict.score >= middle)
    assert verdict.alert.sum() == len(sessions) // 2


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_of_attacks_of_none_or_all_is_refused(bundle: Bundle, prior: float) -> None:
    with pytest.raises(ConfigError, match="expected one above 0 and below 1"):
        Scorer(bundle, prior=prior)


def test_scores_are_calibrated_at_the_share_of_attacks_among_the_sessions_learned_from(bundle: Bundle) -> None:
    assert bundle.manifest["prior"] == bundle.prior == pytest.approx(1 / 3, abs=0.05)  # every third client attacks


def test_a_log_without_inputs_or_confidence_still_gets_finite_scores(bundle: Bundle, sessions: Sessions) -> None:
    bare = replace(
        sessions,
        confidence=np.full(len(sessions.time_s), np.nan),
        inputs=np.zeros(0),
        input_offsets=np.zeros(len(sessions.time_s) + 1, np.int64),
    )
    (verdict,) = Scorer(bundle).score([bare])
    assert np.isfinite(verdict.score).all()


def test_a_bundle_that_learned_without_gaps_refuses_them(bundle: Bundle, sessions: Sessions) -> None:
    strict = replace(bundle, manifest={**bundle.manifest, "masks": False})
    with pytest.raises(DataError, match="this bundle was trained without gaps"):
        list(Scorer(strict).score([sessions]))
