"""The table of membership-inference attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.sources import Source
from probewatch.corpus.thresholds import ask_confidence

Attack = Callable[[Attacker, np.random.Generator], Source]


@dataclass(frozen=True)
class MembershipAttack:
    """One way to find out who was a member.

    Args:
        start: gives the source for a session.
        text: what it does, in a sentence.
        paper: who described it.
    """

    start: Attack
    text: str
    paper: str


ATTACKS: dict[str, MembershipAttack] = {
    "threshold_confidence": MembershipAttack(
        ask_confidence,
        "asks about each candidate once; a member is where the model is sure of the true class",
        "Yeom 2018",
    ),
}
"""By family, as ``labels.csv`` names it."""
