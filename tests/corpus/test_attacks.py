from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.bridge import ask_by_calls
from probewatch.corpus.grid import Grid
from probewatch.corpus.shadows import KINDS, ShadowCache, ShadowPlan, fit_model, fit_shadows
from probewatch.corpus.sources import Answers, Guess, Inputs, Predict, run_together

MEMBERS = 200
LEAST = {  # ROC AUC on the target below, over sessions of 300 queries; each attack must stay above
    "threshold_confidence": 0.70,
    "threshold_top_confidence": 0.65,
    "threshold_entropy": 0.65,
    "threshold_modified_entropy": 0.70,
    "difficulty_calibration": 0.65,
    "shadow_synthesis": 0.65,
    "lira_offline": 0.75,
    "lira_online": 0.80,
    "rmia": 0.70,
    "neighbourhood": 0.53,
    "label_noise": 0.65,
    "label_boundary": 0.60,
    "label_walk": 0.58,
    "label_once": 0.65,
    "loss_rise": 0.60,
    "completion": 0.60,
}


@dataclass(frozen=True)
class _Scene:
    attacker: Attacker
    predict: Predict

    def run(self, name: str, sessions: int = 1, predict: Predict | None = None) -> tuple[list[Guess], list[Inputs]]:
        """Guesses, and all that each session asked."""
        asked: list[list[Inputs]] = [[] for _ in range(sessions)]
        sources = [ATTACKS[name].start(self.attacker, np.random.default_rng(seed)) for seed in range(sessions)]
        guesses = run_together(
            sources, predict or self.predict, seen=lambda number, inputs, _: asked[number].append(inputs)
        )
        assert all(isinstance(guess, Guess) for guess in guesses)
        return [guess for guess in guesses if guess], [np.concatenate(blocks) for blocks in asked]

    def auc(self, name: str, sessions: int) -> float:
        guesses, _ = self.run(name, sessions)
        record = np.concatenate([guess.record for guess in guesses])
        return float(roc_auc_score(record < MEMBERS, np.concatenate([guess.score for guess in guesses])))


@pytest.fixture(scope="module")
def scene() -> _Scene:
    """An MLP that knows its 200 training records by heart, and an attacker who knows its kind and their number."""
    inputs, labels = make_classification(
        1000, 24, n_informative=10, n_classes=3, class_sep=0.8, flip_y=0.05, random_state=0
    )
    inputs = inputs.round(2)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    target = MLPClassifier((48,), max_iter=400, learning_rate_init=0.01, tol=1e-4, random_state=0)
    target.fit((inputs[:MEMBERS] - mean) / scale, labels[:MEMBERS])
    attacker = Attacker(
        inputs[: 2 * MEMBERS], labels[: 2 * MEMBERS], inputs[2 * MEMBERS :], labels[2 * MEMBERS :],
        Grid.learn(inputs), 300, kind="mlp", shadow_size=MEMBERS,
    )  # fmt: skip
    return _Scene(attacker, lambda asked: target.predict_proba((asked - mean) / scale))


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_finds_members_of_an_over_fitted_model(scene: _Scene, name: str) -> None:
    found = scene.auc(name, 24)
    print(f"{name} {found:.3f}")
    assert found > LEAST[name]


def test_lira_with_16_shadow_models_beats_the_threshold(scene: _Scene) -> None:
    assert scene.attacker.shadow_count == 16
    assert scene.auc("lira_online", 24) > scene.auc("threshold_confidence", 24)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_budget_is_kept_and_nearly_spent(scene: _Scene, name: str) -> None:
    for budget in (20, 57, 300):
        one = _Scene(replace(scene.attacker, budget=budget), scene.predict)
        spent = [len(asked) for asked in one.run(name, 6)[1]]
        assert max(spent) <= budget + 24, budget  # a block that was begun is asked to its end
        assert np.mean(spent) > 0.7 * budget, budget


@pytest.mark.parametrize("name", ATTACKS)
def test_one_query_is_enough_of_a_budget(scene: _Scene, name: str) -> None:
    guesses, _ = _Scene(replace(scene.attacker, budget=1), scene.predict).run(name)
    assert len(guesses[0].record) >= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_guesses_are_about_the_wanted_candidates_and_inputs_on_the_grid(scene: _Scene, name: str) -> None:
    rows = np.arange(100, 300)
    guesses, asked = _Scene(replace(scene.attacker, rows=rows), scene.predict).run(name, 3)
    for guess, inputs in zip(guesses, asked, strict=True):
        assert set(guess.record) <= set(rows)
        assert len(set(guess.record)) == len(guess.record) == len(guess.score)
        assert np.isfinite(guess.score).all()
        np.testing.assert_array_equal(scene.attacker.grid.snap(inputs), inputs)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_asks_and_guesses_the_same_whoever_runs_beside(scene: _Scene, name: str) -> None:
    fresh = _Scene(replace(scene.attacker, cache=ShadowCache(), kind="logistic", budget=120), scene.predict)
    (first,), (asked,) = fresh.run(name)
    again = _Scene(replace(fresh.attacker, cache=ShadowCache()), scene.predict)
    guesses, all_asked = again.run(name, 4)
    np.testing.assert_array_equal(all_asked[0], asked)
    np.testing.assert_array_equal(guesses[0].record, first.record)
    np.testing.assert_allclose(guesses[0].score, first.score, rtol=1e-7, atol=1e-9)  # sums of other widths


@pytest.mark.parametrize("name", [name for name in ATTACKS if name.startswith("label_")])
def test_attacks_on_labels_see_nothing_else(scene: _Scene, name: str) -> None:
    def labels_alone(inputs: Inputs) -> Answers:
        answers = scene.predict(inputs)
        return np.eye(answers.shape[1])[answers.argmax(axis=1)]

    (full,), (asked,) = scene.run(name)
    (bare,), (again,) = scene.run(name, predict=labels_alone)
    np.testing.assert_array_equal(again, asked)
    np.testing.assert_array_equal(bare.score, full.score)


def test_sources_do_not_touch_the_global_random_state(scene: _Scene) -> None:
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    scene.run("label_boundary", 2)
    np.testing.assert_array_equal(np.random.random(3), expected)


def test_a_closed_source_leaves_no_thread(scene: _Scene) -> None:
    before = threading.active_count()
    started = ATTACKS["label_boundary"].start(scene.attacker, np.random.default_rng(0))
    next(started)
    assert threading.active_count() == before + 1
    started.close()
    ATTACKS["label_boundary"].start(scene.attacker, np.random.default_rng(0)).close()
    assert threading.active_count() == before


def test_an_error_of_a_calling_function_comes_out_of_its_source() -> None:
    def run(predict: Predict) -> None:
        predict(np.zeros((1, 2)))
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        run_together([ask_by_calls(run, 0)], lambda inputs: inputs)


def test_shadows_are_fitted_once_for_all_who_share_records() -> None:
    random = np.random.default_rng(0)
    records, labels = random.normal(size=(40, 3)), random.integers(2, size=40)
    cache = ShadowCache()
    first = cache.get(records, labels, ShadowPlan("logistic", 0, 2))
    assert cache.get(records.copy(), labels.copy(), ShadowPlan("logistic", 0, 2)) is first
    assert cache.get(records, 1 - labels, ShadowPlan("logistic", 0, 2)) is not first
    assert cache.get(records, labels, ShadowPlan("logistic", 1, 2)) is not first
    assert len(cache.fitted) == 3


def test_each_record_is_in_half_of_the_shadow_models() -> None:
    random = np.random.default_rng(0)
    records, labels = random.normal(size=(40, 3)), random.integers(2, size=40)
    shadows = fit_shadows(records, labels, ShadowPlan("trees", 0, 6))
    assert shadows.trained.sum(axis=0).tolist() == [3] * 40
    assert fit_shadows(records, labels, ShadowPlan("trees", 0, 6, size=5)).trained.sum(axis=1).tolist() == [5] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_shadow_models_know_their_own_records_and_any_classes(kind: str) -> None:
    random = np.random.default_rng(0)
    records = random.normal(size=(60, 8))
    labels: NDArray[np.int64] = random.choice([1, 4, 5], 60)
    model = fit_model(records, labels, kind, 0)  # type: ignore[arg-type]
    answers = model.predict(records)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    assert (model.classes[answers.argmax(axis=1)] == labels).mean() > 0.5
    shadows = fit_shadows(records[:2], np.array([1, 4]), ShadowPlan(kind, 0, 2))  # type: ignore[arg-type]
    assert shadows.predict(records, 6).shape == (2, 60, 6)
    np.testing.assert_allclose(shadows.predict(records, 6).sum(axis=2), 1.0)
    sure = shadows.of_label(records, np.full(60, 4), 6)
    assert sorted(sure[:, 0].tolist()) == [0.0, 1.0]  # each knows one class
