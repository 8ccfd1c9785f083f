"""What one attacker has and knows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.grid import Grid
from probewatch.corpus.shadows import MOST, Kind, ShadowCache, ShadowPlan, Shadows

FEWEST_CANDIDATES = 4  # that many copies of each still leave budget for


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
        shadow_count: how many of them, even.
        shadow_size: records that each is fitted on, at most: how many the attacker believes the target to have seen.
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
    shadow_count: int = 16
    shadow_size: int = MOST
    shadow_seed: int = 0

    def pick(self, cost: int, random: np.random.Generator, *, spent: int = 0) -> NDArray[np.int64]:
        """int64 (n,) the candidates that the budget allows at ``cost`` queries each, in random order."""
        rows = self.rows if len(self.rows) else random.permutation(len(self.candidates))
        count = max(1, (self.budget - spent) // cost)
        return random.permutation(rows[:count])

    def copies(self, limits: tuple[int, int], random: np.random.Generator) -> int:
        """How many queries to spend on each candidate, drawn evenly over the logarithm between the limits."""
        fewest, most = limits
        top = max(fewest, min(most, self.budget // FEWEST_CANDIDATES))
        return int(np.exp(random.uniform(np.log(fewest), np.log(top + 1))))

    def shadows(self) -> Shadows:
        """Models fitted on halves of the attacker's own records, on no candidate."""
        return self._shadows(self.own, self.own_labels)

    def online_shadows(self) -> tuple[Shadows, NDArray[np.bool_]]:
        """Models fitted on halves of the candidates, and bool (M, R) which candidates each was given.

        Where the candidates are too few for models of the wanted size, own records join them.
        """
        more = max(0, 2 * self.shadow_size - len(self.candidates))
        shadows = self._shadows(
            np.concatenate([self.candidates, self.own[:more]]), np.concatenate([self.labels, self.own_labels[:more]])
        )
        return shadows, shadows.trained[:, : len(self.candidates)]

    def _shadows(self, records: NDArray[np.float64], labels: NDArray[np.int64]) -> Shadows:
        plan = ShadowPlan(self.kind, self.shadow_seed, self.shadow_count, self.shadow_size)
        return self.cache.get(records, labels, plan)
