"""Models to attack where there is no other: a small one on scikit-learn's data, or many on data drawn at random."""

from __future__ import annotations

import numpy as np

from probewatch.corpus.datasets import DRAWN
from probewatch.corpus.learners import LEARNERS, train_subject
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Subject
from probewatch.errors import ConfigError

TRAINED = {"digits": 150, "cancer": 100, "wine": 60}
"""Records that each model is trained on, few enough that it remembers some."""
FEWEST, MOST = 100, 700  # records that a model of drawn data is trained on
MOST_OTHERS = 800  # records of each pool, to bound the time that shadow models take


def demo_subject(name: str, recipe: Recipe, budget: int) -> Subject:
    """A network trained on a part of scikit-learn's ``digits``, ``cancer`` or ``wine``.

    Raises:
        ConfigError: no such data.
    """
    if name not in TRAINED:
        raise ConfigError(f"--demo is {name!r}, expected one of: {', '.join(TRAINED)}.")
    return train_subject(
        name, "network", TRAINED[name], seed=recipe.seed, shares=recipe.pools, budget=budget,
        name=f"{name}-MLPClassifier",
    )  # fmt: skip


def drawn_subjects(count: int, recipe: Recipe, budget: int) -> list[Subject]:
    """So many models of all kinds, two of each data set that is drawn; other seeds draw others.

    Raises:
        ConfigError: not one.
    """
    if count < 1:
        raise ConfigError(f"--drawn is {count}, expected at least 1 model.")
    subjects: list[Subject] = []
    for number in range(0, count, 2):
        data = f"{DRAWN}-{1000 * recipe.seed + number // 2}"
        random = np.random.default_rng([recipe.seed, 9, number // 2])
        learners = random.permutation(list(LEARNERS)).tolist()[:2]
        members = np.exp(random.uniform(np.log(FEWEST), np.log(MOST), size=2)).astype(np.int64).tolist()
        seeds = random.integers(2**31, size=2).tolist()
        for learner, size, seed in list(zip(learners, members, seeds, strict=True))[: count - number]:
            subjects.append(
                train_subject(data, learner, size, seed=seed, shares=recipe.pools, budget=budget, most=MOST_OTHERS)
            )
    return subjects
