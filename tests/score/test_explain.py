"""Explanations name the behaviour that made the score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from probewatch.data.columns import DEFAULT, FAMILIAR, FLOOR
from probewatch.data.ragged import Ragged
from probewatch.learn.dataset import Scaler
from probewatch.learn.graph import build_graph
from probewatch.learn.model import LSTMClassifier
from probewatch.network import Network
from probewatch.score.batch import Scorer
from probewatch.score.explain import BEHAVIOURS, _behaviours, explain


def _explain(network: Network, steps: np.ndarray, end: int) -> str:
    rows = Ragged.from_list([steps])
    logits, _ = network.run(rows)
    (sentence,) = explain(network, NAMES, dict.fromkeys(NAMES, 0.0), rows, logits, np.array([end]))
    return str(sentence)


NAMES = ["log_odds", "changed_share", "log_gap"]


def _network_that_sees(column: int) -> Network:
    """Logits that rise with one feature and know nothing of the others."""
    model = LSTMClassifier(3, 4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.lstm.weight_ih_l0[8:12, column] = 3.0  # the cell's candidate value
        model.lstm.bias_ih_l0[0:4] = 4.0  # the input gate is open
        model.lstm.bias_ih_l0[12:16] = 4.0  # so is the output gate
        model.linear.weight[:] = 2.0
    plain = Scaler(np.zeros(3), np.ones(3), 0.0, np.zeros((3, 0), np.float32))
    return Network(build_graph([model], plain, NAMES), NAMES)


def test_the_behaviour_that_the_network_sees_is_named_with_its_number() -> None:
    steps = np.column_stack([np.ones(5), np.full(5, 0.4), np.ones(5)])
    sentence = _explain(_network_that_sees(1), steps, 5)
    assert sentence.startswith("inputs changed from query to query (40%) +")
    assert "confidence" not in sentence
    assert "pacing" not in sentence


def test_what_a_client_does_comes_before_what_it_does_not() -> None:
    names = ["repeat", "log_gap", "changed_share"]
    rows = np.array([[0.0, 0.0, 0.4]] * 3, np.float32)
    effects = np.zeros(len(BEHAVIOURS))
    for size, prefix in ((3.0, "repeat"), (2.0, "changed"), (1.0, "log_gap")):
        effects[next(at for at, one in enumerate(BEHAVIOURS) if prefix in one.prefixes)] = size
    told = _behaviours(names, rows, effects)
    assert [part.split(" (")[0] for part in told] == [
        "inputs changed from query to query",
        "pacing",
        "no exact repeats",
    ]
    assert told[-1].endswith("+3.0")


def test_the_query_where_the_score_rose_is_named() -> None:
    steps = np.zeros((6, 3))
    steps[3:, 1] = 1.0
    sentence = _explain(_network_that_sees(1), steps, 6)
    assert "rose most at queries 4" in sentence


def test_only_what_came_before_the_explained_query_counts() -> None:
    steps = np.zeros((6, 3))
    steps[:3, 1] = 1.0
    later = steps.copy()
    later[3:, 1] = -9.0
    network = _network_that_sees(1)
    assert _explain(network, steps, 3) == _explain(network, later, 3)


def test_training_records_touched_are_told_with_what_strangers_would_touch() -> None:
    """31 of 64 queries where 5 % of strangers coincide: 3.2 expected."""
    rate, queries, touched = 0.05, 64.0, 31.0
    chance = rate * queries
    excess = math.asinh((touched - chance) / math.sqrt(chance * (1.0 - rate) + 1.0))
    say = next(one.say for one in BEHAVIOURS if "records_touched" in one.keys)
    sentence = "training records touched (about 31 of 64 different queries so far, 3.2 expected)"
    assert say(math.log1p(touched), touched / queries, excess) == sentence
    fewer = math.asinh((1.0 - chance) / math.sqrt(chance * (1.0 - rate) + 1.0))
    assert "(about 1 of 64 different queries so far, 3.2 expected)" in say(math.log1p(1.0), 1.0 / queries, fewer)
    assert say(0.0, 0.0, -1.0) == "no training records touched (0)"


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        ("ratio_mean_32", (math.log(2.5),), "answers as for training records (likelihood ratio 2.5)"),
        ("ratio_mean_32", (math.log(0.5),), "answers as for strangers (likelihood ratio 0.5)"),
        ("confidence_mean_4", (0.0, math.log(9.0)), "a climb in confidence (from 0.500 to 0.900)"),
        ("confidence_mean_4", (math.log(9.0), 0.0), "a fall in confidence (from 0.900 to 0.500)"),
        (
            "neighbours",
            (math.log1p(7), math.log(0.05 + FLOOR)),
            "repeats around anchors (7 recent queries near, the surest 0.05 of usual away)",
        ),
        ("log_gap", (math.log(2.5 + FLOOR),), "pacing (2.5 s between queries)"),
    ],
)
def test_a_behaviour_is_told_in_words_with_its_numbers(key: str, values: tuple[float, ...], sentence: str) -> None:
    assert next(one.say for one in BEHAVIOURS if key in one.keys)(*values) == sentence


def test_every_default_feature_belongs_to_exactly_one_behaviour() -> None:
    for name in set(DEFAULT) - {FAMILIAR}:  # the model's, not the client's
        assert sum(name.startswith(behaviour.prefixes) for behaviour in BEHAVIOURS) == 1, name


def test_alerts_of_probing_name_nearness_steps_or_changes(bundle: Any, labelled: Any) -> None:
    (verdicts,) = Scorer(bundle).score([labelled.sessions])
    caught = verdicts.why[verdicts.alert & (labelled.label == 1)]
    assert len(caught)
    assert all("quer" in sentence or "confidence" in sentence for sentence in caught)


def test_what_never_came_is_told_as_such() -> None:
    say = next(one.say for one in BEHAVIOURS if one.keys == ("repeat",))
    assert say(0.25) == "exact repeats (25%)"
    assert say(0.0) == "no exact repeats (0%)"
