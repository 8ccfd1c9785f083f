"""How often the packaged detector takes an explainer for an attack: lime and shap themselves, with and without profile.

    python bench/explainers.py [--seeds 10]

On three models, each time for other customers. ``tests/corpus/test_explainers.py`` asks with the same functions.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
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

    def drawn(self, seed: int) -> Rows:
        """The customers' records in an order of this seed, as they are for 0."""
        return self.customers if not seed else np.random.default_rng(seed).permutation(self.customers)

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


def ask_lime(subject: Subject, seed: int, *, around: bool) -> None:
    """Explain four customers' records, by samples around each or, as is its default, around the mean record."""
    customers = subject.drawn(seed)
    explainer = lime.lime_tabular.LimeTabularExplainer(customers, random_state=seed, sample_around_instance=around)
    for record in customers[:4]:
        explainer.explain_instance(record, subject.predict, num_features=5, num_samples=60)


def ask_shap(subject: Subject, seed: int) -> None:
    """Explain three customers' records against three others."""
    customers = subject.drawn(seed)
    np.random.seed(seed)  # where the package draws from
    explainer = shap.KernelExplainer(subject.predict, customers[:3], silent=True)
    for record in customers[3:6]:
        explainer.shap_values(record, nsamples=40, silent=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    alerts = {(name, known): 0 for name in ("lime", "shap") for known in (True, False)}
    for subject in map(Subject, SETS):
        for seed in range(options.seeds):
            for name, known in alerts:
                if name == "lime":
                    ask_lime(subject, seed, around=seed % 2 == 0)
                else:
                    ask_shap(subject, seed)
                alerts[name, known] += subject.alerts(subject.profiles if known else {})
    for (name, known), count in alerts.items():
        print(f"{name}, {'with' if known else 'no'} profile: {count} of {len(SETS) * options.seeds} alert")


if __name__ == "__main__":
    main()
