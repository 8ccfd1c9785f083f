"""Attacks that ask about each candidate once and look at how sure the model is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.sources import Answers, Guess, Source

TINY = 1e-12  # below which a probability counts as this


def ask_confidence(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the model is sure of the true class.

    Yeom, Giacomelli, Fredrikson, Jha 2018, "Privacy Risk in Machine Learning", section III-A (bounded loss).
    """
    return _ask_once(attacker, random, lambda answers, labels: answers[np.arange(len(labels)), labels])


def _ask_once(
    attacker: Attacker,
    random: np.random.Generator,
    score: Callable[[Answers, NDArray[np.int64]], NDArray[np.float64]],
) -> Source:
    rows = attacker.pick(1, random)
    answers = yield attacker.candidates[rows]
    return Guess(rows, score(answers, attacker.labels[rows]))
