"""All that the feature step and the graph carry of a session, in one row of bytes.

A micro-batch meets its sessions in random order. Their state would lie in a dozen arrays, a page of memory in
each; as a row it is one place. The rows of a micro-batch are copied to small arrays, which the step and the
graph work on, and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.compiled import compiled, inner
from probewatch.data.state import State, new_state

LINE = 16  # words in a line of a processor's cache


@inner
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Element by element: an assignment of slices compiles seconds of error messages."""
    for j in range(len(target)):
        target[j] = source[j]


@compiled
def _load(rows, slot_of, home, begins, flat, bases, widths, states, first, last):  # type: ignore[no-untyped-def]
    for r in range(first, last):
        if begins[r]:
            states[r, :] = 0
            continue
        row, start = rows[slot_of[r]], 0
        for f in range(len(widths)):
            at = bases[f] + home[r] * widths[f]
            _copy(row[start : start + widths[f]], flat[at : at + widths[f]])
            start += widths[f]
        _copy(row[start : start + states.shape[1]], states[r])


@compiled
def _store(rows, slot_of, home, flat, bases, widths, states, first, last):  # type: ignore[no-untyped-def]
    for r in range(first, last):
        if home[r] != r:
            continue
        row, start = rows[slot_of[r]], 0
        for f in range(len(widths)):
            at = bases[f] + r * widths[f]
            _copy(flat[at : at + widths[f]], row[start : start + widths[f]])
            start += widths[f]
        _copy(states[r - first], row[start : start + states.shape[1]])


class Packed:
    """The rows of K sessions, and the small arrays of a micro-batch; both are changed by its calls.

    Args:
        size: K; memory is taken as rows are first used.
        batch: runs of a micro-batch, at most.
        anchor_width: see ``new_state``.
        state_width: of the graph's state.

    Attributes:
        rows: (K, W) uint32.
        features: the feature step's state of the micro-batch's runs, all arrays in one piece of memory.
        states: (batch, state_width) float32, the graph's before each run.
    """

    def __init__(self, size: int, batch: int, anchor_width: int, state_width: int) -> None:
        one: list[NDArray[Any]] = list(new_state(1, anchor_width))
        widths = [array.nbytes // 4 for array in one]  # in words; each array of the step has whole ones
        bases = [0]
        for width in widths:
            bases.append(-(-(bases[-1] + batch * width) // LINE) * LINE)
        self._flat = np.zeros(bases[-1], np.uint32)
        views = [
            self._flat[base : base + batch * width].view(array.dtype).reshape(batch, *array.shape[1:])
            for array, base, width in zip(one, bases, widths, strict=False)
        ]
        self.features = State(*views)
        self.states = np.zeros((batch, state_width), np.float32)
        self._bases, self._widths = np.array(bases[:-1], np.int64), np.array(widths, np.int64)
        self.rows = np.zeros((size, -(-(sum(widths) + state_width) // LINE) * LINE), np.uint32)

    def load(
        self, slot_of: NDArray[np.int64], home: NDArray[np.int64], begins: NDArray[np.bool_], first: int, last: int
    ) -> None:
        """Bring in what runs ``first`` to ``last`` go on from; the features of run ``r`` are at ``home[r]``."""
        if begins[first:last].all():
            self.states[first:last] = 0.0
            return
        states = self.states.view(np.uint32)
        _load(self.rows, slot_of, home, begins, self._flat, self._bases, self._widths, states, first, last)

    def store(
        self, slot_of: NDArray[np.int64], home: NDArray[np.int64], first: int, last: int, states: NDArray[np.float32]
    ) -> None:
        """Keep what runs ``first`` to ``last`` left: their features' state, and the graph's ``states`` after them."""
        after = states.view(np.uint32)
        _store(self.rows, slot_of, home, self._flat, self._bases, self._widths, after, first, last)
