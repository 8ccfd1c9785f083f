"""Attacks that ask around a candidate: its neighbours' loss, labels under noise, near it, or of what might be it."""

from __future__ import annotations

import numpy as np

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.sources import Guess, Source
from probewatch.corpus.thresholds import TINY, logit, of_label

NEIGHBOURS = (4, 40)  # fewest and most for a candidate
COLUMNS_SHARE = (0.05, 0.3)  # of a neighbour's columns that differ from the candidate's
COPIES = (5, 50)  # under noise, fewest and most for a candidate
NOISE = (0.5, 1.5)  # of the noisiest copy, in each column's own deviations
SMALL_NOISE = (0.02, 0.3)  # of Merlin's copies, likewise
WALKS = (1, 4)  # from each candidate
STEPS = (5, 50)  # of a walk, at most
FAR = (1.0, 4.0)  # where a walk ends at the latest, likewise
TOGETHER = (1, 8)  # candidates that are walked from at a time
GUESSES = (2, 12)  # values of what the attacker does not know of a candidate
CRAFTED = 12  # inputs near a candidate from which the telling one is taken


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


def ask_whether_loss_rises(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where noise nearly always makes the model less sure of the true class.

    Jayaraman, Wang, Knipmeyer, Gu, Evans 2021, "Revisiting Membership Inference Under Realistic Assumptions"
    (Merlin). Where noise changes nothing, as trees often have it, that counts half.
    """
    count = attacker.copies(COPIES, random)
    rows = attacker.pick(count + 1, random)
    inputs = np.repeat(attacker.candidates[rows], count + 1, axis=0)
    noisy = attacker.grid.jitter(inputs, np.exp(random.uniform(*np.log(SMALL_NOISE))), random)
    noisy[:: count + 1] = inputs[:: count + 1]
    answers = yield noisy
    sure = of_label(answers, np.repeat(attacker.labels[rows], count + 1)).reshape(len(rows), -1)
    fell = np.sign(sure[:, :1] - sure[:, 1:]).mean(axis=1)
    return Guess(rows, fell + TINY * logit(sure[:, 0]))


def ask_blind_walk(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where one walks far in a random direction before the label turns. Looks at labels alone.

    Maini, Yaghini, Papernot 2021, "Dataset Inference: Ownership Resolution in Machine Learning" (Blind Walk).
    """
    walks, together = int(random.integers(*WALKS, endpoint=True)), int(random.integers(*TOGETHER, endpoint=True))
    steps, far = int(random.integers(*STEPS, endpoint=True)), random.uniform(*FAR)
    rows, left = attacker.pick(1, random), attacker.budget
    distance: list[float] = []
    while left > 0 and len(distance) < len(rows):
        few = rows[len(distance) : len(distance) + together][:left]
        answers = yield attacker.candidates[few]
        left -= len(few)
        right = np.repeat(answers.argmax(axis=1) == attacker.labels[few], walks)  # or the distance is 0
        start = np.repeat(attacker.candidates[few], walks, axis=0)
        ways = random.standard_normal(start.shape) * attacker.grid.scale * far / steps
        reached = np.zeros(len(start))
        on = np.flatnonzero(right)
        for step in range(1, steps + 1):
            on = on[: max(left, 0)]
            if not len(on):
                break
            answers = yield attacker.grid.snap(start[on] + step * ways[on])
            left -= len(on)
            on = on[answers.argmax(axis=1) == np.repeat(attacker.labels[few], walks)[on]]
            reached[on] = step
        distance += (reached.reshape(len(few), -1).mean(axis=1) / steps).tolist()
    return Guess(rows[: len(distance)], np.array(distance))


def ask_completions(attacker: Attacker, random: np.random.Generator) -> Source:
    """Who does not know a column of a candidate asks with every value; a member is where one of them is certain.

    Yeom and others 2018, "Privacy Risk in Machine Learning", section IV (attribute inference by membership): the
    value that the model is surest of is taken for the true one.
    """
    column = int(random.choice(attacker.grid.fields))
    values = attacker.grid.span(column, int(random.integers(*GUESSES, endpoint=True)))[: attacker.budget]
    rows = attacker.pick(len(values), random)
    inputs = np.repeat(attacker.candidates[rows], len(values), axis=0)
    unknown = np.arange(len(attacker.grid)) == column
    answers = yield attacker.grid.mix(unknown, np.tile(values, (len(rows), 1)), inputs)
    sure = of_label(answers, np.repeat(attacker.labels[rows], len(values)))
    return Guess(rows, sure.reshape(len(rows), -1).max(axis=1))


def ask_label_once(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the label is right at an input near it that only models trained on it get right.

    Wu, Qiu, Guo, Li, Zhang 2024, "You Only Query Once: An Efficient Label-Only Membership Inference Attack".
    There that input is found by descent; here it is the best of some noisy copies. Looks at labels alone.
    """
    rows = attacker.pick(1, random)
    labels = np.repeat(attacker.labels[rows], CRAFTED)
    near = np.repeat(attacker.candidates[rows], CRAFTED, axis=0)
    amounts = np.tile(np.linspace(0.0, random.uniform(*NOISE), CRAFTED), len(rows))[:, None]
    near = np.where(amounts > 0, attacker.grid.jitter(near, amounts, random), near)
    shadows, trained = attacker.online_shadows()
    inside = np.repeat(trained[:, rows], CRAFTED, axis=1)
    sure = shadows.of_label(near, labels, int(attacker.labels.max()) + 1)
    gap = np.mean(sure * inside, axis=0) - np.mean(sure * ~inside, axis=0)
    best = gap.reshape(len(rows), -1).argmax(axis=1)
    asked = near.reshape(len(rows), CRAFTED, -1)[np.arange(len(rows)), best]
    answers = yield asked
    right = answers.argmax(axis=1) == attacker.labels[rows]
    return Guess(rows, right + TINY * gap.reshape(len(rows), -1).max(axis=1))
