from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES, Client
from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Guess, run_together


@pytest.mark.parametrize("name", ATTACKS)
def test_smoke(name: str) -> None:
    inputs, labels = load_digits(return_X_y=True)
    grid = Grid.learn(inputs)
    target = RandomForestClassifier(10, random_state=0).fit(inputs[:200], labels[:200])
    attacker = Attacker(inputs[:400], labels[:400], inputs[400:800], labels[400:800], grid, 400)
    client = Client(inputs[800:1000], grid, 300)
    sources = [
        ATTACKS[name].start(attacker, np.random.default_rng(0)),
        USES["batch"].start(client, np.random.default_rng(0)),
    ]
    guess, nothing = run_together(sources, target.predict_proba)
    assert nothing is None
    assert isinstance(guess, Guess)
    assert roc_auc_score(guess.record < 200, guess.score) > 0.7
