"""The article's network and loaders, as it uses them: fixed padding, batches sorted and packed, every time anew."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

from probewatch.data.ragged import Ragged

STEPS = 150  # the article's fixed length


class ArticleNetwork(nn.Module):
    """LSTM, last valid state, dropout, linear; its weights have the names of ``LSTMClassifier``'s."""

    def __init__(self, features: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, events: Tensor, lengths: Tensor) -> Tensor:
        """(B,) logits of (B, T, F) events."""
        ordered, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(events[order], ordered, batch_first=True)
        _, (hidden, _) = self.lstm(packed)  # (1, B, H)
        restore = order.argsort()
        return self.linear(self.dropout(hidden[-1][restore])).squeeze(-1)  # type: ignore[no-any-return]


def loader_of(sequences: Ragged, label: NDArray[Any], batch: int, *, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of (events (B, 150, F), label (B,), lengths (B,))."""
    padded, lengths, _ = sequences.pad(STEPS)
    parts = torch.from_numpy(padded), torch.from_numpy(label).float(), torch.from_numpy(lengths)
    return DataLoader(TensorDataset(*parts), batch_size=batch, shuffle=shuffle)
