from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probewatch.corpus.events import Session
from probewatch.corpus.giveaways import give_aways
from probewatch.corpus.grid import Grid

PAIRS = 15
GRID = Grid.learn(np.random.default_rng(0).normal(size=(50, 2)))


def _session(attack: str, number: int, start_s: float, length: int) -> Session:
    """One session of an actor of its own, whose form is its start and its length."""
    name = f"{attack}-{number}"
    return Session(
        name, name, name, "job", "192.0.2.1", "model", attack, "family", "none", start_s + 10.0 * np.arange(length),
        np.zeros((length, 2)), np.full(length, 0.5), np.zeros(length, np.int64),
    )  # fmt: skip


def _found(sessions: list[Session]) -> dict[str, Any]:
    return give_aways(sessions, {"model": GRID}, set())


def test_attacks_that_are_longer_are_given_away() -> None:
    sessions = [
        _session(attack, number, 0.0, length + number % 3)
        for number in range(PAIRS) for attack, length in (("none", 20), ("membership", 30))
    ]  # fmt: skip
    found = _found(sessions)
    assert found["roc_auc"] == pytest.approx(1.0) and not found["holds"]


def test_what_is_learned_of_others_and_always_wrong_gives_away_too() -> None:
    # Each attack starts together with a benign session, so whoever knows the one takes the other for the same.
    sessions = [_session(attack, number, 1e4 * number, 20)
                for number in range(PAIRS) for attack in ("none", "membership")]  # fmt: skip
    found = _found(sessions)
    assert found["roc_auc"] < 0.2 and not found["holds"]


def test_form_that_says_nothing_holds_on_either_side_of_a_half() -> None:
    random = np.random.default_rng(1)
    sessions = [
        _session(attack, number, float(random.uniform(0, 1e5)), int(random.integers(10, 60)))
        for number in range(40) for attack in ("none", "membership")
    ]  # fmt: skip
    found = _found(sessions)
    assert 0.3 < found["roc_auc"] < 0.7 and found["holds"]
