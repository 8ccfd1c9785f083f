"""The label-only attack that measures how far the decision boundary is, with HopSkipJump."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.bridge import ask_by_calls
from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Guess, Inputs, Predict, Source
from probewatch.errors import ConfigError

STARTS = 20  # own records asked about first, to start on the other side of the boundary
STARTS_SHARE = 0.1  # of the budget, at most
ROUNDS = (0, 2)  # HopSkipJump's max_iter; with 0 it only halves the way to the nearest start
DIRECTIONS = (4, 12)  # HopSkipJump's init_eval
HALVINGS = 9  # queries that each halving of a way takes, about


def ask_boundary_distance(attacker: Attacker, random: np.random.Generator) -> Source:
    """A member is where the nearest input of another label is far. Looks at labels alone.

    Choquette-Choo, Tramèr, Carlini, Papernot 2021, "Label-Only Membership Inference Attacks", section 3.4, and Li,
    Zhang 2021, "Membership Leakage in Label-Only Exposures", section 4.2; the distance is found by HopSkipJump (Chen,
    Jordan, Wainwright 2020) as the adversarial-robustness-toolbox has it. Columns are measured in their ranges.

    Raises:
        ConfigError: the adversarial-robustness-toolbox is not installed.
    """
    hop_skip_jump, black_box = _toolbox()
    starts = attacker.own[random.permutation(len(attacker.own))]
    starts = starts[: max(2, min(STARTS, int(STARTS_SHARE * attacker.budget)))]
    rows = attacker.pick(1, random)
    cube = _Cube(attacker.grid, attacker.candidates[rows], attacker.budget)
    rounds = int(random.integers(*ROUNDS, endpoint=True))
    directions = int(random.integers(*DIRECTIONS, endpoint=True))
    cost = HALVINGS + rounds * (HALVINGS + directions)

    def run(predict: Predict) -> Guess:
        there = predict(starts)
        cube.spent += len(starts)
        distance = np.zeros(len(rows))
        done = 0
        while done < len(rows) and (done == 0 or cube.spent < attacker.budget):
            few = slice(done, done + max(1, (attacker.budget - cube.spent) // cost))
            here = predict(attacker.candidates[rows[few]]).argmax(axis=1)
            cube.spent += len(here)
            for number, label in enumerate(here.tolist(), done):
                if label == attacker.labels[rows[number]]:  # or the distance is 0 (Choquette-Choo 2021)
                    others = cube.shrink(starts[there.argmax(axis=1) != label])
                    classifier = black_box(
                        cube.labels(predict, number), (len(attacker.grid.free),), there.shape[1], (0.0, 1.0)
                    )
                    attack = hop_skip_jump(
                        classifier, batch_size=4096, max_iter=rounds, init_eval=directions, verbose=False
                    )
                    try:
                        distance[number] = cube.measure(attack, number, others)
                    except _SpentError:
                        return Guess(rows[: max(1, number)], distance[: max(1, number)])
                done = number + 1
        return Guess(rows[:done], distance[:done])

    return ask_by_calls(run, int(random.integers(2**32)))


class _SpentError(Exception):
    """The budget is spent."""


class _Cube:
    """The columns that vary, each from 0 to 1, around some candidates. Has state: the queries spent."""

    def __init__(self, grid: Grid, candidates: Inputs, budget: int) -> None:
        self.grid, self.candidates, self.budget = grid, candidates, budget
        self.low = grid.low[grid.free]
        self.range = grid.high[grid.free] - self.low
        self.spent = 0

    def shrink(self, inputs: Inputs) -> Inputs:
        """(n, F) in the cube from (n, D)."""
        small: Inputs = (inputs[:, self.grid.free] - self.low) / self.range
        return small

    def labels(self, predict: Predict, number: int) -> Any:
        """What the toolbox asks: one-hot labels (n, C) of points (n, F) in the cube, around a candidate."""

        def ask(points: NDArray[np.float32]) -> NDArray[np.float32]:
            if self.spent >= self.budget:
                raise _SpentError
            inputs = np.repeat(self.candidates[number][None], len(points), axis=0)
            inputs[:, self.grid.free] = self.low + points * self.range
            answers = predict(self.grid.snap(inputs))
            self.spent += len(points)
            labels: NDArray[np.float32] = np.eye(answers.shape[1], dtype=np.float32)[answers.argmax(axis=1)]
            return labels

        return ask

    def measure(self, attack: Any, number: int, others: Inputs) -> float:
        """The distance from a candidate to the boundary; the cube's diagonal where nothing lies beyond it."""
        if not len(others):
            return float(np.sqrt(len(self.low)))
        center = self.shrink(self.candidates[number][None]).astype(np.float32)
        nearest = others[np.linalg.norm(others - center, axis=1).argmin()][None].astype(np.float32)
        found = attack.generate(center, x_adv_init=nearest)
        return float(np.linalg.norm(found - center))


def _toolbox() -> tuple[Any, Any]:
    try:
        evasion = import_module("art.attacks.evasion")  # by name: it has no types and loads for seconds
        classification = import_module("art.estimators.classification")
    except ImportError as error:
        raise ConfigError(
            "The attack label_boundary needs the adversarial-robustness-toolbox, which is not installed; "
            "run `pip install adversarial-robustness-toolbox`, or leave the attack out of the recipe."
        ) from error
    return evasion.HopSkipJump, classification.BlackBoxClassifier
