"""The explainers that people use, lime and shap themselves, ask a model through a target and raise no alarm."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bench = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "explainers.py"))


@pytest.fixture(scope="module", params=bench["SETS"])
def subject(request: pytest.FixtureRequest) -> Any:
    return bench["Subject"](request.param)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", [False, True])
def test_lime_raises_no_alarm_with_a_profile_or_without(subject: Any, around: bool) -> None:
    for profiles in (subject.profiles, {}):
        bench["ask_lime"](subject, 0, around=around)
        assert not subject.alerts(profiles)


@pytest.mark.filterwarnings("ignore")
def test_shap_raises_no_alarm_with_a_profile_or_without(subject: Any) -> None:
    for profiles in (subject.profiles, {}):
        bench["ask_shap"](subject, 0)
        assert not subject.alerts(profiles)


def test_who_asks_for_training_records_among_others_raises_one(subject: Any) -> None:
    candidates = np.concatenate([subject.members[:40], subject.holdout[:40]])
    subject.predict(candidates[np.random.default_rng(0).permutation(80)])
    assert subject.alerts(subject.profiles)
