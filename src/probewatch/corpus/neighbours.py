"""Attacks that ask around a candidate: its neighbours' loss, and labels under noise."""

from __future__ import annotations

import numpy as np

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.sources import Guess, Source
from probewatch.corpus.thresholds import logit, of_label

NEIGHBOURS = (4, 40)  # fewest and most for a candidate
COLUMNS_SHARE = (0.05, 0.3)  # of a neighbour's columns that differ from the candidate's
COPIES = (5, 50)  # under noise, fewest and most for a candidate
NOISE = (0.5, 1.5)  # of the noisiest copy, in each column's own deviations


def ask_neighbourhood(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the model is surer of the true class than at neighbours a few changed columns away.

    Mattern, Mireshghallah, Jin, Schölkopf, Sachan, Berg-Kirkpatrick 2023, "Membership Inference Attacks against
    Language Models via Neighbourhood Comparison", section 3. There a few words are replaced by others that fit; here
    a few columns take the values of one of the attacker's own records, and log-odds take the place of the loss, which
    is next to 0 for whatever a classifier is sure of.
    """
    count = attacker.copies(NEIGHBOURS, random)
    rows = attacker.pick(count + 1, random)
    inputs = np.repeat(attacker.candidates[rows], count + 1, axis=0)
    donors = attacker.own[random.integers(len(attacker.own), size=len(inputs))]
    differs = random.random(inputs.shape) < random.uniform(*COLUMNS_SHARE)
    differs[:: count + 1] = False  # the candidate itself
    answers = yield attacker.grid.mix(differs, donors, inputs)
    odds = logit(of_label(answers, np.repeat(attacker.labels[rows], count + 1))).reshape(len(rows), -1)
    return Guess(rows, odds[:, 0] - odds[:, 1:].mean(axis=1))


def ask_label_under_noise(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the label stays right under much noise. Looks at labels alone.

    Choquette-Choo, Tramèr, Carlini, Papernot 2021, "Label-Only Membership Inference Attacks", section 3.4 (random
    noise as a stand-in for the distance to the decision boundary).
    """
    count = attacker.copies(COPIES, random)
    rows = attacker.pick(count + 1, random)
    amount = np.linspace(0.0, random.uniform(*NOISE), count + 1)
    amounts = np.concatenate([np.append(0.0, random.permutation(amount[1:])) for _ in rows])
    clean = np.repeat(attacker.candidates[rows], count + 1, axis=0)
    inputs = np.where(amounts[:, None] > 0, attacker.grid.jitter(clean, amounts[:, None], random), clean)
    answers = yield inputs
    right = answers.argmax(axis=1) == np.repeat(attacker.labels[rows], count + 1)
    right = right.reshape(len(rows), -1)
    return Guess(rows, right.mean(axis=1) + right[:, 0])  # a wrong label without noise comes last
