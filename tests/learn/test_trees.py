"""Trees: as the graph scores them, so they were grown; and what they may and may not learn."""

from __future__ import annotations

import itertools
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from probewatch.data.columns import FAMILIAR
from probewatch.data.ragged import Ragged
from probewatch.learn.dataset import Scaler
from probewatch.learn.graph import Grove, build_graph
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.trees import LIFE, START, Trees, grow_evidence, grow_habits
from probewatch.network import Network

pytestmark = pytest.mark.usefixtures("one_thread")
OF_HABITS, ABROAD = 0.4, 0.7
NAMES = ["log_gap", "log_odds", "record_evidence", "records_touched", FAMILIAR]
SCALER = Scaler(np.zeros(5), np.ones(5), 0.0, np.zeros((5, 1), np.float32))


@pytest.fixture(scope="module")
def sessions() -> tuple[Ragged, NDArray[np.int8]]:
    """Attacks touch records and ask in haste; every second session lacks what its model's owner would know."""
    random = np.random.default_rng(3)
    label = (np.arange(120) % 3 == 0).astype(np.int8)
    parts = []
    for number, attack in enumerate(label):
        values = random.normal(size=(int(random.integers(1, 60)), 5))
        values[:, 0] -= 0.8 * attack
        values[:, 2:4] = np.cumsum(random.random((len(values), 2)) < 0.1 + 0.3 * attack, axis=0)
        values[:, 4] = 1.0
        if number % 2:
            values[:, 2:4] = np.nan
        parts.append(values.astype(np.float32))
    return Ragged.from_list(parts), label


@pytest.fixture(scope="module")
def grown(sessions: tuple[Ragged, NDArray[np.int8]]) -> tuple[Trees, Trees, list[lightgbm.Booster]]:
    """Habits and evidence, and what the library itself makes of them."""
    boosters = []
    train = lightgbm.train

    def keep(*args: Any, **options: Any) -> lightgbm.Booster:
        boosters.append(train(*args, **options))
        return boosters[-1]

    views, label = sessions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightgbm, "train", keep)
        habits = grow_habits([views], [], label, np.arange(len(views)), 0)
        evidence = grow_evidence(views, NAMES, label, np.arange(len(views)), 0)
    assert evidence is not None
    return habits, evidence, boosters


def run(
    sequences: Ragged,
    habits: Trees,
    evidence: Trees | None,
    share: float = 0.2,
    abroad: float = 0.7,
    enough: float = 0.0,
    pretrained: Trees | None = None,
    near: float = 0.0,
    far: float = 0.0,
    **options: Any,
) -> NDArray[np.float32]:
    """The logits where the network says nothing."""
    silent = LSTMClassifier(6, 4)
    for weight in silent.parameters():
        weight.data.zero_()
    grove = Grove(habits, evidence, share, abroad, OF_HABITS, ABROAD, enough, pretrained, near, far)
    graph = build_graph([silent], SCALER, NAMES, grove=grove, **options)
    return Network(graph, NAMES).run(sequences)[0]


def smoothed(raw: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    keep, found = 0.5 ** (1 / LIFE), np.empty(len(raw))
    for start, end in itertools.pairwise(offsets):
        last = START
        for step in range(start, end):
            last = found[step] = keep * last + (1 - keep) * raw[step]
    return found


def test_the_graph_scores_as_the_trees_were_grown(
    sessions: tuple[Ragged, NDArray[np.int8]], grown: tuple[Trees, Trees, list[lightgbm.Booster]]
) -> None:
    """Every step of every session, missing values among them: habits smoothed, evidence as it is."""
    views = sessions[0]
    habits, evidence, (*by_habit, by_evidence) = grown
    raw = np.mean([one.predict(views.values, raw_score=True) for one in by_habit], axis=0)
    habit = smoothed(raw, views.offsets)
    np.testing.assert_allclose(run(views, habits, None), ABROAD * habit, atol=1e-5)

    told = np.asarray(by_evidence.predict(views.values[:, 2:4], raw_score=True))
    lacks = np.isnan(views.values[:, 2])
    mixed = np.where(lacks, ABROAD * habit, 0.8 * OF_HABITS * habit + 0.2 * told)
    np.testing.assert_allclose(run(views, habits, evidence), mixed, atol=1e-5)
    calibrated = run(views, habits, evidence, calibration=(1.7, -0.4))
    # the network's own logit is calibrated too
    np.testing.assert_allclose(calibrated, 1.7 * mixed - 0.4, atol=1e-5)


def test_a_value_missing_where_none_was_in_training_is_the_librarys_zero(
    sessions: tuple[Ragged, NDArray[np.int8]], grown: tuple[Trees, Trees, list[lightgbm.Booster]]
) -> None:
    views = sessions[0]
    values = views.values.copy()
    values[::3, 0] = values[1::3, 1] = np.nan
    holed = Ragged(values, views.offsets)
    raw = np.mean([one.predict(values, raw_score=True) for one in grown[2][:2]], axis=0)
    np.testing.assert_allclose(run(holed, grown[0], None), ABROAD * smoothed(raw, views.offsets), atol=1e-5)


def test_evidence_counts_more_on_a_model_that_training_never_saw(
    sessions: tuple[Ragged, NDArray[np.int8]], grown: tuple[Trees, Trees, list[lightgbm.Booster]]
) -> None:
    views, (habits, evidence, _) = sessions[0].take(np.arange(0, 120, 2)), grown
    values = views.values.copy()
    values[:, 4] = np.nan
    abroad = Ragged(values, views.offsets)
    alone, without = run(views, habits, evidence, 1.0), run(views, habits, None)
    np.testing.assert_allclose(run(abroad, habits, evidence, 0.9, 0.0), without, atol=1e-5)
    for share in (0.25, 0.75):
        mixed = (1.0 - share) * without + share * alone
        np.testing.assert_allclose(run(abroad, habits, evidence, 0.0, share), mixed, atol=1e-5)


def test_more_evidence_is_never_less_of_an_attack(
    grown: tuple[Trees, Trees, list[lightgbm.Booster]],
) -> None:
    evidence = grown[1]
    steps = np.zeros((2 * 41, 5), np.float32)
    steps[:41, 2] = steps[41:, 3] = np.linspace(-1.0, 20.0, 41)
    steps[:41, 3] = steps[41:, 2] = 5.0
    alone = Ragged(steps, np.arange(83))
    logits = run(alone, grown[0], evidence, 1.0)
    assert np.all(np.diff(logits[:41]) >= 0) and np.all(np.diff(logits[41:]) >= 0)
    assert logits[40] > logits[0] + 0.5


def test_no_evidence_no_trees_of_it(sessions: tuple[Ragged, NDArray[np.int8]]) -> None:
    views, label = sessions
    blind = Ragged(np.where(np.arange(5) < 2, views.values, np.float32(np.nan)), views.offsets)
    assert grow_evidence(blind, NAMES, label, np.arange(len(views)), 0) is None
    assert grow_evidence(views.__class__(views.values[:, :2], views.offsets), NAMES[:2], label, np.arange(9), 0) is None


def test_without_evidence_it_has_no_weight_whatever_the_features(sessions: tuple[Ragged, NDArray[np.int8]]) -> None:
    """A choice of features need not have the one that sums the evidence up."""
    names = ["log_gap", "log_odds", "on_record", "records_touched", "anchors"]
    views, label = sessions
    train = np.arange(len(views))
    habits, evidence = grow_habits([views], [], label, train, 0), grow_evidence(views, names, label, train, 0)
    silent = LSTMClassifier(6, 4)
    for weight in silent.parameters():
        weight.data.zero_()
    alone, both = (
        Network(build_graph([silent], SCALER, names, grove=Grove(habits, one, 0.9, 0.9, OF_HABITS, ABROAD)), names).run(
            views
        )[0]
        for one in (None, evidence)
    )
    lacking = np.isnan(views.values[:, 2])
    np.testing.assert_allclose(both[lacking], alone[lacking], atol=1e-6)
    assert np.abs(both[~lacking] - alone[~lacking]).max() > 0.1


def test_more_than_enough_evidence_counts_as_enough(
    sessions: tuple[Ragged, NDArray[np.int8]], grown: tuple[Trees, Trees, list[lightgbm.Booster]]
) -> None:
    views, (habits, evidence, _) = sessions[0], grown
    whole = run(views, habits, evidence, 1.0, 1.0)
    enough = float(np.nanmedian(whole))
    told = ~np.isnan(views.values[:, NAMES.index("record_evidence")])
    ended = run(views, habits, evidence, 1.0, 1.0, enough=enough)
    np.testing.assert_allclose(ended[told], np.minimum(whole[told], enough), atol=1e-6)
    np.testing.assert_array_equal(ended[~told], whole[~told])
    slope, intercept = 0.5, -1.0
    scaled = run(views, habits, evidence, 1.0, 1.0, enough=enough, calibration=(slope, intercept))
    np.testing.assert_allclose(scaled, slope * ended + intercept, atol=1e-5)


def test_pretrained_trees_have_their_share_beside_all_others(
    sessions: tuple[Ragged, NDArray[np.int8]], grown: tuple[Trees, Trees, list[lightgbm.Booster]]
) -> None:
    views, (habits, evidence, _) = sessions[0], grown
    other = grow_habits([views], [], 1 - sessions[1], np.arange(len(views)), 1)
    values = views.values.copy()
    values[::2, 4] = np.nan  # on a model that training never saw
    mixed = Ragged(values, views.offsets)
    own, alone = run(mixed, habits, evidence), run(mixed, other, None) / ABROAD
    share = np.where(np.isnan(values[:, 4]), 0.6, 0.3)
    for slope, intercept in ((1.0, 0.0), (1.7, -0.4)):
        found = run(mixed, habits, evidence, pretrained=other, near=0.3, far=0.6, calibration=(slope, intercept))
        np.testing.assert_allclose(found, slope * ((1 - share) * own + share * alone) + intercept, atol=1e-5)


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_smoothing_goes_on_where_a_session_was_cut(
    sessions: tuple[Ragged, NDArray[np.int8]],
    grown: tuple[Trees, Trees, list[lightgbm.Booster]],
    pretrained: bool,
) -> None:
    views, (habits, evidence, _) = sessions[0], grown
    other = grow_habits([views], [], sessions[1], np.arange(60), 1) if pretrained else None
    grove = Grove(habits, evidence, 0.2, 0.7, OF_HABITS, ABROAD, 0.0, other, 0.3, 0.7)
    network = Network(build_graph([LSTMClassifier(6, 4)], SCALER, NAMES, grove=grove), NAMES)
    assert network.state_width == 2 * 4 + 1 + pretrained
    whole, _ = network.run(views)
    session = int(np.argmax(views.lengths))
    rows, state, found = views[session], None, []
    for start, end in ((0, 1), (1, 20), (20, len(rows))):
        logits, state = network.run(Ragged(rows[start:end], np.array([0, end - start])), state)
        found.append(logits)
    at = slice(views.offsets[session], views.offsets[session + 1])
    np.testing.assert_allclose(np.concatenate(found), whole[at], atol=1e-5)


def test_habits_learn_what_shows_at_the_end_alone() -> None:
    """One query in 33: of those along the sessions too few are drawn for a leaf."""
    random = np.random.default_rng(5)
    label = (np.arange(240) % 2).astype(np.int8)
    values = random.normal(size=(240, 33, 5)).astype(np.float32)
    values[label == 1, -1, 1] = 9.0
    lessons = Ragged(values.reshape(-1, 5), np.arange(0, 240 * 33 + 1, 33))
    habits = grow_habits([lessons], [], label, np.arange(240), 0)
    last = run(lessons, habits, None).reshape(240, 33)[:, -1]
    assert roc_auc_score(label, last) > 0.95


def test_the_same_seed_grows_the_same_trees(sessions: tuple[Ragged, NDArray[np.int8]]) -> None:
    views, label = sessions
    first, second, other = (grow_habits([views], [views], label, np.arange(100), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.value, second.value)
    assert len(first.value) != len(other.value) or np.any(first.value != other.value)


def test_a_handful_of_queries_grows_leaves_alone() -> None:
    few = Ragged.from_list([np.full((2, 5), float(number), np.float32) for number in range(4)])
    habits = grow_habits([few], [], np.array([0, 1, 0, 1], np.int8), np.arange(4), 0)
    assert np.all(habits.feature == -1)
    assert np.isfinite(run(few, habits, None)).all()
