"""Attacks on other things than membership: model extraction and adversarial search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.client import Client
from probewatch.corpus.sources import Answers, Inputs, Source

SEEDS_SHARE = (0.1, 0.4)  # of the budget that goes to own records first
ROUND = (5, 60)  # queries between which an extraction thinks
RANDOM_SHARE = 0.2  # of an extraction's inputs that come from anywhere
SEARCHES = (2, 16)  # adversarial searches at a time
PATIENCE = 120  # steps after which an adversarial search gives up
COLUMNS_SHARE = (0.02, 0.2)  # that one step of a search changes


def extract_model(client: Client, random: np.random.Generator) -> Source:
    """Copies the model: asks about records, then ever closer to where the answer turns, which tells a copy most.

    Tramèr, Zhang, Juels, Reiter, Ristenpart 2016, "Stealing Machine Learning Models via Prediction APIs", section 5
    (line search between inputs of different labels, adaptive retraining), with random inputs as in Papernot and
    others 2017, "Practical Black-Box Attacks against Machine Learning".
    """
    seeds = int(np.clip(client.budget * random.uniform(*SEEDS_SHARE), 1, client.budget))
    inputs = client.pick(seeds, random)
    labels = (yield inputs).argmax(axis=1)
    left = client.budget - seeds
    while left:
        count = min(left, int(random.integers(*ROUND, endpoint=True)))
        asked = _between(client, inputs, labels, count, random)
        answers = yield asked
        inputs = np.concatenate([inputs, asked])
        labels = np.concatenate([labels, answers.argmax(axis=1)])
        left -= count
    return None


def _between(
    client: Client, inputs: Inputs, labels: NDArray[np.int64], count: int, random: np.random.Generator
) -> Inputs:
    """(count, D) inputs half way between two of different labels, the nearest of a few pairs; some from anywhere."""
    first, second = random.integers(len(inputs), size=(2, count, 8))
    apart = np.abs((inputs[first] - inputs[second]) / np.where(client.grid.scale > 0, client.grid.scale, 1.0)).sum(
        axis=2
    )
    apart[labels[first] == labels[second]] = np.inf
    best = apart.argmin(axis=1)
    each = np.arange(count)
    middle = 0.5 * (inputs[first[each, best]] + inputs[second[each, best]])
    anywhere = (random.random(count) < RANDOM_SHARE) | ~np.isfinite(apart[each, best])
    return np.where(anywhere[:, None], client.grid.draw(count, random), client.grid.snap(middle))


def search_adversarial(client: Client, random: np.random.Generator) -> Source:
    """Changes columns of a record, keeps what makes the model less sure of its class, until the answer turns.

    Guo, Gardner, You, Wilson, Weinberger 2019, "Simple Black-box Adversarial Attacks", algorithm 1. Several searches
    go on at once.
    """
    searches = int(random.integers(*SEARCHES, endpoint=True))
    share = random.uniform(*COLUMNS_SHARE)
    left = client.budget
    best = client.pick(searches, random)
    label = np.full(searches, -1)  # before the first answer
    sure = np.full(searches, np.inf)
    steps = np.zeros(searches, np.int64)
    while left:
        asked = np.where((label < 0)[:, None], best, _change(client, best, share, random))[:left]
        now = np.arange(len(asked))
        answers: Answers = yield asked
        left -= len(asked)
        fresh = label[now] < 0
        label[now] = np.where(fresh, answers.argmax(axis=1), label[now])
        height = answers[now, label[now]]
        lower = height < sure[now]
        best[now[lower]], sure[now[lower]] = asked[lower], height[lower]
        steps[now] += 1
        over = now[(answers.argmax(axis=1) != label[now]) | (steps[now] >= PATIENCE)]
        if len(over):
            best[over] = client.records[random.integers(len(client.records), size=len(over))]
            label[over], sure[over], steps[over] = -1, np.inf, 0
    return None


def _change(client: Client, inputs: Inputs, share: float, random: np.random.Generator) -> Inputs:
    """(n, D) inputs with at least one column moved by about half its deviation."""
    chosen = random.random(inputs.shape) < share
    free = client.grid.fields
    chosen[np.arange(len(inputs)), free[random.integers(len(free), size=len(inputs))]] = True
    return client.grid.mix(chosen, client.grid.jitter(inputs, 0.5, random), inputs)
