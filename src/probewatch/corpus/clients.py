"""Benign uses of a model, and attacks on other things than membership, as query sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Source


@dataclass(frozen=True)
class Client:
    """What one client has for a session.

    Args:
        records: (n, D) its records, at least 1.
        grid: of the model's inputs.
        budget: queries to make, at least 1.
    """

    records: NDArray[np.float64]
    grid: Grid
    budget: int

    def pick(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """(count, D) of the records in random order, each again only after all."""
        rounds = -(-count // len(self.records))
        rows = np.concatenate([random.permutation(len(self.records)) for _ in range(rounds)])
        picked: NDArray[np.float64] = self.records[rows[:count]]
        return picked


@dataclass(frozen=True)
class Use:
    """One way to use a model.

    Args:
        start: gives the source for a session.
        text: what it does, in a sentence.
        records: whose records the client has: customers', those the model was trained on, or the attackers' own.
        attack: ``labels.csv``'s word for what it is.
    """

    start: Callable[[Client, np.random.Generator], Source]
    text: str
    records: Literal["customers", "members", "own"] = "customers"
    attack: Literal["none", "extraction", "evasion"] = "none"


def score_batch(client: Client, random: np.random.Generator) -> Source:
    """A job that scores a table of records, each once."""
    yield client.pick(client.budget, random)
    return None


USES: dict[str, Use] = {
    "batch": Use(score_batch, "a job scores a table of records, each once"),
}
"""By family, as ``labels.csv`` names it."""
