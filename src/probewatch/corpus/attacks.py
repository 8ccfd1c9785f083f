"""The table of membership-inference attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.boundary import ask_boundary_distance
from probewatch.corpus.neighbours import (
    ask_blind_walk,
    ask_completions,
    ask_label_once,
    ask_label_under_noise,
    ask_neighbourhood,
    ask_whether_loss_rises,
)
from probewatch.corpus.ratios import ask_lira_offline, ask_lira_online, ask_rmia
from probewatch.corpus.sources import Source
from probewatch.corpus.synthesis import ask_shadow_synthesis
from probewatch.corpus.thresholds import (
    ask_calibrated,
    ask_confidence,
    ask_entropy,
    ask_modified_entropy,
    ask_top_confidence,
)


@dataclass(frozen=True)
class Attack:
    """One way to find out which candidates were trained on.

    Args:
        start: gives the source for a session.
        text: what it does, in a sentence.
        paper: who described it.
        further: it is in no mix that does not name it.
    """

    start: Callable[[Attacker, np.random.Generator], Source]
    text: str
    paper: str
    further: bool = False


ATTACKS: dict[str, Attack] = {
    "threshold_confidence": Attack(
        ask_confidence, "asks about each candidate once; the true class is certain to members", "Yeom 2018"
    ),
    "threshold_top_confidence": Attack(
        ask_top_confidence, "asks about each candidate once; some class is certain to members", "Salem 2019"
    ),
    "threshold_entropy": Attack(
        ask_entropy, "asks about each candidate once; answers to members have low entropy", "Salem 2019"
    ),
    "threshold_modified_entropy": Attack(
        ask_modified_entropy,
        "asks about each candidate once; answers to members have low modified entropy",
        "Song and Mittal 2021",
    ),
    "difficulty_calibration": Attack(
        ask_calibrated, "asks about each candidate once; shadow models say how hard it is", "Watson 2022"
    ),
    "shadow_synthesis": Attack(
        ask_shadow_synthesis,
        "climbs to records that the model is sure of, and fits shadow models on them",
        "Shokri 2017",
    ),
    "lira_offline": Attack(
        ask_lira_offline, "asks about each candidate and noisy copies; shadow models saw no candidate", "Carlini 2022"
    ),
    "lira_online": Attack(
        ask_lira_online, "asks about each candidate and noisy copies; half the shadow models saw it", "Carlini 2022"
    ),
    "rmia": Attack(ask_rmia, "compares each candidate with a population that it asks about too", "Zarifzadeh 2024"),
    "neighbourhood": Attack(
        ask_neighbourhood, "compares each candidate with neighbours a few columns away", "Mattern 2023"
    ),
    "label_noise": Attack(
        ask_label_under_noise, "sees labels only; those of members withstand noise", "Choquette-Choo 2021"
    ),
    "label_boundary": Attack(
        ask_boundary_distance, "sees labels only; members are far from the decision boundary", "Choquette-Choo 2021"
    ),
    "label_walk": Attack(
        ask_blind_walk, "sees labels only; walks away until the label turns", "Maini 2021", further=True
    ),
    "label_once": Attack(
        ask_label_once, "sees labels only; asks once near each candidate, where shadow models differ", "Wu 2024",
        further=True,
    ),
    "loss_rise": Attack(
        ask_whether_loss_rises, "counts how often noise makes the model less sure", "Jayaraman 2021", further=True
    ),
    "completion": Attack(
        ask_completions, "asks about each candidate with every value of a column it does not know", "Yeom 2018",
        further=True,
    ),
}  # fmt: skip
"""By family, as ``labels.csv`` names it."""
