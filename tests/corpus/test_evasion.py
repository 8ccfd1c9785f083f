from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES, Client
from probewatch.corpus.evasion import EVASIONS, by_keys, shuffled, with_cover, with_warm_up
from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Guess, Inputs, Predict, Source, run_together

INPUTS, LABELS = load_digits(return_X_y=True)
GRID = Grid.learn(INPUTS)
ATTACKER = Attacker(INPUTS[:400], LABELS[:400], INPUTS[400:600], LABELS[400:600], GRID, 120, kind="logistic")
CLIENT = Client(INPUTS[600:900], GRID, 80)


@pytest.fixture(scope="module")
def predict() -> Predict:
    return LogisticRegression(max_iter=300).fit(INPUTS[:200] / 16, LABELS[:200]).predict_proba


def _attack(name: str, budget: int = 120) -> Source:
    return ATTACKS[name].start(replace(ATTACKER, budget=budget), np.random.default_rng(5))


def _use(name: str, budget: int = 80) -> Source:
    return USES[name].start(replace(CLIENT, budget=budget), np.random.default_rng(6))


def _run(source: Source, predict: Predict) -> tuple[Guess | None, Inputs]:
    blocks: list[Inputs] = []
    (guess,) = run_together([source], predict, seen=lambda _, inputs, __: blocks.append(inputs))
    return guess, np.concatenate(blocks)


def _same(guess: Guess | None, other: Guess | None) -> None:
    assert guess is not None and other is not None
    np.testing.assert_array_equal(guess.record, other.record)
    np.testing.assert_allclose(guess.score, other.score, rtol=1e-7, atol=1e-9)


HIDDEN = ["threshold_confidence", "lira_offline", "rmia", "shadow_synthesis", "label_boundary"]


@pytest.mark.parametrize("use", ["batch", "what_if", "adversarial_search"])
@pytest.mark.parametrize("name", HIDDEN)
def test_cover_changes_neither_guesses_nor_queries_of_either(name: str, use: str, predict: Predict) -> None:
    plain, attack_asked = _run(_attack(name), predict)
    _, cover_asked = _run(_use(use), predict)
    guess, asked = _run(with_cover(_attack(name), _use(use), 0.4, np.random.default_rng(0)), predict)
    _same(guess, plain)
    assert sorted(map(tuple, asked)) == sorted(map(tuple, np.concatenate([attack_asked, cover_asked])))


def test_cover_is_mixed_in_from_the_start(predict: Predict) -> None:
    source = with_cover(_attack("threshold_confidence"), _use("batch"), 0.4, np.random.default_rng(0))
    _, asked = _run(source, predict)
    cover = [tuple(row) in set(map(tuple, CLIENT.records)) for row in asked]
    assert 0.2 < np.mean(cover[:100]) < 0.6


@pytest.mark.parametrize("name", HIDDEN)
def test_shuffling_changes_the_order_alone(name: str, predict: Predict) -> None:
    plain, asked = _run(_attack(name), predict)
    guess, other = _run(shuffled(_attack(name), 16, np.random.default_rng(0)), predict)
    _same(guess, plain)
    assert sorted(map(tuple, other)) == sorted(map(tuple, asked))
    assert not np.array_equal(other, asked)


def test_shuffling_stays_within_groups(predict: Predict) -> None:
    _, asked = _run(_attack("threshold_confidence"), predict)
    _, other = _run(shuffled(_attack("threshold_confidence"), 10, np.random.default_rng(0)), predict)
    for start in range(0, len(asked), 10):
        group = slice(start, start + 10)
        assert sorted(map(tuple, other[group])) == sorted(map(tuple, asked[group]))


def test_a_warm_up_comes_first(predict: Predict) -> None:
    plain, asked = _run(_attack("rmia"), predict)
    _, harmless = _run(_use("what_if"), predict)
    guess, other = _run(with_warm_up(_attack("rmia"), _use("what_if")), predict)
    _same(guess, plain)
    np.testing.assert_array_equal(other, np.concatenate([harmless, asked]))


@pytest.mark.parametrize("name", EVASIONS)
@pytest.mark.parametrize("budget", [1, 2, 20, 200])
def test_hiding_costs_no_more_than_the_budget(name: str, budget: int, predict: Predict) -> None:
    for seed in range(8):
        source = EVASIONS[name].start(
            lambda queries: _attack("threshold_confidence", queries),
            lambda queries: _use("people", queries),
            budget,
            np.random.default_rng(seed),
        )
        guess, asked = _run(source, predict)
        assert guess is not None and len(asked) == budget


@pytest.mark.parametrize("queries", [3, 10, 100])
def test_each_key_sends_some_queries(queries: int) -> None:
    ways = [by_keys(queries, 3, np.random.default_rng(seed)) for seed in range(12)]
    assert all(len(keys) == queries and set(keys) == {0, 1, 2} for keys in ways)
    assert len({tuple(keys) for keys in ways}) >= 2
