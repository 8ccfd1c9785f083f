"""LSTMClassifier: the article's network, for sequences of any length."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from probewatch.errors import DataError


class LSTMClassifier(nn.Module):
    """An LSTM whose last valid state (or every state) goes through dropout into one linear layer.

    Args:
        features: F, width of one step.
        hidden: H, units of each layer and direction.
        layers: stacked LSTM layers; dropout stands between them only if there is more than one.
        dropout: probability, before the linear layer and between layers.
        bidirectional: read each sequence from both ends too; doubles the width of the linear layer.
        use_last_only: take the final hidden state; otherwise unpack all outputs and gather the last
            valid one. The two give the same numbers.
        outputs: logits per step, 1 for two classes.
        skip: add a linear layer of the step's own features, which sum up the sequence so far, to the logit.
    """

    def __init__(
        self,
        features: int,
        hidden: int = 64,
        layers: int = 1,
        *,
        dropout: float = 0.5,
        bidirectional: bool = False,
        use_last_only: bool = True,
        outputs: int = 1,
        skip: bool = False,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, dropout=between, bidirectional=bidirectional)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden * (2 if bidirectional else 1), outputs)
        self.skip = nn.Linear(features, outputs, bias=False) if skip else None
        self.bidirectional = bidirectional
        self.use_last_only = use_last_only

    def forward(self, events: Tensor, lengths: Tensor) -> Tensor:
        """The logits of whole sequences.

        Args:
            events: (B, T, F) float32, padded behind each sequence's end with anything.
            lengths: (B,) int64 valid steps, from 1 to T.

        Returns:
            (B,) logits, or (B, outputs) where there is more than one.

        Raises:
            DataError: a length is below 1 or above T (the mistake that crashed the article's system).
        """
        check_lengths(lengths, events.shape[1])
        last = self._last_packed(events, lengths) if self.bidirectional else self._last(events, lengths)
        logits = self.linear(self.dropout(last))
        if self.skip is not None:
            logits = logits + self.skip(events[torch.arange(len(events)), lengths - 1])
        return logits.squeeze(-1)  # type: ignore[no-any-return]

    def every_step(self, events: Tensor) -> Tensor:
        """(B, T) or (B, T, outputs) logits after each step of (B, T, F) events; one direction only, no packing."""
        if self.bidirectional:
            raise DataError("a bidirectional model has no score before the end of a sequence; use one direction.")
        states = self._states(events)
        logits = self.linear(self.dropout(states))  # (T, B, outputs)
        if self.skip is not None:
            logits = logits + self.skip(events.transpose(0, 1))
        return logits.squeeze(-1).transpose(0, 1)  # type: ignore[no-any-return]

    def _states(self, events: Tensor) -> Tensor:
        """(T, B, H) states after each step of (B, T, F) events. In this order they lie in memory, and their gradient
        need not be copied."""
        states: Tensor = self.lstm(events)[0]
        return states.transpose(0, 1)

    def _last(self, events: Tensor, lengths: Tensor) -> Tensor:
        """(B, H) without packing, which torch's fast CPU path does not know: a forward LSTM cannot
        see the padding behind a sequence's end, so its output at length - 1 is the final state."""
        states = self._states(events)
        return states[lengths.to(states.device) - 1, torch.arange(len(events), device=states.device)]

    def _last_packed(self, events: Tensor, lengths: Tensor) -> Tensor:
        """(B, H or 2 H) by the article's way (A10): sort, pack, run, restore the order."""
        ordered, order = torch.sort(lengths.cpu(), descending=True)
        restore = torch.argsort(order).to(events.device)
        packed = pack_padded_sequence(events[order.to(events.device)], ordered, batch_first=True)
        outputs, (final, _) = self.lstm(packed)  # final (layers * directions, B, H)
        if self.use_last_only:
            last = torch.cat([final[-2], final[-1]], dim=1) if self.bidirectional else final[-1]
            return last[restore]
        states, _ = pad_packed_sequence(outputs, batch_first=True)  # (B, T, H or 2 H)
        hidden = self.lstm.hidden_size
        ends = states[torch.arange(len(states), device=states.device), ordered.to(states.device) - 1]
        if not self.bidirectional:
            return ends[restore]
        # the backward direction has read the whole sequence at step 0, not at length - 1
        return torch.cat([ends[:, :hidden], states[:, 0, hidden:]], dim=1)[restore]


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Raise DataError unless every length is from 1 to ``steps``.

    torch does not check it (pytorch/pytorch#146744) and reads past the end of its memory.
    """
    low, high = int(lengths.min()), int(lengths.max())
    if low < 1 or high > steps:
        raise DataError(
            f"lengths run from {low} to {high}, expected from 1 to the {steps} steps of the batch;"
            " take each length from what was kept after truncation."
        )
