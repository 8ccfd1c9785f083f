"""Shadow models: stand-ins for the target that attackers fit on records of their own."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["logistic", "trees", "mlp"]
KINDS: tuple[Kind, ...] = ("logistic", "trees", "mlp")
"""Families of shadow models, from stiff to pliant."""

TREES = 16
HIDDEN = 32
EPOCHS = 120
MOST = 1000  # records that a shadow model is fitted on, to bound the time


@dataclass(frozen=True)
class Shadows:
    """M models, each fitted on a random half of n records.

    Args:
        models: M fitted models.
        trained: bool (M, n) which records each was fitted on.
    """

    models: tuple[_Model, ...]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.models)

    def predict(self, inputs: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
        """(M, n, C) probabilities; 0 for a class that a model has not seen."""
        answers = np.zeros((len(self.models), len(inputs), classes))
        for number, model in enumerate(self.models):
            answers[number][:, model.classes] = model.predict(inputs)
        return answers

    def of_label(self, inputs: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
        """(M, n) probabilities of the given class of each input."""
        return self.predict(inputs, classes)[:, np.arange(len(inputs)), labels]


@dataclass(frozen=True)
class ShadowPlan:
    """How shadow models are fitted.

    Args:
        kind: of models.
        seed: from 0.
        count: of models, even if each record is to be in exactly half of them.
        size: records that each is fitted on, at most; half of them all where that is less.
        trees: of a model of trees.
    """

    kind: Kind
    seed: int
    count: int = 16
    size: int = MOST
    trees: int = TREES


@dataclass
class ShadowCache:
    """The shadow models fitted so far. Has state: fits are kept, so that sessions share them."""

    fitted: dict[str, Shadows] = field(default_factory=dict)

    def get(self, records: NDArray[np.float64], labels: NDArray[np.int64], plan: ShadowPlan) -> Shadows:
        """:func:`fit_shadows` of these; the same arguments give the same ones, cached or not."""
        records = np.ascontiguousarray(records)
        key = hashlib.sha256(repr((records.shape, plan)).encode())
        key.update(records.data)
        key.update(np.ascontiguousarray(labels).data)
        if key.hexdigest() not in self.fitted:
            self.fitted[key.hexdigest()] = fit_shadows(records, labels, plan)
        return self.fitted[key.hexdigest()]


def fit_shadows(records: NDArray[np.float64], labels: NDArray[np.int64], plan: ShadowPlan) -> Shadows:
    """So many models, fitted on random halves of the records.

    Halves come in pairs that share no record, so each record is in exactly half of an even number of models (Carlini
    2022, section IV-B) unless the size is less than half.

    Args:
        records: (n, D), at least two.
        labels: int64 (n,) their classes.
    """
    random = np.random.default_rng([plan.seed, plan.count])
    half = min(max(1, len(records) // 2), plan.size, MOST)
    trained = np.zeros((plan.count, len(records)), np.bool_)
    for number in range(0, plan.count, 2):
        order = random.permutation(len(records))
        trained[number, order[:half]] = True
        if number + 1 < plan.count:
            trained[number + 1, order[half : 2 * half] if len(records) > 1 else order] = True
    states = random.integers(2**31, size=plan.count).tolist()
    models = tuple(
        fit_model(records[mine], labels[mine], plan.kind, state, plan.trees)
        for mine, state in zip(trained, states, strict=True)
    )
    return Shadows(models, trained)


@dataclass(frozen=True)
class _Model:
    """A fitted model that answers small blocks without scikit-learn's checks, which cost more than the sums.

    Args:
        classes: int64 (K,) the classes it knows.
        center, scale: (D,) of the records it was fitted on.
        layers: weights and intercepts; the hidden one ends in a rectifier. Empty for trees and a sole class.
        trees: decision trees whose answers are averaged.
    """

    classes: NDArray[np.int64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    layers: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()
    trees: tuple[Any, ...] = ()

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, K) probabilities."""
        scaled = (inputs - self.center) / self.scale
        if self.trees:
            narrow = scaled.astype(np.float32)
            return np.asarray(
                sum(tree.predict_proba(narrow, check_input=False) for tree in self.trees) / len(self.trees)
            )
        if not self.layers:
            return np.ones((len(inputs), 1))
        for weights, intercept in self.layers[:-1]:
            scaled = np.maximum(scaled @ weights + intercept, 0.0)
        weights, intercept = self.layers[-1]
        logits = scaled @ weights + intercept
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def fit_model(
    records: NDArray[np.float64], labels: NDArray[np.int64], kind: Kind, state: int, trees: int = TREES
) -> _Model:
    """One model, as over-fitted as its kind allows: shadows must remember what they were trained on."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    center = records.mean(axis=0)
    scale = records.std(axis=0)
    scale[scale == 0.0] = 1.0
    classes = np.unique(labels)
    if len(classes) == 1:
        return _Model(classes, center, scale)
    scaled = (records - center) / scale
    if kind == "trees":
        return _Model(classes, center, scale, trees=_fit_trees(scaled, np.searchsorted(classes, labels), state, trees))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a shadow that could be fitted further is one all the same
        if kind == "logistic":
            linear = LogisticRegression(C=100.0, max_iter=200).fit(scaled, labels)
            return _Model(classes, center, scale, layers=_two_sided([(linear.coef_.T, linear.intercept_)]))
        net = MLPClassifier(
            (HIDDEN,), max_iter=EPOCHS, learning_rate_init=0.01, batch_size=min(64, len(scaled)), random_state=state
        )
        net.fit(scaled, labels)
    return _Model(classes, center, scale, layers=_two_sided(list(zip(net.coefs_, net.intercepts_, strict=True))))


def _fit_trees(scaled: NDArray[np.float64], labels: NDArray[np.int64], state: int, count: int) -> tuple[Any, ...]:
    """A random forest, without the pool of workers that takes scikit-learn longer than such small trees do.

    Each tree is given all records, weighted by how often its bootstrap drew them, so that all know all classes.
    """
    from sklearn.tree import DecisionTreeClassifier

    random = np.random.default_rng(state)
    narrow = scaled.astype(np.float32)
    trees = []
    for seed in random.integers(2**31, size=count).tolist():
        weight = np.bincount(random.integers(len(labels), size=len(labels)), minlength=len(labels)).astype(np.float64)
        tree = DecisionTreeClassifier(max_features="sqrt", random_state=seed)
        trees.append(tree.fit(narrow, labels, sample_weight=weight, check_input=False))
    return tuple(trees)


def _two_sided(layers: list[tuple[Any, Any]]) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """The last layer with a logit for each of two classes where scikit-learn has one for both."""
    weights, intercept = layers[-1]
    if len(intercept) == 1:
        layers[-1] = (np.hstack([np.zeros_like(weights), weights]), np.concatenate([[0.0], intercept]))
    return tuple(layers)
