"""What one client has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Inputs


@dataclass(frozen=True)
class Client:
    """What one client has for a session.

    Args:
        records: (n, D) its records, at least 1.
        grid: of the model's inputs.
        budget: queries to make, at least 1; none makes more.
    """

    records: Inputs
    grid: Grid
    budget: int

    def pick(self, count: int, random: np.random.Generator) -> Inputs:
        """(count, D) of the records in random order, each again only after all."""
        rounds = -(-count // len(self.records))
        rows = np.concatenate([random.permutation(len(self.records)) for _ in range(rounds)])
        picked: Inputs = self.records[rows[:count]]
        return picked

    def nearest(self, inputs: Inputs, count: int) -> NDArray[np.int64]:
        """int64 (n, K) its records that are nearest to each of (n, D) inputs, nearest first, in columns' deviations.

        K is ``count``, or less where there are fewer records, but at least 2: of one record alone, that record twice.
        """
        from scipy.spatial import KDTree

        scale = np.where(self.grid.scale > 0, self.grid.scale, 1.0)
        count = min(count, len(self.records))
        found = KDTree(self.records / scale).query(inputs / scale, count)[1].reshape(len(inputs), count)
        return np.asarray(np.repeat(found, 2, axis=1) if count == 1 else found, np.int64)

    def shares(self, fewest: int, most: int, random: np.random.Generator) -> list[int]:
        """The budget cut into parts, each of so many queries but for the last."""
        parts = random.integers(fewest, most, size=-(-self.budget // fewest), endpoint=True)
        ends = np.minimum(np.cumsum(parts), self.budget)
        return [part for part in np.diff(ends, prepend=0).tolist() if part]
