import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probewatch import network as module
from probewatch.data.ragged import Ragged
from probewatch.errors import BundleError
from probewatch.learn.dataset import Scaler
from probewatch.learn.graph import build_graph
from probewatch.learn.model import LSTMClassifier
from probewatch.network import BATCH, PIECE, Network, sigmoid, summarise

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["a", "b", "c"]
UNSCALED = Scaler(np.zeros(3), np.ones(3), 0.0, np.zeros((3, 0), np.float32))


def sequences_of(lengths: list[int], seed: int = 0) -> Ragged:
    random = np.random.default_rng(seed)
    return Ragged.from_list([random.normal(3.0, 2.0, (length, 3)) for length in lengths])


def models_of(count: int = 1, *, width: int = 3, layers: int = 1, bidirectional: bool = False) -> list[LSTMClassifier]:
    torch.manual_seed(7)
    return [LSTMClassifier(width, 16, layers, bidirectional=bidirectional).eval() for _ in range(count)]


def logits_by_torch(models: list[LSTMClassifier], scaler: Scaler, sequences: Ragged) -> list[NDArray[np.float32]]:
    """The members' mean logit after every step; after all steps only, repeated, if they read both ways."""
    scaled = scaler.transform(sequences)
    found = []
    with torch.no_grad():
        for index in range(len(scaled)):
            events = torch.from_numpy(scaled[index])[None]
            length = torch.tensor([events.shape[1]])
            each = [
                model(events, length).expand(events.shape[1]) if model.bidirectional else model.every_step(events)[0]
                for model in models
            ]
            found.append(torch.stack(each).mean(dim=0).numpy())
    return found


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_the_graph_gives_torchs_logits_at_every_length(layers: int, bidirectional: bool, members: int) -> None:
    sequences = sequences_of([*range(1, 31), 200, 1, 77])
    scaler = Scaler.fit(sequences)
    models = models_of(members, layers=layers, bidirectional=bidirectional)
    logits, _ = Network(build_graph(models, scaler, NAMES), NAMES).run(sequences)
    np.testing.assert_allclose(logits, np.concatenate(logits_by_torch(models, scaler, sequences)), rtol=0, atol=1e-5)


def test_missing_features_are_marked_and_extreme_ones_cut() -> None:
    sequences = sequences_of([1, 9, 40])
    random = np.random.default_rng(1)
    values = sequences.values.copy()
    values[random.random(values.shape) < 0.3] = np.nan
    values[5, 0], values[6, 0] = 1e30, -1e30
    holed = Ragged(values, sequences.offsets)
    scaler = Scaler.fit(sequences, limit=2.0, groups=["confidence", "inputs", "inputs"])
    models = models_of(2, width=5)
    logits, _ = Network(build_graph(models, scaler, NAMES), NAMES).run(holed)
    np.testing.assert_allclose(logits, np.concatenate(logits_by_torch(models, scaler, holed)), rtol=0, atol=1e-5)


def test_the_calibration_is_a_slope_and_an_intercept_of_the_mean_logit() -> None:
    sequences = sequences_of([5, 12])
    models = models_of(2)
    plain, _ = Network(build_graph(models, UNSCALED, NAMES), NAMES).run(sequences)
    calibrated, _ = Network(build_graph(models, UNSCALED, NAMES, (2.5, -1.0)), NAMES).run(sequences)
    np.testing.assert_allclose(calibrated, 2.5 * plain - 1.0, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def stacked() -> Network:
    return Network(build_graph(models_of(2, layers=2), UNSCALED, NAMES), NAMES)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_sequences_cut_anywhere_score_as_the_whole(stacked: Network, data: st.DataObject) -> None:
    sequences = sequences_of([20, 3, 41])
    whole, end = stacked.run(sequences)
    cuts = [data.draw(st.integers(1, int(length) - 1)) for length in sequences.lengths]
    heads = Ragged.from_list([sequences[index][:cut] for index, cut in enumerate(cuts)])
    tails = Ragged.from_list([sequences[index][cut:] for index, cut in enumerate(cuts)])
    first, state = stacked.run(heads)
    before = state.copy()
    second, after = stacked.run(tails, state)
    np.testing.assert_array_equal(state, before)
    np.testing.assert_allclose(after, end, rtol=0, atol=1e-5)
    for index, cut in enumerate(cuts):
        own = whole[sequences.offsets[index] : sequences.offsets[index + 1]]
        np.testing.assert_allclose(first[heads.offsets[index] :][:cut], own[:cut], rtol=0, atol=1e-5)
        np.testing.assert_allclose(second[tails.offsets[index] : tails.offsets[index + 1]], own[cut:], atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequences_longer_than_a_piece_score_as_the_whole(bidirectional: bool) -> None:
    sequences = sequences_of([PIECE + 1, 5, 2 * PIECE, PIECE])
    models = models_of(bidirectional=bidirectional)
    logits, state = Network(build_graph(models, UNSCALED, NAMES), NAMES).run(sequences)
    np.testing.assert_allclose(logits, np.concatenate(logits_by_torch(models, UNSCALED, sequences)), atol=1e-5)
    assert state.shape == (4, 0 if bidirectional else 32)


def test_a_score_depends_neither_on_the_other_sequences_nor_on_the_number_of_threads(stacked: Network) -> None:
    sequences = sequences_of([int(length) for length in np.random.default_rng(0).integers(1, 60, 5 * BATCH)])
    graph = build_graph(models_of(2, layers=2), UNSCALED, NAMES)
    one, _ = Network(graph, NAMES, threads=1).run(sequences)
    three, _ = Network(graph, NAMES, threads=3).run(sequences)
    np.testing.assert_array_equal(one, three)
    for index in (0, 17, len(sequences) - 1):
        alone, _ = stacked.run(sequences.take(np.array([index])))
        own = one[sequences.offsets[index] : sequences.offsets[index + 1]]
        np.testing.assert_allclose(alone, own, rtol=0, atol=1e-5)


def test_what_follows_a_sequence_in_memory_does_not_touch_its_score(stacked: Network) -> None:
    sequences = sequences_of([4, 30, 9])
    values = sequences.values.copy()
    values[4:34] = np.nan
    plain, _ = stacked.run(sequences)
    among, _ = stacked.run(Ragged(values, sequences.offsets))
    np.testing.assert_allclose(among[:4], plain[:4], rtol=0, atol=1e-6)
    np.testing.assert_allclose(among[34:], plain[34:], rtol=0, atol=1e-6)


def test_the_sequences_are_not_changed_and_none_at_all_give_nothing(stacked: Network) -> None:
    sequences = sequences_of([4, 30])
    before = sequences.values.copy()
    stacked.run(sequences)
    np.testing.assert_array_equal(sequences.values, before)
    logits, state = stacked.run(Ragged(np.zeros((0, 3), np.float32), np.zeros(1, np.int64)))
    assert logits.shape == (0,)
    assert state.shape == (0, 128)


def test_batches_hold_every_sequence_once_and_about_as_many_steps() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 3000, 500))[::-1]
    order = np.arange(500)
    batches = module._batches(order, lengths)
    np.testing.assert_array_equal(np.concatenate(batches), order)
    assert all(len(batch) % BATCH == 0 for batch in batches[:-1])
    assert all(len(batch) == BATCH or lengths[batch].sum() <= module.STEPS for batch in batches)


def test_another_feature_order_is_refused() -> None:
    graph = build_graph(models_of(), UNSCALED, NAMES)
    with pytest.raises(BundleError, match="expects the features"):
        Network(graph, ["b", "a", "c"])


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_graph_is_refused(damage: str) -> None:
    graph = build_graph(models_of(), UNSCALED, NAMES)
    broken = {"cut": graph[: len(graph) // 2], "empty": b"", "noise": b"\x07" * 500}[damage]
    with pytest.raises(BundleError, match="the graph cannot be loaded"):
        Network(broken, NAMES)


def logit(*scores: float) -> NDArray[np.float32]:
    return np.array([math.log(score / (1 - score)) for score in scores], np.float32)


def test_the_peak_decides_and_the_first_alert_is_where_it_crossed() -> None:
    logits = np.concatenate([logit(0.2, 0.9, 0.7), logit(0.4), logit(0.1, 0.2, 0.6, 0.95)])
    score, last, first = summarise(logits, np.array([0, 3, 4, 8]), 0.55, "peak")
    np.testing.assert_allclose(score, [0.9, 0.4, 0.95], rtol=1e-6)
    np.testing.assert_allclose(last, [0.7, 0.4, 0.95], rtol=1e-6)
    assert first.tolist() == [2, 0, 3]


def test_the_last_score_decides_where_the_bundle_says_so() -> None:
    logits = np.concatenate([logit(0.2, 0.9, 0.3), logit(0.4, 0.8)])
    score, last, first = summarise(logits, np.array([0, 3, 5]), 0.55, "last")
    np.testing.assert_allclose(score, [0.3, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(score, last)
    assert first.tolist() == [0, 2]


def test_a_score_equal_to_the_threshold_is_an_alert() -> None:
    score, _, first = summarise(np.zeros(1, np.float32), np.array([0, 1]), 0.5, "peak")
    assert score.tolist() == [0.5]
    assert first.tolist() == [1]


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e30, 0.0, 1e30], np.float32)).tolist() == [0.0, 0.5, 1.0]
