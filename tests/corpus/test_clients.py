from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from probewatch.corpus.clients import USES, Client
from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Answers, Inputs, Predict, run_together

INPUTS, LABELS = load_breast_cancer(return_X_y=True)
GRID = Grid.learn(INPUTS)


@pytest.fixture(scope="module")
def predict() -> Predict:
    mean, scale = INPUTS.mean(axis=0), INPUTS.std(axis=0)
    model = LogisticRegression().fit((INPUTS - mean) / scale, LABELS)
    return lambda inputs: model.predict_proba((inputs - mean) / scale)


def _run(name: str, predict: Predict, budget: int = 200, records: int = 300, seed: int = 0) -> tuple[Inputs, Answers]:
    blocks = []
    client = Client(INPUTS[:records], GRID, budget)
    (guess,) = run_together(
        [USES[name].start(client, np.random.default_rng(seed))],
        predict,
        seen=lambda _, inputs, answers: blocks.append((inputs, answers)),
    )
    assert guess is None
    return np.concatenate([inputs for inputs, _ in blocks]), np.concatenate([answers for _, answers in blocks])


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize(("budget", "records"), [(1, 1), (2, 300), (20, 1), (300, 12), (300, 300)])
def test_each_use_spends_its_budget_on_the_grid(name: str, budget: int, records: int, predict: Predict) -> None:
    for seed in range(3):
        inputs, _ = _run(name, predict, budget, records, seed)
        assert len(inputs) == budget
        np.testing.assert_array_equal(GRID.snap(inputs), inputs)


@pytest.mark.parametrize("name", USES)
def test_the_same_seed_asks_the_same(name: str, predict: Predict) -> None:
    np.testing.assert_array_equal(_run(name, predict)[0], _run(name, predict)[0])
    assert not np.array_equal(_run(name, predict)[0], _run(name, predict, seed=1)[0])


def _known(inputs: Inputs) -> np.ndarray:
    """bool (n,) which are records."""
    return (inputs[:, None] == INPUTS[None]).all(axis=2).any(axis=1)


@pytest.mark.parametrize("name", ["batch", "rescoring"])
def test_a_job_scores_each_record_once(name: str, predict: Predict) -> None:
    inputs, _ = _run(name, predict)
    assert _known(inputs).all()
    assert len(np.unique(inputs, axis=0)) == 200


def test_a_monitor_asks_the_same_few_questions(predict: Predict) -> None:
    assert len(np.unique(_run("health_check", predict)[0], axis=0)) <= 4


def test_retries_repeat_some_queries(predict: Predict) -> None:
    inputs, _ = _run("retries", predict)
    repeated = (inputs[1:] == inputs[:-1]).all(axis=1).mean()
    assert 0.02 < repeated < 0.4
    assert _known(inputs).all()


def test_people_start_from_records_and_edit_a_few_columns(predict: Predict) -> None:
    inputs, _ = _run("people", predict)
    known = _known(inputs)
    assert 0.2 < known.mean() < 1.0
    before = np.maximum.accumulate(np.where(known, np.arange(len(inputs)), 0))
    assert (inputs != inputs[before]).sum(axis=1).max() <= 3


def test_what_if_changes_one_column_at_a_time_and_makes_the_class_less_sure(predict: Predict) -> None:
    lowered = []
    for seed in range(10):
        inputs, answers = _run("what_if", predict, seed=seed)
        first = np.flatnonzero(_known(inputs))[0]
        label = answers[first].argmax()
        lowered.append(answers[first, label] - answers[:12, label].min())
        assert (inputs[1] != inputs[0]).sum() <= 1
    assert np.mean(lowered) > 0


def test_explainers_ask_about_records_and_mixtures(predict: Predict) -> None:
    inputs, _ = _run("shap", predict)
    assert _known(inputs)[0]
    seen = [set(column) for column in INPUTS.T]
    assert all(set(column) <= known for column, known in zip(inputs.T, seen, strict=True))
    assert _known(_run("lime", predict)[0])[0]


def _changed(inputs: Inputs, each: int) -> np.ndarray:
    """int (n,) columns in which inputs differ from the first of their block."""
    return (inputs != np.repeat(inputs[::each], each, axis=0)[: len(inputs)]).sum(axis=1)


def _block(inputs: Inputs) -> int:
    """Queries from the first record to the second."""
    return int(np.flatnonzero(_known(inputs))[1])


def test_averages_are_of_noisy_copies(predict: Predict) -> None:
    inputs, _ = next(run for seed in range(9) if _known((run := _run("averaging", predict, seed=seed))[0])[0])
    each = _block(inputs)
    apart = np.abs((inputs - np.repeat(inputs[::each], each, axis=0)[:200]) / INPUTS.std(axis=0))
    assert each > 1 and 0.0 < apart.mean() < 0.3


@pytest.mark.parametrize("name", ["fairness", "sensitivity"])
def test_auditors_change_one_column_of_a_record(name: str, predict: Predict) -> None:
    inputs, _ = _run(name, predict, 300)
    each = next(n for n in range(2, 60) if _known(inputs[::n]).all())
    assert _changed(inputs, each).max() == 1


def test_missing_columns_take_what_others_have_there(predict: Predict) -> None:
    inputs, _ = _run("imputation", predict)
    same = (inputs[:, None] == INPUTS[None]).sum(axis=2).max(axis=1)
    assert (same >= INPUTS.shape[1] // 2).mean() > 0.9
    assert all(set(column) <= set(known) for column, known in zip(inputs.T, INPUTS.T, strict=True))


def test_synthetic_records_lie_near_records_and_are_none(predict: Predict) -> None:
    inputs, _ = _run("synthetic", predict)
    scale = INPUTS.std(axis=0)
    nearest = np.linalg.norm((inputs[:, None] - INPUTS[None]) / scale, axis=2).min(axis=1)
    apart = np.linalg.norm(np.diff(INPUTS, axis=0) / scale, axis=1)
    assert not _known(inputs).any() and nearest.mean() < 0.5 * apart.mean()


def test_a_cohort_is_of_like_records(predict: Predict) -> None:
    inputs, _ = _run("cohort", predict)
    scaled = inputs / INPUTS.std(axis=0)
    mixed = np.random.default_rng(0).permutation(scaled)
    assert _known(inputs).all()
    assert np.median(np.linalg.norm(np.diff(scaled, axis=0), axis=1)) < np.median(
        np.linalg.norm(np.diff(mixed, axis=0), axis=1)
    )


def test_robustness_is_tested_from_the_record_on(predict: Predict) -> None:
    for seed in range(4):
        inputs, _ = _run("robustness", predict, seed=seed)
        assert 1 / 8 <= _known(inputs).mean() <= 1 / 3 + 0.02


def test_importance_permutes_a_column_of_the_same_table(predict: Predict) -> None:
    inputs, _ = _run("importance", predict, 300)
    rows = int(np.argmin(_known(inputs)))
    table = inputs[:rows]
    again = inputs[rows : 2 * rows]
    assert _known(table).all()
    assert (again != table).any(axis=0).sum() == 1
    np.testing.assert_array_equal(np.sort(again, axis=0), np.sort(table, axis=0))


def test_a_form_ends_with_the_record(predict: Predict) -> None:
    inputs, _ = _run("form", predict)
    last = np.flatnonzero(_known(inputs))
    assert len(last) > 1
    steps = (inputs[1 : last[0] + 1] != inputs[: last[0]]).sum(axis=0)
    assert steps.max() <= 1  # each column is filled in once


def test_kept_records_change_in_some_columns_from_round_to_round(predict: Predict) -> None:
    inputs, _ = _run("updates", predict, 300)
    rows = 1 + int(np.argmax((inputs[1:] == inputs[0]).mean(axis=1) > 0.5))
    changed = (inputs[rows : 2 * rows] != inputs[:rows]).mean()
    assert _known(inputs[:rows]).all() and 0.0 < changed < 0.35


def test_options_are_the_same_for_each_record(predict: Predict) -> None:
    inputs, _ = _run("ranking", predict, 300)
    varies = np.array([len(np.unique(column)) for column in inputs.T])
    assert (varies <= 40).any() and varies.max() <= 300 // 4
    shared = (inputs[1:] == inputs[:-1]).mean(axis=1)
    assert 0.3 < np.median(shared) < 1.0  # what tells of the record


def test_an_active_learner_comes_back_to_what_is_least_sure(predict: Predict) -> None:
    inputs, answers = _run("active_learning", predict, 300)
    _, place = np.unique(inputs, axis=0, return_index=True)
    pool = len(place)
    assert sorted(place) == list(range(pool)) and pool < 200
    sure = answers.max(axis=1)
    assert sure[pool : pool + 5].max() <= np.sort(sure[:pool])[4]


def test_a_regression_test_asks_for_the_same_table_in_the_same_order(predict: Predict) -> None:
    inputs, _ = _run("regression_test", predict, 300)
    rows = len(np.unique(inputs, axis=0))
    assert rows <= 120
    np.testing.assert_array_equal(inputs[rows:], inputs[:-rows])


def test_a_device_drifts(predict: Predict) -> None:
    inputs, _ = _run("device", predict)
    scaled = (inputs - INPUTS.mean(axis=0)) / INPUTS.std(axis=0)
    step = np.linalg.norm(np.diff(scaled, axis=0), axis=1).mean()
    assert step < np.linalg.norm(np.diff(scaled[np.random.default_rng(0).permutation(200)], axis=0), axis=1).mean()


def test_extraction_comes_closer_to_where_the_answer_turns(predict: Predict) -> None:
    margins = [np.abs(_run("extraction", predict, 300, seed=seed)[1][:, 0] - 0.5) for seed in range(5)]
    assert np.mean([margin[-100:].mean() for margin in margins]) < np.mean([margin[:30].mean() for margin in margins])


def test_adversarial_search_turns_answers(predict: Predict) -> None:
    inputs, answers = _run("adversarial_search", predict, 300)
    known = _known(inputs)
    assert known.sum() > len(set(map(tuple, inputs[:16][known[:16]])))  # searches ended, and others began
    assert (np.abs(answers[:, 0] - 0.5) < 0.2).any()


def test_families_of_uses_and_attacks_are_told_apart() -> None:
    kinds = {name: use.attack for name, use in USES.items() if use.attack != "none"}
    assert kinds == {"extraction": "extraction", "adversarial_search": "evasion"}
    assert len(USES) - len(kinds) >= 10
    assert [name for name, use in USES.items() if use.records == "members"] == ["rescoring"]
