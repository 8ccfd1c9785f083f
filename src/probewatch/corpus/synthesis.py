"""Shokri's attack: records made up by hill climbing, shadow models of them, and an attack model of those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.grid import Grid
from probewatch.corpus.shadows import ShadowPlan, fit_shadows
from probewatch.corpus.sources import Answers, Guess, Inputs, Source
from probewatch.corpus.thresholds import of_label

CLIMB_SHARE = (0.4, 0.8)  # of the budget; the rest goes to candidates
CLIMBERS = (1, 12)  # hill climbs at a time
SURE = 0.6  # Shokri's conf_min: from here on a record may be taken
REJECTS = 5  # Shokri's rej_max: after so many in a row fewer columns are changed
COLUMNS_SHARE = 0.5  # Shokri's k_max, as a share of the columns that vary
STEPS = 60  # after so many without success a climb begins anew
SHADOWS = 2
TREES = 6  # of a shadow model
OWN = 150  # records of the attacker's that join the made-up ones, at most


@dataclass
class _Climb:
    """K climbs at once (Shokri 2017, algorithm 1), each towards a class. Has state: where each of them stands."""

    grid: Grid
    goal: NDArray[np.int64]  # (K,)
    best: Inputs  # (K, D)
    height: NDArray[np.float64]  # (K,) probability of the goal at the best
    columns: NDArray[np.float64]  # (K,) how many are changed
    rejects: NDArray[np.int64]  # (K,) in a row
    steps: NDArray[np.int64]  # (K,)

    @classmethod
    def start(cls, climbers: int, grid: Grid, random: np.random.Generator) -> _Climb:
        zeros = np.zeros(climbers, np.int64)
        return cls(
            grid=grid,
            goal=zeros.copy(),
            best=grid.draw(climbers, random),
            height=np.full(climbers, -1.0),
            columns=np.full(climbers, max(1.0, COLUMNS_SHARE * len(grid.free))),
            rejects=zeros.copy(),
            steps=zeros.copy(),
        )

    def propose(self, random: np.random.Generator) -> Inputs:
        """(K, D) the best with some columns drawn anew; a climb's first is its start."""
        drawn = self.grid.draw(len(self.best), random)
        changed = random.random(drawn.shape) * len(self.grid.free) < self.columns[:, None]
        changed &= (self.height >= 0)[:, None]
        return self.grid.mix(changed, drawn, self.best)

    def learn(self, inputs: Inputs, answers: Answers, random: np.random.Generator) -> NDArray[np.bool_]:
        """bool (K,) which of the proposals are taken as records; those climbs begin anew."""
        fresh = self.height < 0
        self.goal[fresh] = random.integers(answers.shape[1], size=int(fresh.sum()))
        height = of_label(answers, self.goal)
        higher = height >= self.height
        self.best[higher], self.height[higher] = inputs[higher], height[higher]
        self.rejects = np.where(higher, 0, self.rejects + 1)
        self.steps += 1
        tired = self.rejects > REJECTS
        self.columns[tired] = np.maximum(1.0, self.columns[tired] / 2.0)
        self.rejects[tired] = 0
        sure = higher & (height > SURE) & (answers.argmax(axis=1) == self.goal)
        taken: NDArray[np.bool_] = sure & (random.random(len(height)) < height)
        self._restart(taken | (self.steps >= STEPS), random)
        return taken

    def _restart(self, which: NDArray[np.bool_], random: np.random.Generator) -> None:
        count = int(which.sum())
        if count:
            self.best[which] = self.grid.draw(count, random)
            self.height[which] = -1.0
            self.columns[which] = max(1.0, COLUMNS_SHARE * len(self.grid.free))
            self.rejects[which] = self.steps[which] = 0


def ask_shadow_synthesis(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the answer looks like a shadow model's to what it was trained on.

    Shokri, Stronati, Song, Shmatikov 2017, "Membership Inference Attacks Against Machine Learning Models", section V:
    the model itself is asked for records that it is sure of (algorithm 1), shadow models are fitted on them, and an
    attack model on what those answer to records they saw and to others. The attacker's own records join the made-up
    ones, or they would be too few within the budgets that real clients stay in.
    """
    climbing = max(1, int(attacker.budget * random.uniform(*CLIMB_SHARE)))
    climb = _Climb.start(int(random.integers(*CLIMBERS, endpoint=True)), attacker.grid, random)
    joined = random.permutation(len(attacker.own))[:OWN]
    made, classes, spent = [attacker.own[joined]], [attacker.own_labels[joined]], 0
    while spent < climbing:
        inputs = climb.propose(random)
        answers = yield inputs
        taken = climb.learn(inputs, answers, random)
        made.append(inputs[taken])
        classes.append(answers[taken].argmax(axis=1))
        spent += len(inputs)
    rows = attacker.pick(1, random, spent=spent)
    answers = yield attacker.candidates[rows]
    return Guess(rows, _judge(attacker, np.concatenate(made), np.concatenate(classes), answers, rows, random))


def _judge(
    attacker: Attacker,
    records: Inputs,
    classes: NDArray[np.int64],
    answers: Answers,
    rows: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """(R,) the attack model's score: a linear discriminant of what shadows answer to what they saw and what not."""
    seed = int(random.integers(2**31))
    shadows = fit_shadows(records, classes, ShadowPlan("trees", seed, SHADOWS, trees=TREES))
    shown = shadows.predict(records, answers.shape[1])
    looks = np.concatenate([_looks(each, classes) for each in shown])
    attack = np.linalg.lstsq(looks, shadows.trained.ravel().astype(np.float64))[0]
    score: NDArray[np.float64] = _looks(answers, attacker.labels[rows]) @ attack
    return score


def _looks(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 5) of an answer: its three highest probabilities, that of the true class, and 1."""
    top = -np.sort(-answers, axis=1)[:, :3]
    padded = np.pad(top, ((0, 0), (0, 3 - top.shape[1])))
    return np.column_stack([padded, of_label(answers, labels), np.ones(len(labels))])
