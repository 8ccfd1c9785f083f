"""Neighbouring flags of which at most one is set: a category that was written one-hot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MET = 5.0  # times that flags of no category would have been set together, by their shares


@dataclass(frozen=True)
class OneHot:
    """Columns ``first`` to ``end`` - 1, which are 0 but for at most one that is 1.

    Args:
        none: whether all may be 0, as where the first category has no column of its own.
    """

    first: int
    end: int
    none: bool

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def columns(self) -> slice:
        """Of the inputs."""
        return slice(self.first, self.end)

    def mend(self, flags: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
        """Where ``flags`` (n, K), each snapped alone, are no category, set the one that is largest in ``wanted``."""
        total = flags.sum(axis=1)
        wrong = np.flatnonzero((total > 1.0) | ((total < 1.0) & (not self.none)))
        flags[wrong] = 0.0
        flags[wrong, wanted[wrong].argmax(axis=1)] = 1.0

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """(count, K) flags of categories, each as likely as the others."""
        return self.rows()[random.integers(len(self) + self.none, size=count)]

    def rows(self) -> NDArray[np.float64]:
        """(K, K) or (K + 1, K), the flags of every category."""
        return np.eye(len(self) + self.none, len(self))


def find_one_hot(records: NDArray[np.float64], flags: NDArray[np.bool_]) -> tuple[OneHot, ...]:
    """The categories that (n, D) records hold as flags side by side.

    >>> kind = np.random.default_rng(0).integers(3, size=300)
    >>> find_one_hot(np.column_stack([np.eye(3)[kind], kind == 1]), np.ones(4, bool))
    (OneHot(first=0, end=3, none=False),)

    Args:
        flags: bool (D,) which columns hold 0 and 1 alone.

    Two flags of which no record has both, but which are so rare that this says nothing, are no category.
    """
    found = []
    first = 0
    while first < len(flags):
        end = first
        total: NDArray[np.float64] = np.zeros(len(records))
        while end < len(flags) and flags[end] and not np.any(total + records[:, end] > 1.0):
            total = total + records[:, end]
            end += 1
        if end - first > 1:
            share = records[:, first:end].mean(axis=0)
            met = len(records) * (share.sum() ** 2 - (share**2).sum()) / 2.0
            if total.all() or met >= MET:
                found.append(OneHot(first, end, not total.all()))
                first = end - 1
        first += 1
    return tuple(found)
