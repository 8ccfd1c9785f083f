"""People drawn at random: records with whole, decimal and categorical columns that hang together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Table = tuple[NDArray[np.float64], NDArray[np.int64]]
"""(R, D) inputs and (R,) labels."""

BORROWERS, SUBSCRIBERS = 5000, 6000


def draw_borrowers() -> Table:
    """(5000, 21) borrowers and whether they default; always the same.

    Seven whole or rounded numbers, one flag, and three categories as one-hot columns (4, 3 and 6).
    """
    random = np.random.default_rng([1978, 1])
    steady, wealth = random.normal(size=(2, BORROWERS))  # what is behind it all
    age = _whole(38 + 6 * steady + 11 * random.gumbel(size=BORROWERS) / 1.3, 18, 80)
    income = _whole(np.exp(7.7 + 0.45 * wealth + 0.15 * random.normal(size=BORROWERS)), 600, 20_000, 50)
    employed = _whole((age - 18) * random.beta(2 + np.exp(steady), 3), 0, 45)
    months = _whole(random.gamma(3.0, 8.0, BORROWERS), 6, 72, 6)
    amount = _whole(income * months / 18 * np.exp(0.5 * random.normal(size=BORROWERS) - 0.4), 250, 40_000, 50)
    children = _whole(random.poisson(np.clip((age - 18) / 18, 0.1, 1.4)), 0, 5)
    loans = _whole(random.poisson(0.7 + 0.5 * (wealth < 0)), 0, 6)
    phone = (random.random(BORROWERS) < _odds(0.8 + 0.6 * wealth)).astype(np.float64)
    work = _choice(np.stack([0.4 - wealth, 1.0 + 0 * wealth, 0.6 * wealth + 0.02 * age - 0.4, 0.3 - steady]), random)
    housing = _choice(np.stack([0.8 - 0.5 * wealth, 0.04 * (age - 35) + wealth, -0.6 - 0.2 * steady]), random)
    purpose = _choice(random.normal(size=(6, 1)) + 0.4 * random.normal(size=(6, BORROWERS)), random)
    burden = np.log(amount / income)
    risk = (
        -1.4 + 0.9 * burden - 0.8 * steady - 0.04 * employed + 0.5 * loans + 0.3 * children * (housing == 0)
        + np.array([0.8, 0.0, -0.5, 0.4])[work] + np.array([0.5, -0.6, 0.9, 0.0, 0.2, -0.3])[purpose] * (months > 24)
    )  # fmt: skip
    label = (random.random(BORROWERS) < _odds(1.3 * risk)).astype(np.int64)
    numbers = [age, income, employed, months, amount, children, loans, phone]
    flags = [np.eye(codes.max() + 1)[codes] for codes in (work, housing, purpose)]
    return np.column_stack([*numbers, *flags]), label


def draw_subscribers() -> Table:
    """(6000, 14) subscribers and which of three plans they take next; always the same.

    Counts, minutes and amounts to one or two decimals, shares, four flags, and two categories as codes.
    """
    random = np.random.default_rng([1978, 2])
    talk, surf, thrift = random.normal(size=(3, SUBSCRIBERS))
    months = _whole(random.gamma(1.5, 18.0, SUBSCRIBERS), 1, 120)
    calls = _whole(random.poisson(np.exp(3.6 + 0.7 * talk)), 0, 900)
    minutes = (calls * random.gamma(4.0, 0.6, SUBSCRIBERS)).round(1)
    gigabytes = np.exp(1.2 + 0.8 * surf + 0.2 * random.normal(size=SUBSCRIBERS)).round(2)
    at_night = random.beta(2.0 + np.exp(0.3 * surf), 5.0).round(3)
    bill = (6 + 0.04 * minutes + 1.5 * gigabytes + random.exponential(4.0, SUBSCRIBERS)).round(2)
    complaints = _whole(random.poisson(np.exp(-0.8 - 0.5 * thrift)), 0, 12)
    lines = _whole(1 + random.poisson(0.6, SUBSCRIBERS), 1, 6)
    age = _whole(44 - 7 * surf + 13 * random.normal(size=SUBSCRIBERS), 16, 92)
    flags = (random.random((4, SUBSCRIBERS)) < _odds(np.stack([surf, talk, -thrift, 0.5 * surf - 1.0]))).astype(float)
    region = random.choice(9, SUBSCRIBERS, p=np.arange(9, 0, -1) / 45)
    device = _choice(np.stack([surf, 0.5 + 0 * surf, -surf - 0.3, 0.4 * thrift, 0.2 * talk]), random)
    wish = np.stack([
        0.9 * thrift - 0.05 * (bill - 20) + 0.4 * (region % 3 == 0),
        0.8 * talk + 0.25 * lines + 0.3 * flags[0] - 0.2 * complaints,
        1.1 * surf + 0.02 * (50 - age) + 0.4 * (device == 0) + 2.0 * (at_night - 0.3),
    ])  # fmt: skip
    label = _choice(2.0 * wish, random)
    numbers = [months, calls, minutes, gigabytes, at_night, bill, complaints, lines, age]
    return np.column_stack([*numbers, *flags[:3], region, device]), label


def _whole(values: NDArray[np.float64] | NDArray[np.int64], low: int, high: int, step: int = 1) -> NDArray[np.float64]:
    return np.asarray(np.clip(np.rint(values / step) * step, low, high), np.float64)


def _odds(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _choice(logits: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """(R,) one of K for each of R, from (K, R) logits."""
    return np.asarray(np.argmax(logits + random.gumbel(size=logits.shape), axis=0), np.int64)
