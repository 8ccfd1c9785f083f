"""What one attacker has and knows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.grid import Grid
from probewatch.corpus.shadows import Kind, ShadowCache


@dataclass(frozen=True)
class Attacker:
    """What one attacker has and knows for a session. Nothing in it says who is a member.

    Args:
        candidates: (R, D) records whose membership is in question.
        labels: int64 (R,) their classes, as column numbers of the answers.
        own: (P, D) the attacker's own records, none of which was trained on.
        own_labels: int64 (P,).
        grid: of the model's inputs.
        budget: queries to spend, at least 1. An attack asks about as many candidates as that allows, one at least, and
            overspends for that one only.
        rows: int64 (Q,) the candidates to ask about, the most important first; all of them where empty. Sessions that
            share ``candidates`` share their shadow models too.
        cache: the shadow models fitted so far, shared between attackers.
        kind: of the shadow models: what the attacker believes the target to be.
        shadow_seed: attackers with the same seed and records share their shadow models.
    """

    candidates: NDArray[np.float64]
    labels: NDArray[np.int64]
    own: NDArray[np.float64]
    own_labels: NDArray[np.int64]
    grid: Grid
    budget: int
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    cache: ShadowCache = field(default_factory=ShadowCache)
    kind: Kind = "trees"
    shadow_seed: int = 0

    def pick(self, cost: int, random: np.random.Generator, *, spent: int = 0) -> NDArray[np.int64]:
        """int64 (n,) the candidates that the budget allows at ``cost`` queries each, in random order."""
        rows = self.rows if len(self.rows) else random.permutation(len(self.candidates))
        count = max(1, (self.budget - spent) // cost)
        return random.permutation(rows[:count])
