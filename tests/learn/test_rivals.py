from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, offsets_of
from probewatch.errors import DataError
from probewatch.learn import rivals
from probewatch.learn.rivals import aggregate, score_rivals

NAMES = ["boosting", "logistic", "count_per_hour", "prada", "near_duplicates"]


def made(count: int = 160, *, seed: int = 0, inputs: int = 4) -> tuple[Sessions, Ragged, NDArray[np.int8]]:
    """Sessions of two clients each; an attack's feature 1 swings more, and nothing else tells it."""
    random = np.random.default_rng(seed)
    label = (np.arange(count) // 2 % 3 == 0).astype(np.int8)
    lengths = random.integers(5, 60, count)
    steps = random.normal(size=(lengths.sum(), 3))
    steps[:, 1] *= np.repeat(np.where(label, 1.6, 1.0), lengths)
    steps[random.random(steps.shape) < 0.1] = np.nan
    total = int(lengths.sum())
    sessions = Sessions(
        session=np.array([f"s{index}" for index in range(count)], object),
        client=np.array([f"c{index // 2}" for index in range(count)], object),
        model=np.array(["m"] * count, object),
        offsets=offsets_of(lengths),
        time_s=np.cumsum(random.exponential(5.0, total)),
        confidence=np.full(total, np.nan),
        predicted_class=random.integers(0, 2, total),
        inputs=random.normal(size=total * inputs),
        input_offsets=np.arange(total + 1, dtype=np.int64) * inputs,
        label=label,
        before=np.zeros(count, np.int64),
        ends=np.ones(count, bool),
    )
    return sessions, Ragged(steps.astype(np.float32), offsets_of(lengths)), label


def by_hand(steps: NDArray[np.float32]) -> NDArray[np.float64]:
    columns = [column[~np.isnan(column)].astype(np.float64) for column in steps.T]
    rows = [[f(column) if len(column) else np.nan for column in columns] for f in (np.mean, np.std, lambda c: c[-1])]
    for quantile in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0):
        rows.append([np.quantile(column, quantile) if len(column) else np.nan for column in columns])
    return np.append(np.ravel(rows), np.log1p(len(steps)))


def test_the_aggregates_of_a_small_session_are_those_worked_out_by_hand() -> None:
    nan = np.nan
    row = aggregate(Ragged.from_list([[[1.0, nan], [3.0, nan], [nan, nan]]]))[0]
    first, second = row[:-1:2], row[1:-1:2]
    # of 1 and 3: mean 2, deviation 1, last 3, then the quantiles between them
    assert first == pytest.approx([2.0, 1.0, 3.0, 1.0, 1.2, 1.5, 2.0, 2.5, 2.8, 3.0])
    assert np.isnan(second).all()
    assert row[-1] == pytest.approx(np.log(4.0))


@pytest.mark.parametrize("padded", [1, 500, 10**7])
def test_the_aggregates_are_numpys_session_by_session(padded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "PADDED_ELEMENTS", padded)
    random = np.random.default_rng(0)
    lengths = np.array([0, 3, 0, 1, 40, 7, 0, 90, 2, 0])
    steps = (random.normal(size=(lengths.sum(), 4)) * 100).astype(np.float32)
    steps[random.random(steps.shape) < 0.4] = np.nan
    sequences = Ragged(steps, offsets_of(lengths))
    expected = [by_hand(sequences[index]) for index in range(len(sequences))]
    np.testing.assert_allclose(aggregate(sequences), expected, rtol=1e-6, atol=1e-6)


def test_infinity_counts_as_missing() -> None:
    there = aggregate(Ragged.from_list([[[1.0], [np.inf], [2.0], [-np.inf]]]))
    missing = aggregate(Ragged.from_list([[[1.0], [np.nan], [2.0], [np.nan]]]))
    np.testing.assert_array_equal(there, missing)


def test_aggregating_changes_nothing_it_was_given() -> None:
    _, sequences, _ = made(20)
    before = sequences.values.copy()
    aggregate(sequences)
    np.testing.assert_array_equal(sequences.values, before)


def test_boosting_learns_what_no_mean_and_no_raw_query_tells() -> None:
    sessions, sequences, label = made()
    train, test = np.arange(100), np.arange(100, 160)
    scores = score_rivals(sessions, sequences, label, train, seed=0)
    assert list(scores) == NAMES
    areas = {name: roc_auc_score(label[test], score[test]) for name, score in scores.items()}
    assert areas["boosting"] > 0.85
    assert max(areas[name] for name in NAMES[1:]) < 0.75


def test_logistic_regression_learns_from_the_means() -> None:
    sessions, sequences, label = made()
    shifted = sequences.values.copy()
    shifted[:, 2] += np.repeat(label, sequences.lengths) * np.float32(0.8)
    scores = score_rivals(sessions, Ragged(shifted, sequences.offsets), label, np.arange(100), seed=0)
    assert roc_auc_score(label[100:], scores["logistic"][100:]) > 0.9


def test_the_same_seed_gives_the_same_scores() -> None:
    sessions, sequences, label = made(60)
    first, second = (score_rivals(sessions, sequences, label, np.arange(40), seed=3) for _ in range(2))
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_learned_scores_know_no_label_and_no_feature_outside_the_training_sessions() -> None:
    sessions, sequences, label = made(60)
    train = np.arange(40)
    changed, flipped = sequences.values.copy(), label.copy()
    changed[sequences.offsets[50] :] = 1e6
    flipped[40:] = 1 - flipped[40:]
    before = score_rivals(sessions, sequences, label, train, seed=0)
    after = score_rivals(sessions, Ragged(changed, sequences.offsets), flipped, train, seed=0)
    for name in NAMES:
        np.testing.assert_array_equal(before[name][:50], after[name][:50])


@pytest.mark.parametrize(("kind", "found"), [(0, "benign"), (1, "attacks")])
def test_one_class_is_refused_in_a_sentence(kind: int, found: str) -> None:
    sessions, sequences, label = made(12)
    label = np.where(label == kind, label, -1).astype(np.int8)
    known = int((label == kind).sum())
    with pytest.raises(DataError, match=f"the {known} labelled training sessions are all {found}, expected attacks"):
        score_rivals(sessions, sequences, label, np.arange(12), seed=0)


def test_unknown_labels_are_not_learned_from() -> None:
    sessions, sequences, label = made(40)
    unknown = label.copy()
    unknown[30:] = -1
    few = score_rivals(sessions, sequences, label, np.arange(30), seed=0)
    masked = score_rivals(sessions, sequences, unknown, np.arange(40), seed=0)
    for name in ("boosting", "logistic"):
        np.testing.assert_array_equal(few[name], masked[name])


def test_two_clients_are_enough_to_score() -> None:
    sessions, sequences, label = made(4)
    scores = score_rivals(sessions, sequences, label, np.arange(4), seed=0)
    assert all(np.isfinite(score).all() for score in scores.values())


def test_missing_inputs_and_features_give_finite_scores_without_a_warning() -> None:
    sessions, sequences, label = made(60, inputs=0)
    values = sequences.values.copy()
    values[:, 0] = np.nan  # a feature that the log never has
    values[: sequences.offsets[2]] = np.nan  # sessions that have none
    scores = score_rivals(sessions, Ragged(values, sequences.offsets), label, np.arange(60), seed=0)
    assert all(np.isfinite(score).all() for score in scores.values())
    assert not scores["prada"].any()
    assert not scores["near_duplicates"].any()
