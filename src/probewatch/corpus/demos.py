"""Small models on scikit-learn's data, to attack where there is no other."""

from __future__ import annotations

from probewatch.corpus.learners import train_subject
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Subject
from probewatch.errors import ConfigError

TRAINED = {"digits": 150, "cancer": 100, "wine": 60}
"""Records that each model is trained on, few enough that it remembers some."""


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
