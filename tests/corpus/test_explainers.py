"""The explainers that people use, lime and shap themselves, ask a model through a target and raise no alarm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probewatch.bundle import read_own
from probewatch.corpus.target import Target
from probewatch.data.profile import Profiles, Records, build_profile
from probewatch.score.stream import StreamScorer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what they in turn import
    import lime.lime_tabular
    import shap

Rows = NDArray[np.float64]
SETS: dict[str, Callable[..., Any]] = {"cancer": load_breast_cancer, "digits": load_digits, "wine": load_wine}


class Subject:
    """A model behind a target, its profile, and who asks it."""

    def __init__(self, name: str) -> None:
        inputs, label = SETS[name](return_X_y=True)
        order = np.random.default_rng(0).permutation(len(inputs))
        inputs, label = inputs[order].astype(np.float64), label[order]
        self.members, self.holdout, self.customers = np.array_split(inputs, 3)
        model = make_pipeline(StandardScaler(), MLPClassifier(64, max_iter=400, random_state=0))
        model.fit(self.members, label[: len(self.members)])
        self._target = Target(name, model.predict_proba, classes=len(model.classes_), budget=100_000)
        self._log: list[tuple[Rows, Rows]] = []
        records = [Records(part, model.predict_proba(part).max(axis=1)) for part in (self.members, self.holdout)]
        self.profiles: Profiles = {name: build_profile(records[0], records[1], bytes(16), name)}

    def predict(self, inputs: Any) -> Rows:
        """What a client calls."""
        asked = np.asarray(inputs, np.float64)
        self._log.append((asked, self._target.answer(asked)))
        return self._log[-1][1]

    def alerts(self, profiles: Profiles) -> bool:
        """Whether the packaged detector alerts on what was asked since the last time."""
        asked, answers = (np.concatenate(parts) for parts in zip(*self._log, strict=True))
        self._log.clear()
        count = len(asked)
        with StreamScorer(read_own(), profiles=profiles) as watch:
            scores = watch.push(
                {
                    "client": ["someone"] * count, "model": [self._target.name] * count,
                    "time_s": 1.77e9 + 0.01 * np.arange(count), "confidence": answers.max(axis=1),
                    "predicted_class": answers.argmax(axis=1), "inputs": asked,
                }
            )  # fmt: skip
        return bool(scores.alert.any())


@pytest.fixture(scope="module", params=SETS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    return Subject(request.param)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", [False, True])
def test_lime_raises_no_alarm_with_a_profile_or_without(subject: Subject, around: bool) -> None:
    explainer = lime.lime_tabular.LimeTabularExplainer(subject.customers, random_state=0, sample_around_instance=around)
    for profiles in (subject.profiles, {}):
        for record in subject.customers[:4]:
            explainer.explain_instance(record, subject.predict, num_features=5, num_samples=60)
        assert not subject.alerts(profiles)


def _ask_shap(subject: Subject) -> None:
    np.random.seed(0)  # where the package draws from
    explainer = shap.KernelExplainer(subject.predict, subject.customers[:3], silent=True)
    for record in subject.customers[3:6]:
        explainer.shap_values(record, nsamples=40, silent=True)


@pytest.mark.filterwarnings("ignore")
def test_shap_raises_no_alarm_with_a_profile_or_without(subject: Subject) -> None:
    for profiles in (subject.profiles, {}):
        _ask_shap(subject)
        assert not subject.alerts(profiles)


def test_who_asks_for_training_records_among_others_raises_one(subject: Subject) -> None:
    candidates = np.concatenate([subject.members[:40], subject.holdout[:40]])
    subject.predict(candidates[np.random.default_rng(0).permutation(80)])
    assert subject.alerts(subject.profiles)
