from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from probewatch.corpus.target import Target, as_predict, check_answers, load_predict
from probewatch.errors import ConfigError, TargetError


def _halves(rows: Any) -> Any:
    return np.full((len(rows), 2), 0.5)


def test_answers_are_rounded_for_whoever_asks() -> None:
    target = Target("t", lambda rows: np.array([[1 / 3, 2 / 3]]), classes=2, budget=9)
    assert target.answer(np.zeros((1, 2))).tolist() == [[0.333333, 0.666667]]


def test_the_budget_is_kept_and_nothing_is_asked_beyond_it() -> None:
    asked = []

    def predict(rows: Any) -> Any:
        asked.append(len(rows))
        return _halves(rows)

    target = Target("credit", predict, classes=2, budget=5)
    target.answer(np.zeros((3, 1)))
    with pytest.raises(TargetError, match=r"credit: the budget of 5 queries is used up; allow more with --max-queries"):
        target.answer(np.zeros((3, 1)))
    assert asked == [3] and target.asked == 3


def test_one_number_is_the_probability_of_the_second_of_two_classes() -> None:
    assert check_answers([0.25, 1.0], 2, 2, "t").tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert check_answers([[0.25]], 1, 2, "t").tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([[0.5, 0.5]], r"has the shape \(1, 2\), expected \(2, 2\)"),
        ([[0.5, 0.5], [0.5, np.nan]], "holds np.float64\\(nan\\)|holds nan"),
        ([[0.5, 0.5], [1.5, -0.5]], "expected probabilities from 0 to 1"),
        ([[0.5, 0.5], [0.9, 0.9]], "give or take 0.800, expected 1"),
        ([["a", "b"], ["c", "d"]], "no table of numbers"),
        ([[10**400, 0], [0, 1]], "no table of numbers"),
    ],
)
def test_what_is_no_probability_is_refused(found: Any, why: str) -> None:
    with pytest.raises(TargetError, match=why):
        check_answers(found, 2, 2, "t")


def test_a_failing_model_is_named_in_a_sentence() -> None:
    def fail(rows: Any) -> Any:
        raise ValueError("X has 3 features")

    with pytest.raises(TargetError, match="credit: the model fails with ValueError: X has 3 features"):
        Target("credit", fail, classes=2, budget=9).answer(np.zeros((1, 1)))


def test_an_estimators_columns_come_in_the_order_of_the_labels() -> None:
    model = SimpleNamespace(classes_=np.array(["yes", "no"]), predict_proba=lambda rows: np.array([[0.9, 0.1]]))
    assert np.asarray(as_predict(model, ["no", "yes"])(np.zeros((1, 1)))).tolist() == [[0.1, 0.9]]
    with pytest.raises(ConfigError, match=r"knows the classes \['yes', 'no'\], but --label has \['0', '1'\]"):
        as_predict(model, ["0", "1"])


def test_an_estimator_fitted_on_a_data_frame_is_given_one() -> None:
    records = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "town": ["a", "b", "a", "b"], "unused": [0.0] * 4})
    encode = ColumnTransformer([("town", OneHotEncoder(), ["town"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(records[["town", "age"]], ["no", "no", "yes", "yes"])
    columns = ["unused", "age", "town"]
    predict = as_predict(model, ["no", "yes"], columns)
    found = np.asarray(predict(records[columns].to_numpy(object)))
    np.testing.assert_allclose(found, model.predict_proba(records[["town", "age"]]))
    with pytest.raises(ConfigError, match=r"fitted on the columns \['town', 'age'\], but the records have \['age'\]"):
        as_predict(model, ["no", "yes"], ["age"])


def test_a_model_whose_import_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_broken_module.py").write_text("open('weights.bin')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=r"which cannot be loaded \(FileNotFoundError: .*weights.bin"):
        load_predict("my_broken_module:predict", ["0", "1"])


def test_a_model_is_loaded_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scoring_module.py").write_text("def predict(rows):\n    return [0.5] * len(rows)\nWORD = 'x'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    predict = load_predict("my_scoring_module:predict", ["0", "1"])
    assert predict(np.zeros((2, 1))) == [0.5, 0.5]
    with pytest.raises(ConfigError, match="expected module:callable"):
        load_predict("my_scoring_module", ["0", "1"])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_predict("my_scoring_module:absent", ["0", "1"])
    with pytest.raises(ConfigError, match="the model is a str"):
        load_predict("my_scoring_module:WORD", ["0", "1"])
