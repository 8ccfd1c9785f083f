"""Attacks that compare the model's answers with those of shadow models: LiRA and RMIA."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.shadows import Shadows
from probewatch.corpus.sources import Guess, Source
from probewatch.corpus.thresholds import TINY, logit, of_label

QUERIES = (2, 50)  # fewest and most for a candidate: itself and its augmentations
NOISE = (0.01, 0.1)  # of an augmentation, in each column's own deviations
LEAST_DEVIATION = 0.05  # of logits: shadows that all agree are no proof
POPULATION_SHARE = (0.1, 0.4)  # of RMIA's budget
OFFLINE_A = 0.3  # RMIA, appendix B.2.2: how far a model's answers to members and others lie apart


def ask_lira_offline(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the logit is higher than models that were not trained on it would have it.

    Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, "Membership Inference Attacks From First Principles", section
    IV (algorithm 1 with one-sided test, equation 4; a variance for all candidates, section VI-C; queries on
    augmentations, section VI-C).
    """
    rows, inputs = _augment(attacker, random)
    answers = yield inputs.reshape(-1, inputs.shape[2])
    observed = _logits_of(answers, attacker.labels[rows], inputs.shape[:2])
    usual = _shadow_logits(attacker.shadows(), inputs, attacker.labels[rows], answers.shape[1])
    z = (observed - usual.mean(axis=0)) / _deviation(usual, np.ones(usual.shape[:2], np.bool_))
    return Guess(rows, z.mean(axis=1))


def ask_lira_online(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the logit is likelier under models trained on it than under models that were not.

    Carlini and others 2022, "Membership Inference Attacks From First Principles", algorithm 1 (online). Half of the
    shadow models are fitted on each candidate. Both densities have the same variance: with two, a target that is surer
    than any shadow model lies in the tails of both, where the wider one wins whoever was a member.
    """
    rows, inputs = _augment(attacker, random)
    answers = yield inputs.reshape(-1, inputs.shape[2])
    observed = _logits_of(answers, attacker.labels[rows], inputs.shape[:2])
    shadows, trained = attacker.online_shadows()
    inside = trained[:, rows]
    usual = _shadow_logits(shadows, inputs, attacker.labels[rows], answers.shape[1])
    within, without = _mean_where(usual, inside), _mean_where(usual, ~inside)
    spread = 0.5 * (_deviation(usual, inside) ** 2 + _deviation(usual, ~inside) ** 2)
    likelihood = ((observed - without) ** 2 - (observed - within) ** 2) / (2.0 * spread)
    return Guess(rows, likelihood.mean(axis=1))


def ask_rmia(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the answer rose more, against reference models, than those to most of a population did.

    Zarifzadeh, Liu, Shokri 2024, "Low-Cost High-Power Membership Inference Attacks", section 3 (equations 2 to 4,
    offline form of appendix B.2.2, gamma 1). The population is asked about too: a block of the attacker's own records.
    """
    count = int(np.clip(attacker.budget * random.uniform(*POPULATION_SHARE), 1, len(attacker.own)))
    population = random.choice(len(attacker.own), count, replace=False)
    rows = attacker.pick(1, random, spent=count)
    inputs = np.concatenate([attacker.own[population], attacker.candidates[rows]])
    labels = np.concatenate([attacker.own_labels[population], attacker.labels[rows]])
    order = random.permutation(len(inputs)) if random.random() < 0.5 else np.arange(len(inputs))
    asked = yield inputs[order]
    answers = np.empty_like(asked)
    answers[order] = asked
    shadows = attacker.shadows()
    untrained = np.ones((len(shadows), len(inputs)), np.bool_)
    untrained[:, :count] = ~shadows.trained[:, population]
    outside = _mean_where(shadows.of_label(inputs, labels, answers.shape[1]), untrained)
    reference = 0.5 * ((1.0 + OFFLINE_A) * outside + (1.0 - OFFLINE_A))
    ratio = of_label(answers, labels) / reference
    beaten = np.searchsorted(np.sort(ratio[:count]), ratio[count:], side="right") / count
    return Guess(rows, beaten + TINY * ratio[count:])  # between equals the ratio itself decides


def _augment(attacker: Attacker, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """int64 (R,) candidates and (R, A, D) what is asked about each: itself and noisy copies."""
    queries = attacker.copies(QUERIES, random)
    rows = attacker.pick(queries, random)
    inputs = np.repeat(attacker.candidates[rows][:, None], queries, axis=1)
    amount = np.exp(random.uniform(*np.log(NOISE)))
    noisy = attacker.grid.jitter(inputs[:, 1:].reshape(-1, inputs.shape[2]), amount, random)
    inputs[:, 1:] = noisy.reshape(len(rows), queries - 1, -1)
    return rows, inputs


def _logits_of(answers: NDArray[np.float64], labels: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(R, A) logits of the true class."""
    return logit(of_label(answers, np.repeat(labels, shape[1]))).reshape(shape)


def _shadow_logits(
    shadows: Shadows, inputs: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """(M, R, A) logits of the true class."""
    R, A, D = inputs.shape
    answers = shadows.of_label(inputs.reshape(-1, D), np.repeat(labels, A), classes)
    return logit(answers).reshape(-1, R, A)


def _deviation(logits: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(A,) deviation within a candidate, the same for all of them, from (M, R, A) logits and bool (M, R)."""
    weight = used[:, :, None]
    mean = _mean_where(logits, used)
    count = max(1, int(used.sum()) - int(used.any(axis=0).sum()))
    spread = np.sum(np.where(weight, (logits - mean) ** 2, 0.0), axis=(0, 1)) / count
    found: NDArray[np.float64] = np.sqrt(spread + LEAST_DEVIATION**2)
    return found


def _mean_where(values: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the M models that are used, of all where none is: (M, R) or (M, R, A) and bool (M, R)."""
    used = np.where(used.any(axis=0), used, True)
    weight = used if values.ndim == 2 else used[:, :, None]
    found: NDArray[np.float64] = np.sum(values * weight, axis=0) / weight.sum(axis=0)
    return found
