"""What one client has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

    def shares(self, fewest: int, most: int, random: np.random.Generator) -> list[int]:
        """The budget cut into parts, each of so many queries but for the last."""
        parts = random.integers(fewest, most, size=-(-self.budget // fewest), endpoint=True)
        ends = np.minimum(np.cumsum(parts), self.budget)
        return [part for part in np.diff(ends, prepend=0).tolist() if part]
