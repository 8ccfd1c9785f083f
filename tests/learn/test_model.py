from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.errors import DataError
from probewatch.learn.model import LSTMClassifier, check_lengths
from probewatch.learn.train import one_thread

KINDS = [
    pytest.param(
        {"layers": layers, "bidirectional": both, "use_last_only": last, "outputs": outputs},
        id=f"layers={layers}-both={both}-last={last}-outputs={outputs}",
    )
    for layers, both, last, outputs in product((1, 2), (False, True), (True, False), (1, 3))
]


@pytest.fixture(autouse=True, scope="module")
def _in_one_thread():
    with one_thread():
        yield


def _model(**options):
    torch.manual_seed(0)
    return LSTMClassifier(2, hidden=5, **options).eval()


def _events(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def _alone(model, events, lengths):
    """Each sequence's logits without batch or padding: plain torch on exactly its own steps."""
    rows = []
    for sequence, length in zip(events, lengths, strict=True):
        _, (final, _) = model.lstm(sequence[None, :length])  # (layers * directions, 1, H)
        last = torch.cat([final[-2], final[-1]], dim=1) if model.bidirectional else final[-1]
        rows.append(model.linear(last)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("options", KINDS)
def test_a_batch_scores_each_sequence_as_it_scores_alone(options):
    model, events, lengths = _model(**options), _events(6, 9, 2), torch.tensor([3, 9, 1, 9, 5, 2])
    expected = _alone(model, events, lengths)
    torch.testing.assert_close(model(events, lengths), expected.squeeze(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    behind=st.integers(0, 7),
    filler=st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_padding_is_invisible(bidirectional, lengths, behind, filler):
    model = _model(bidirectional=bidirectional)
    told, steps = torch.tensor(lengths), max(lengths) + behind
    events = _events(len(lengths), steps, 2)
    padding = torch.arange(steps) >= told[:, None]  # (B, T)
    filled = events.masked_fill(padding[..., None], filler)
    torch.testing.assert_close(model(filled, told), _alone(model, events, lengths).squeeze(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", KINDS)
def test_a_batch_of_one_keeps_its_axis(options):
    logits = _model(**options)(_events(1, 4, 2), torch.tensor([4]))
    assert logits.shape == ((1,) if options["outputs"] == 1 else (1, 3))


@pytest.mark.parametrize("options", KINDS)
def test_no_state_survives_a_call(options):
    model, events = _model(**options), _events(3, 5, 2)
    lengths = torch.tensor([5, 2, 4])
    assert torch.equal(model(events, lengths), model(events, lengths))


@pytest.mark.parametrize(("layers", "outputs"), [(1, 1), (2, 1), (1, 3)])
def test_every_step_is_the_whole_score_of_each_prefix(layers, outputs):
    model, events = _model(layers=layers, outputs=outputs), _events(4, 7, 2)
    along = model.every_step(events)
    for step in range(7):
        prefix = model(events[:, : step + 1], torch.full((4,), step + 1))
        torch.testing.assert_close(along[:, step], prefix, atol=1e-6, rtol=0)


def test_a_bidirectional_model_has_no_score_before_the_end():
    with pytest.raises(DataError, match="bidirectional model has no score before the end"):
        _model(bidirectional=True).every_step(_events(1, 3, 2))


@pytest.mark.parametrize(("lengths", "told"), [([0, 3], "0 to 3"), ([2, 5], "2 to 5"), ([-1, 3], "-1 to 3")])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_length_outside_the_batch_is_refused(lengths, told, bidirectional):
    with pytest.raises(DataError, match=f"lengths run from {told}, expected from 1 to the 4 steps"):
        _model(bidirectional=bidirectional)(_events(2, 4, 2), torch.tensor(lengths))


def test_every_length_of_the_batch_is_allowed():
    check_lengths(torch.arange(1, 5), 4)


def test_dropout_works_in_training_only():
    model, events, lengths = _model(dropout=0.5), _events(3, 4, 2), torch.tensor([4, 4, 4])
    calm = model(events, lengths)
    torch.manual_seed(1)
    assert not torch.equal(model.train()(events, lengths), calm)
    assert torch.equal(model.eval()(events, lengths), calm)


def test_dropout_stands_between_layers_only_if_there_are_several():
    assert (_model(layers=1, dropout=0.3).lstm.dropout, _model(layers=2, dropout=0.3).lstm.dropout) == (0.0, 0.3)
