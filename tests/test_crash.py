"""The article's crash, from its real cause: lengths that were taken before the sequences were cut."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from probewatch.corpus.article import draw_tasks
from probewatch.data.ragged import Ragged
from probewatch.errors import DataError, TrainingError
from probewatch.learn.batches import Sequences, iterate
from probewatch.learn.model import LSTMClassifier, check_lengths
from probewatch.learn.presets import PRESETS
from probewatch.learn.train import fit

STEPS = 150
COLUMNS = PRESETS["article"].features
TOO_LONG = r"start \(\d+\) \+ length \(\d+\) exceeds dimension size|shape '\[\d+, \d+, 3\]' is invalid for input"
pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def toy():
    """Scaled sequences of up to 250 steps, and their (S,) labels."""
    tasks = draw_tasks(64).values()
    sequences = [np.array([[event[name] for name in COLUMNS] for event in task["sequence"]]) for task in tasks]
    scaler = StandardScaler().fit(np.vstack(sequences))
    return [scaler.transform(one).astype(np.float32) for one in sequences], [task["is_malicious"] for task in tasks]


def article_tensors(sequences, label):
    """As the article makes them: padded and cut to 150 steps, the lengths taken before."""
    lengths = torch.tensor([len(one) for one in sequences])
    padded = torch.zeros(len(sequences), STEPS, 3)
    for row, one in zip(padded, sequences, strict=True):
        row[: min(len(one), STEPS)] = torch.from_numpy(one[:STEPS])
    return padded, torch.tensor(label, dtype=torch.float32), lengths


class ArticleNetwork(nn.Module):
    """As the article builds it; ``squashed`` with the sigmoid that it blamed."""

    def __init__(self, squashed):
        super().__init__()
        self.lstm = nn.LSTM(3, 64, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(64, 1)
        self.squashed = squashed

    def forward(self, events, lengths):
        ordered, order = torch.sort(lengths, descending=True)
        packed = pack_padded_sequence(events[order], ordered, batch_first=True)
        _, (final, _) = self.lstm(packed)
        logits = self.linear(self.dropout(final[-1][torch.argsort(order)])).squeeze(-1)
        return torch.sigmoid(logits) if self.squashed else logits


def article_loop(padded, label, lengths, *, squashed, epochs):
    """The article's loop with its own cure of clipping; the mean loss of each epoch."""
    torch.manual_seed(0)
    model = ArticleNetwork(squashed)
    criterion = nn.BCELoss() if squashed else nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(label)).split(16):
            optimiser.zero_grad()
            loss = criterion(model(padded[batch], lengths[batch]), label[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / len(label))
    return losses


def test_packing_does_not_notice_that_lengths_outrun_the_steps():
    packed = pack_padded_sequence(torch.zeros(2, 150, 3), torch.tensor([200, 100]), batch_first=True)
    assert int(packed.batch_sizes.sum()) == 300  # rows that are promised
    assert len(packed.data) == 250  # rows that are there (pytorch/pytorch#146744)


@pytest.mark.parametrize("squashed", [True, False], ids=["sigmoid and BCELoss", "the article's cure"])
def test_lengths_from_before_the_cut_crash_with_either_loss_and_clipping(toy, squashed):
    padded, label, lengths = article_tensors(*toy)
    assert lengths.max() > padded.shape[1]
    with pytest.raises(RuntimeError, match=TOO_LONG):
        article_loop(padded, label, lengths, squashed=squashed, epochs=1)


@pytest.mark.parametrize("squashed", [True, False], ids=["sigmoid and BCELoss", "logits loss"])
def test_lengths_of_what_was_kept_train_smoothly_with_either_loss(toy, squashed):
    padded, label, lengths = article_tensors(*toy)
    losses = article_loop(padded, label, lengths.clamp(max=STEPS), squashed=squashed, epochs=6)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert all(later < 1.05 * earlier for earlier, later in itertools.pairwise(losses))


def test_our_loop_trains_on_the_same_tasks(toy):
    sequences, label = Ragged.from_list(toy[0]), np.array(toy[1])
    assert sequences.lengths.max() > STEPS
    for steps in (STEPS, 0):  # cut as the article cuts, and whole
        fitted = fit(sequences, label, sequences, label, replace(PRESETS["article"], epochs=4, steps=steps))
        losses = [epoch["train_loss"] for epoch in fitted.history]
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"use_last_only": False}, {"layers": 2}])
def test_our_model_refuses_the_articles_batch_with_a_sentence(toy, options):
    padded, _, lengths = article_tensors(*toy)
    with pytest.raises(DataError, match="expected from 1 to the 150 steps of the batch; take each length from what"):
        LSTMClassifier(3, **options)(padded, lengths)


@given(LENGTHS, st.integers(1, 30))
def test_a_length_is_accepted_if_and_only_if_it_is_in_the_batch(lengths, steps):
    if max(lengths) <= steps:
        check_lengths(torch.tensor(lengths), steps)
    else:
        with pytest.raises(DataError, match="take each length from what was kept after truncation"):
            check_lengths(torch.tensor(lengths), steps)
    with pytest.raises(DataError, match="lengths run from 0 to"):
        check_lengths(torch.tensor([0, *lengths]), steps)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 5), st.sampled_from(["pre", "post"]))
def test_no_batch_of_ours_has_a_length_beyond_its_steps(lengths, steps, size, side):
    ragged = Ragged.from_list([np.full((length, 1), number + 1.0) for number, length in enumerate(lengths)])
    kept = ragged.truncate(steps, side)
    assert kept.lengths.tolist() == [min(length, steps) for length in lengths]
    padded, real, _ = ragged.pad(steps, truncating=side)
    assert real.tolist() == kept.lengths.tolist()
    assert np.count_nonzero(padded, axis=(1, 2)).tolist() == real.tolist()
    for indices, events, own in iterate(Sequences(kept, torch.device("cpu")), size, np.random.default_rng(0)):
        check_lengths(own, events.shape[1])
        assert own.tolist() == kept.lengths[indices].tolist()
        for sequence, length, index in zip(events, own, indices, strict=True):
            assert (sequence[:length] == index + 1).all()


def test_offsets_that_promise_more_steps_than_there_are_make_no_sequences():
    with pytest.raises(DataError, match="offsets must rise from 0 to the 150 steps of the values"):
        Ragged(np.zeros((150, 3), np.float32), np.array([0, 200]))


def test_a_loss_that_is_not_finite_stops_with_its_epoch_and_sequences():
    random = np.random.default_rng(0)
    huge = [3e38 * random.choice([-1, 1], size=(2, 2000)) for _ in range(4)]  # sums of some leave float32
    sequences, label = Ragged.from_list(huge), np.array([0, 1, 0, 1])
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 1, in the batch of .*sequences \[\d"):
        fit(sequences, label, sequences, label, replace(PRESETS["article"], hidden=8))
