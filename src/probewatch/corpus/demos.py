"""Small models on scikit-learn's data, to attack where there is no other."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from probewatch.corpus.pools import Records, split_pools
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Subject
from probewatch.corpus.target import Target, as_predict
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
    from sklearn import datasets
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    load = {"digits": datasets.load_digits, "cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]
    inputs, label = load(return_X_y=True)
    order = np.random.default_rng([recipe.seed, 4]).permutation(len(label))
    records = Records(np.asarray(inputs, np.float64)[order], np.asarray(label, np.int64)[order])
    train, others = np.split(np.arange(len(records)), [TRAINED[name]])
    pools = split_pools(
        records.take(train), records.take(others), recipe.pools, np.random.default_rng([recipe.seed, 5])
    )
    settings: dict[str, Any] = {"hidden_layer_sizes": [64], "alpha": 1e-6, "max_iter": 400, "random_state": recipe.seed}
    model = make_pipeline(StandardScaler(), MLPClassifier(**settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it need not have settled to be attacked
        model.fit(pools.members.inputs, pools.members.label)
    classes = [int(value) for value in np.unique(label)]
    target = Target(
        f"{name}-MLPClassifier", as_predict(model, [str(value) for value in classes]), classes=len(classes),
        budget=budget,
    )  # fmt: skip
    described = {"data": f"scikit-learn {name}", "model": "MLPClassifier on standardised inputs", "settings": settings,
                 "answers_rounded_to": 6}  # fmt: skip
    return Subject.of(target, pools, classes, recipe.seed, described)
