"""Attacks that ask about each candidate once and look at how sure the model is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.sources import Answers, Guess, Source

TINY = 1e-7  # probabilities are kept so far from 0 and 1, which floats of 32 bits do not tell apart any finer
LEAST_DOUBT = 1e-2  # in a probability: logits beyond are noise of models of a few trees, which say 0 or 1 outright

Score = Callable[[Answers, NDArray[np.int64]], NDArray[np.float64]]


def of_label(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) probability of each input's own class."""
    found: NDArray[np.float64] = answers[np.arange(len(labels)), labels]
    return found


def log_loss(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of any shape: minus the logarithm of the true class's probability, finite."""
    loss: NDArray[np.float64] = -np.log(np.clip(probability, TINY, None))
    return loss


def logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of any shape: the log-odds of the true class, cut where models hardly tell probabilities apart."""
    kept = np.clip(probability, LEAST_DOUBT, 1.0 - LEAST_DOUBT)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds


def ask_confidence(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the model is sure of the true class.

    Yeom, Giacomelli, Fredrikson, Jha 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to
    Overfitting", section III-B (adversary 2, threshold on the loss).
    """
    return _ask_once(attacker, random, of_label)


def ask_top_confidence(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the model is sure of whatever class.

    Salem, Zhang, Humbert, Berrang, Fritz, Backes 2019, "ML-Leaks", section V (adversary 3, no shadow model).
    """
    return _ask_once(attacker, random, lambda answers, _: answers.max(axis=1))


def ask_entropy(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the answer's entropy is low.

    Salem and others 2019, "ML-Leaks", section V (adversary 3, with the entropy as its statistic).
    """

    def score(answers: Answers, _: NDArray[np.int64]) -> NDArray[np.float64]:
        entropy: NDArray[np.float64] = np.sum(answers * log_loss(answers), axis=1)
        return -entropy

    return _ask_once(attacker, random, score)


def ask_modified_entropy(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the modified entropy is low, which unlike entropy is high if a wrong class is certain.

    Song, Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", section 3.2.2, equation 8.
    """

    def score(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        mine = of_label(answers, labels)
        each = answers * log_loss(1.0 - answers)
        modified: NDArray[np.float64] = (1.0 - mine) * log_loss(mine) + each.sum(axis=1) - of_label(each, labels)
        return -modified

    return _ask_once(attacker, random, score)


def ask_calibrated(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the model is surer of the true class than models that were not trained on it.

    Watson, Guo, Cormode, Sablayrolles 2022, "On the Importance of Difficulty Calibration in Membership Inference
    Attacks", section 3, equation 4.
    """
    rows = attacker.pick(1, random)
    inputs, labels = attacker.candidates[rows], attacker.labels[rows]
    answers = yield inputs
    shadows = attacker.shadows()
    usual = log_loss(shadows.of_label(inputs, labels, answers.shape[1])).mean(axis=0)
    return Guess(rows, usual - log_loss(of_label(answers, labels)))


def _ask_once(attacker: Attacker, random: np.random.Generator, score: Score) -> Source:
    rows = attacker.pick(1, random)
    answers = yield attacker.candidates[rows]
    return Guess(rows, score(answers, attacker.labels[rows]))
