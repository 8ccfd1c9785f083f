"""Models for demos and the benchmark: linear, tree ensembles and networks, over-fitted and not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from probewatch.corpus.datasets import dataset_of, load_dataset
from probewatch.corpus.pools import split_pools
from probewatch.corpus.run import Subject
from probewatch.corpus.shadows import Kind
from probewatch.corpus.target import Target, as_predict


@dataclass(frozen=True)
class Learner:
    """A kind of model.

    Attributes:
        estimator: scikit-learn's class, as ``module.Name``.
        settings: of the estimator, beside its ``random_state``.
        kind: of the shadow models that are like it.
        scaled: whether its inputs are standardised.
        text: what it is, and whether it remembers.
    """

    estimator: str
    settings: Mapping[str, Any]
    kind: Kind
    scaled: bool
    text: str

    def build(self, seed: int) -> Any:
        """A model that is not fitted yet."""
        module, _, name = self.estimator.rpartition(".")
        model = getattr(import_module(f"sklearn.{module}"), name)(**self.settings, random_state=seed)
        if not self.scaled:
            return model
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), model)


LEARNERS: dict[str, Learner] = {
    "logistic": Learner(
        "linear_model.LogisticRegression", {"C": 0.5, "max_iter": 500}, "logistic", True, "keeps nothing it need not"
    ),
    "loose-logistic": Learner(
        "linear_model.LogisticRegression", {"C": 1e4, "max_iter": 3000}, "logistic", True, "is not held back"
    ),
    "forest": Learner("ensemble.RandomForestClassifier", {"n_estimators": 40}, "trees", False, "remembers"),
    "stiff-forest": Learner(
        "ensemble.RandomForestClassifier", {"n_estimators": 40, "min_samples_leaf": 8}, "trees", False, "generalises"
    ),
    "extra-trees": Learner("ensemble.ExtraTreesClassifier", {"n_estimators": 40}, "trees", False, "remembers all"),
    "boosting": Learner(
        "ensemble.GradientBoostingClassifier", {"n_estimators": 60, "max_depth": 3}, "trees", False, "remembers some"
    ),
    "network": Learner(
        "neural_network.MLPClassifier", {"hidden_layer_sizes": [64], "alpha": 1e-6, "max_iter": 400}, "mlp", True,
        "remembers some",
    ),
    "stiff-network": Learner(
        "neural_network.MLPClassifier", {"hidden_layer_sizes": [32], "alpha": 1.0, "max_iter": 200}, "mlp", True,
        "generalises",
    ),
}  # fmt: skip
"""By name."""


def train_subject(
    data: str,
    learner: str,
    members: int,
    *,
    seed: int,
    shares: Sequence[float],
    budget: int,
    most: int = 0,
    name: str = "",
) -> Subject:
    """A model trained on the first of a data set's shuffled records, with all that attacking it takes.

    Args:
        data: a data set, as :func:`~probewatch.corpus.datasets.dataset_of` takes it.
        learner: one of :data:`LEARNERS`.
        members: records to train on.
        seed: of the shuffling, the model and the pools.
        shares: of attackers, customers and holdout in the other records.
        budget: queries in all.
        most: records of each of those pools, 0 for no limit.
        name: the log's ``modelName``; ``DATA-LEARNER`` if empty.

    Raises:
        ConfigError: no such data.
        DataError: too few records.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    records = load_dataset(data)
    records = records.take(np.random.default_rng([seed, 4]).permutation(len(records)))
    train, others = np.split(np.arange(len(records)), [members])
    pools = split_pools(records.take(train), records.take(others), shares, np.random.default_rng([seed, 5]), most=most)
    kind = LEARNERS[learner]
    model = kind.build(seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # it need not have settled to be attacked
        model.fit(pools.members.inputs, pools.members.label)
    classes = np.unique(records.label).tolist()
    target = Target(
        name or f"{data}-{learner}", as_predict(model, [str(value) for value in classes]), classes=len(classes),
        budget=budget,
    )  # fmt: skip
    known = dataset_of(data)
    described = {
        "data": {"name": data, "shape": known.shape, "text": known.text, "source": known.source,
                 "records": len(records), "columns": records.inputs.shape[1]},
        "model": {"name": learner, "kind": kind.kind, "estimator": kind.estimator, "standardised": kind.scaled,
                  "settings": dict(kind.settings), "seed": seed, "text": kind.text},
        "answers_rounded_to": 6,
    }  # fmt: skip
    return Subject.of(target, pools, classes, seed, described, kind.kind)
