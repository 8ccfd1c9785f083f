"""Shuffled batches of similar lengths, each padded to its own longest sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from probewatch.data.ragged import Ragged

CHUNK = 1024  # sequences that are sorted by length together: epochs stay random, 3 % padding


def batch_indices(
    lengths: NDArray[np.int64], size: int, random: np.random.Generator | None = None
) -> list[NDArray[np.int64]]:
    """Which sequences go into which batch.

    Args:
        lengths: (S,) steps of each sequence.
        size: sequences in a batch.
        random: shuffles first, then sorts inside chunks only, then shuffles the batches; without it
            all are sorted by length, which is best for scoring.

    Returns:
        arrays of sequence indices, every sequence exactly once.
    """
    if random is None:
        order = np.argsort(lengths, kind="stable")
        return [order[start : start + size] for start in range(0, len(order), size)]
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    return [batches[index] for index in random.permutation(len(batches))]


class Sequences:
    """The steps of a Ragged as tensors on one device, from which batches are gathered."""

    def __init__(self, sequences: Ragged, device: torch.device) -> None:
        # what Ragged.load gives may not be written to, which torch warns of: "W" copies that, and only that
        self.values = torch.from_numpy(np.require(sequences.values, requirements="W")).to(device)
        self.starts = torch.from_numpy(np.require(sequences.offsets[:-1], requirements="W"))
        self.lengths = torch.from_numpy(sequences.lengths)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(B, T, F) events padded with their own last step, and (B,) lengths; T is the longest's.

        In memory they lie step by step, as an LSTM reads them: otherwise it would copy them first.
        """
        chosen = torch.from_numpy(indices)
        lengths = self.lengths[chosen]
        steps = torch.minimum(torch.arange(int(lengths.max()))[:, None], lengths - 1)  # (T, B)
        rows = (self.starts[chosen] + steps).to(self.values.device)
        return self.values[rows].transpose(0, 1), lengths


class SequenceDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The article's map-style data set (A8): features, label and length of a sequence travel together.

    For torch's own ``DataLoader``, in tests and side-by-side measurements; :func:`iterate` is faster.

    >>> dataset = SequenceDataset(Ragged.from_list([[[1.0], [2.0]], [[3.0]]]), np.array([0, 1]), steps=3)
    >>> [part.tolist() for part in dataset[1]]
    [[[3.0], [0.0], [0.0]], 1.0, 1]

    Args:
        sequences: S sequences of F features.
        label: (S,) 0 or 1; class numbers if ``outputs`` is more than one.
        steps: each sequence is cut or padded to so many.
        outputs: logits per sequence.

    Attributes:
        tensors: (S, steps, F) float32 features, (S,) labels (float32, or int64 class numbers), (S,) int64
            lengths, taken from what the cut left; ``TensorDataset(*tensors)`` serves the same.
    """

    def __init__(self, sequences: Ragged, label: NDArray[Any], *, steps: int = 150, outputs: int = 1) -> None:
        padded, lengths, _ = sequences.pad(steps)
        kind = torch.float32 if outputs == 1 else torch.int64
        self.tensors = torch.from_numpy(padded), torch.as_tensor(label, dtype=kind), torch.from_numpy(lengths)

    def __len__(self) -> int:
        return len(self.tensors[2])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One sequence: (steps, F) features, its label, its length."""
        features, label, lengths = self.tensors
        return features[index], label[index], lengths[index]


def iterate(
    sequences: Sequences, size: int, random: np.random.Generator | None = None, views: int = 1
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Batches as (indices (B,), events (B, T, F), lengths (B,)); see :func:`batch_indices`.

    Of so many ``views`` laid end to end, each sequence comes in one that is drawn: the first half the time.
    """
    lengths = sequences.lengths.numpy()
    count = len(lengths) // views
    chance = np.full(views, 0.5 / max(views - 1, 1))
    chance[0] = 1.0 - chance[1:].sum()
    for indices in batch_indices(lengths[:count], size, random):
        if views > 1 and random is not None:
            indices = indices + count * random.choice(views, len(indices), p=chance)
        yield indices, *sequences.batch(indices)
