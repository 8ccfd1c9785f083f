"""The attacked model: a Python callable, a scikit-learn estimator or an endpoint, behind one ``answer``."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.errors import ConfigError, TargetError

Predict = Callable[[NDArray[Any]], Any]
"""(n, D) inputs to (n, C) probabilities, or (n,) of the second of two classes."""

TROUBLE = ("requests", "retries", "repeated", "trouble")  # what an endpoint counts
SUM_OFF = 0.02  # probabilities of a row that are rounded on their way may miss 1 by so much


class Target:
    """A model that answers queries within a budget; what has been asked is its state.

    >>> target = Target("coin", lambda rows: np.full((len(rows), 2), 0.5), classes=2, budget=10)
    >>> target.answer(np.zeros((3, 4))).shape, target.asked
    ((3, 2), 3)

    Args:
        name: the log's ``modelName``.
        predict: the model.
        classes: C, at least 2.
        budget: queries in all, an endpoint's repeated ones too; one more is refused before any is sent.
        decimals: answers are rounded to so many, for whoever asks as for the log; None leaves them whole.
    """

    def __init__(self, name: str, predict: Predict, *, classes: int, budget: int, decimals: int | None = 6) -> None:
        self.name = name
        self.classes = classes
        self.budget = budget
        self.asked = 0
        self._predict = predict
        self._decimals = decimals

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, D) inputs to (n, C) probabilities.

        Raises:
            TargetError: the budget is used up, the model fails, or its answer is not probabilities.
        """
        if self.asked + len(inputs) > self.budget:
            raise TargetError(
                f"{self.name}: the budget of {self.budget:,} queries is used up; allow more with --max-queries,"
                " or make fewer --sessions."
            )
        self.asked += len(inputs)
        repeated = self._repeated
        if not len(inputs):
            return np.empty((0, self.classes))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*valid feature names")
                found = self._predict(inputs)
        except (TargetError, ConfigError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever a user's own model raises
            raise TargetError(
                f"{self.name}: the model fails with {type(error).__name__}: {str(error).rstrip('.')}."
            ) from error
        self.asked += self._repeated - repeated
        answers = check_answers(found, len(inputs), self.classes, self.name)
        return answers if self._decimals is None else answers.round(self._decimals)

    @property
    def _repeated(self) -> int:
        """Queries that an endpoint was asked again, since it failed: they are asked, too."""
        return int(getattr(self._predict, "repeated", 0))

    def close(self) -> None:
        """Let an endpoint close its connections."""
        if hasattr(self._predict, "close"):
            self._predict.close()

    def trouble(self) -> dict[str, Any]:
        """What an endpoint counted: requests, retries, the queries in these, and the first sentences about them."""
        if not hasattr(self._predict, "retries"):
            return {}
        return {"endpoint": {name: getattr(self._predict, name) for name in TROUBLE}}

    def go_on(self, trouble: Mapping[str, Any]) -> None:
        """Count what an earlier run's endpoint had counted, too."""
        for name, before in trouble.get("endpoint", {}).items():
            setattr(self._predict, name, before + getattr(self._predict, name))
        self.asked += self._repeated


def check_answers(found: Any, rows: int, classes: int, name: str) -> NDArray[np.float64]:
    """What a model returned as (rows, classes) probabilities.

    One number a row counts as the probability of the second of two classes.

    Raises:
        TargetError: another shape, or not probabilities.
    """
    try:
        answers = np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TargetError(f"{name}: the answer is no table of numbers: {error}.") from error
    if classes == 2 and answers.shape in ((rows,), (rows, 1)):
        second = answers.reshape(rows)
        answers = np.stack([1.0 - second, second], axis=1)
    if answers.shape != (rows, classes):
        raise TargetError(
            f"{name}: the answer to {rows} queries has the shape {answers.shape}, expected {(rows, classes)}:"
            f" one probability for each of the {classes} classes of --label."
        )
    if not np.all((answers >= -1e-6) & (answers <= 1.0 + 1e-6)):
        worst = answers[~((answers >= -1e-6) & (answers <= 1.0 + 1e-6))][0]
        raise TargetError(f"{name}: an answer holds {worst!r}, expected probabilities from 0 to 1.")
    off = float(np.max(np.abs(answers.sum(axis=1) - 1.0)))
    if off > SUM_OFF:
        raise TargetError(f"{name}: the probabilities of an answer sum up to 1 give or take {off:.3f}, expected 1.")
    return np.clip(answers, 0.0, 1.0)


def load_predict(path: str, classes: Sequence[str], columns: Sequence[str] = ()) -> Predict:
    """The callable or estimator that ``module:name`` names, with the current folder on the import path.

    An estimator's columns are brought into the order of ``classes``; a callable's must be in it already. An estimator
    that was fitted on a data frame is given one, with the names of ``columns``.

    Raises:
        ConfigError: no such module or name, or nothing that can predict.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ConfigError(f"--model is {path!r}, expected module:callable, as mypackage.model:predict_proba.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a user's own module raises
        raise ConfigError(
            f"--model is {path!r}, which cannot be loaded ({type(error).__name__}: {error}); see that it imports."
        ) from error
    return as_predict(found, classes, columns)


def as_predict(model: Any, classes: Sequence[str], columns: Sequence[str] = ()) -> Predict:
    """A callable as it is; an estimator's ``predict_proba`` with its columns in the order of ``classes``.

    Raises:
        ConfigError: it cannot predict probabilities, or knows other classes or columns.
    """
    if not hasattr(model, "predict_proba"):
        if not callable(model):
            raise ConfigError(f"the model is a {type(model).__name__}, expected a callable or has predict_proba.")
        return model  # type: ignore[no-any-return]
    own = [str(value) for value in getattr(model, "classes_", classes)]
    if sorted(own) != sorted(classes):
        raise ConfigError(f"the model knows the classes {own}, but --label has {list(classes)}.")
    order = [own.index(name) for name in classes]
    names = list(getattr(model, "feature_names_in_", ())) if columns else []
    if names and set(names) - set(columns):
        raise ConfigError(f"the model was fitted on the columns {names}, but the records have {list(columns)}.")

    def predict(inputs: NDArray[Any]) -> Any:
        if names:
            import pandas as pd

            inputs = pd.DataFrame(inputs, columns=list(columns)).infer_objects()[names]
        return np.asarray(model.predict_proba(inputs))[:, order]

    return predict
