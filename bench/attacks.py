"""How fast the query sources ask, family by family, and how much each attack finds out.

    python bench/attacks.py [--sessions 40] [--seed 0]

Speed: sessions of 20 to 300 queries in lock-step against a logistic regression on digits in this process, from the
sources' start to their last guess; shadow models that sessions share are fitted before and shown on their own, as
is loading the adversarial-robustness-toolbox. Attacks: ROC AUC of the guesses on over-fitted targets, all sessions
of a family pooled, half of the candidates members, 16 shadow models of the target's kind.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES, Client
from probewatch.corpus.grid import Grid
from probewatch.corpus.sources import Guess, Predict, Source, run_together

GOAL = 20_000  # queries a second, all families mixed
LENGTHS = (20, 300)


def attacker_on(inputs: np.ndarray, labels: np.ndarray, members: int, kind: str) -> Attacker:
    """Candidates are the members, which come first, and as many others; the rest is the attacker's own."""
    return Attacker(
        inputs[: 2 * members], labels[: 2 * members], inputs[2 * members :], labels[2 * members :],
        Grid.learn(inputs), 1, kind=kind, shadow_size=members,
    )  # fmt: skip


def sources_of(family: str, sessions: int, attacker: Attacker, seed: int) -> list[Source]:
    sources = []
    for number in range(sessions):
        random = np.random.default_rng([seed, number])
        budget = int(np.exp(random.uniform(*np.log(LENGTHS))))
        if family in ATTACKS:
            sources.append(ATTACKS[family].start(replace(attacker, budget=budget), random))
        else:
            sources.append(USES[family].start(Client(attacker.own, attacker.grid, budget), random))
    return sources


def speed_of(families: list[str], sessions: int, attacker: Attacker, predict: Predict, seed: int) -> tuple[int, float]:
    """Queries and seconds."""
    asked = []
    started = time.perf_counter()
    sources = [source for family in families for source in sources_of(family, sessions, attacker, seed)]
    run_together(sources, predict, seen=lambda _, inputs, __: asked.append(len(inputs)))
    return sum(asked), time.perf_counter() - started


def auc_of(family: str, sessions: int, attacker: Attacker, predict: Predict, seed: int) -> float:
    guesses = run_together(sources_of(family, sessions, attacker, seed), predict)
    found = [guess for guess in guesses if isinstance(guess, Guess)]
    record = np.concatenate([guess.record for guess in found])
    score = np.concatenate([guess.score for guess in found])
    return float(roc_auc_score(record < len(attacker.candidates) // 2, score))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=40, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(options.seed).permutation(len(inputs))
    digits = attacker_on(inputs[order], labels[order], 400, "logistic")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        inputs[order[:400]], labels[order[:400]]
    )

    noisy, classes = make_classification(1800, 30, n_informative=10, n_classes=4, flip_y=0.1, random_state=options.seed)
    noisy = noisy.round(3)
    scaled = make_pipeline(
        StandardScaler(), MLPClassifier((64,), max_iter=400, learning_rate_init=0.005, tol=1e-5, random_state=0)
    )
    targets = {
        "mlp": scaled.fit(noisy[:300], classes[:300]),
        "trees": RandomForestClassifier(50, random_state=0).fit(noisy[:300], classes[:300]),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=100, max_iter=1000)).fit(
            noisy[:80], classes[:80]
        ),
    }
    sizes = {"mlp": 300, "trees": 300, "logistic": 80}

    started = time.perf_counter()
    digits.shadows(), digits.online_shadows()
    print(f"{time.perf_counter() - started:.1f} s for 32 shadow models of digits")
    speed_of(["label_boundary"], 1, digits, linear.predict_proba, 1)
    print(f"{'family':30}{'queries':>10}{'queries/s':>12}" + "".join(f"{'AUC ' + name:>14}" for name in targets))
    for family in [*ATTACKS, *USES]:
        queries, seconds = speed_of([family], options.sessions, digits, linear.predict_proba, options.seed)
        line = f"{family:30}{queries:10,}{queries / seconds:12,.0f}"
        if family in ATTACKS:
            for name, target in targets.items():
                attacker = attackers.setdefault(name, attacker_on(noisy, classes, sizes[name], name))
                line += f"{auc_of(family, options.sessions, attacker, target.predict_proba, options.seed):14.3f}"
        print(line, flush=True)
    queries, seconds = speed_of([*ATTACKS, *USES], options.sessions, digits, linear.predict_proba, options.seed)
    print(f"{'all families mixed':30}{queries:10,}{queries / seconds:12,.0f}")
    print(f"ratio to the goal of {GOAL:,} queries/s: {queries / seconds / GOAL:.1f}")


attackers: dict[str, Attacker] = {}

if __name__ == "__main__":
    main()
