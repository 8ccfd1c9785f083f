import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from probewatch.data.ragged import Ragged
from probewatch.learn.batches import CHUNK, Sequences, batch_indices, iterate

CPU = torch.device("cpu")


def _sequences(lengths, features=2):
    steps = np.arange(sum(lengths) * features, dtype=np.float32).reshape(-1, features)
    return Ragged(steps, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _padding_share(lengths, batches):
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - lengths.sum() / padded


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3000), st.integers(1, 40), st.none() | st.integers(0, 9))
def test_every_sequence_is_in_exactly_one_batch(lengths, size, seed):
    random = None if seed is None else np.random.default_rng(seed)
    batches = batch_indices(np.array(lengths), size, random)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_little_of_a_shuffled_batch_is_padding():
    random = np.random.default_rng(0)
    lengths = random.integers(50, 151, 4 * CHUNK)
    assert _padding_share(lengths, batch_indices(lengths, 16, random)) < 0.02
    careless = [random.permutation(len(lengths))[:16] for _ in range(100)]
    assert np.mean([_padding_share(lengths[batch], [np.arange(16)]) for batch in careless]) > 0.25


def test_batches_for_scoring_go_from_short_to_long():
    lengths = np.array([5, 1, 9, 3, 3])
    assert [batch.tolist() for batch in batch_indices(lengths, 2)] == [[1, 3], [4, 0], [2]]


def test_batches_of_an_epoch_come_in_random_order_and_differ_from_epoch_to_epoch():
    lengths = np.arange(1, 201)
    first, second = (batch_indices(lengths, 10, np.random.default_rng(seed)) for seed in range(2))
    longest = [int(lengths[batch].max()) for batch in first]
    assert longest != sorted(longest)
    assert any(not np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_the_same_random_state_gives_the_same_batches():
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    first, second = (batch_indices(lengths, 7, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_members_of_a_chunk_are_drawn_from_the_whole_set():
    lengths = np.arange(3 * CHUNK) + 1  # sorted, so that an unshuffled chunk would hold neighbours only
    first = np.concatenate(batch_indices(lengths, CHUNK, np.random.default_rng(0))[:1])
    assert first.min() < CHUNK / 2
    assert first.max() > 2.5 * CHUNK


def test_a_batch_is_padded_to_its_own_longest_with_each_sequences_last_step():
    events, lengths = Sequences(_sequences([1, 4, 2], features=1), CPU).batch(np.array([2, 0]))
    assert events.tolist() == [[[5.0], [6.0]], [[0.0], [0.0]]]
    assert lengths.tolist() == [2, 1]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(1, 9))
def test_a_batch_holds_the_steps_of_its_sequences(lengths, size):
    sequences = _sequences(lengths)
    for indices, events, told in iterate(Sequences(sequences, CPU), size, np.random.default_rng(0)):
        assert events.shape == (len(indices), max(lengths[index] for index in indices), 2)
        for row, index in enumerate(indices):
            assert np.array_equal(events[row, : told[row]], sequences[index])


def test_sequences_that_may_not_be_written_to_are_served_without_a_warning():
    sequences = _sequences([2, 3])
    sequences.values.setflags(write=False)
    sequences.offsets.setflags(write=False)
    events, lengths = Sequences(sequences, CPU).batch(np.array([0]))
    events += 1.0
    lengths += 1
    assert sequences.values[0, 0] == 0.0
    assert sequences.lengths.tolist() == [2, 3]
