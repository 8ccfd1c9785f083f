"""Data sets drawn at random, no two of a kind: who learns on many models, of many kinds of data, holds on others."""

from __future__ import annotations

from itertools import count

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.people import Table

RECORDS = 2600
PICTURES = 0.2  # share of the data sets
FEWEST = 400  # distinct records, so that there are some to train on and others to ask for
FEWEST_OF_A_CLASS = 200  # so that hardly a training set lacks one
Column = NDArray[np.float64]


def draw_records(number: int) -> Table:
    """(2600, D) inputs and (2600,) labels of the drawn data set of this number; always the same.

    Either small pictures, or 4 to some 60 columns that hang together by factors behind them: measures, amounts and
    shares rounded to so many digits, counts, answers on a scale, flags, and categories as codes or one-hot.
    """
    for attempt in count():
        random = np.random.default_rng([1978, 3, number, attempt])
        inputs, label = _draw_pictures(random) if random.random() < PICTURES else _draw_columns(random)
        distinct, first = np.unique(inputs, axis=0, return_index=True)
        classes = np.unique(label[first], return_counts=True)[1]
        if len(distinct) >= FEWEST and len(classes) > 1 and classes.min() >= FEWEST_OF_A_CLASS:
            break
    return inputs + 0.0, label  # no -0


def _draw_pictures(random: np.random.Generator) -> Table:
    """Some spots a class, each somewhat elsewhere in every picture."""
    side, spots, classes = int(random.choice([6, 8, 10])), int(random.integers(2, 8)), int(random.integers(2, 11))
    label = random.integers(classes, size=RECORDS)
    middle = random.uniform(0, side, (classes, spots, 2))[label] + random.normal(0, 0.5, (RECORDS, spots, 2))
    bright = random.uniform(0.3, 1.0, (classes, spots))[label] * random.uniform(0.6, 1.2, (RECORDS, spots))
    wide = random.uniform(0.6, 1.6, (classes, spots))[label]
    away = (np.arange(side)[:, None] - middle[:, :, None]) ** 2 / (2.0 * wide[:, :, None, None] ** 2)  # each way
    spread = np.exp(-away[..., 0][..., :, None] - away[..., 1][..., None, :])  # (R, spots, side, side)
    grey = np.einsum("rs,rsij->rij", bright, spread) + random.normal(0, 0.03, (RECORDS, side, side))
    grey = np.clip(grey, 0.0, 1.2) / 1.2
    grey[grey < 0.08] = 0.0
    return np.rint(grey.reshape(RECORDS, -1) * random.choice([16, 255])), label


def _draw_columns(random: np.random.Generator) -> Table:
    """Numbers and categories, made of what a few factors behind them give each record."""
    columns = int(np.exp(random.uniform(np.log(4), np.log(45))))
    factors = max(2, int(columns * random.uniform(0.2, 0.8)))
    behind = random.normal(size=(RECORDS, factors))
    if random.random() < 0.5:  # groups of records
        groups = int(random.integers(2, 7))
        behind += 2.0 * random.normal(size=(groups, factors))[random.integers(groups, size=RECORDS)]
    weights = random.normal(size=(factors, columns)) * (random.random((factors, columns)) < random.uniform(0.3, 1.0))
    values = behind @ weights / np.sqrt(factors) + random.uniform(0.1, 1.0) * random.normal(size=(RECORDS, columns))
    discrete = random.choice([0.0, 0.55, 1.0])
    drawn: list[Column] = []
    for value in values.T:
        if random.random() >= discrete:
            drawn.append(_decimal(value, random))
        elif random.random() < 0.25:
            drawn += _category(value, random)
        else:
            drawn.append(_whole(value, random))
    return np.column_stack(drawn), _answer(behind, random)


def _answer(behind: Column, random: np.random.Generator) -> NDArray[np.int64]:
    """(R,) classes that hang on the factors in no straight way."""
    factors, classes = behind.shape[1], int(random.choice([2, 2, 2, 3, 4, 6]))
    bent = np.tanh(1.5 * behind @ random.normal(size=(factors, 12)) / np.sqrt(factors))
    wish = random.uniform(1.0, 3.0) * bent @ random.normal(size=(12, classes))
    noise = random.uniform(0.1, 1.0) * random.gumbel(size=wish.shape)
    return np.asarray(np.argmax(wish + noise, axis=1), np.int64)


def _decimal(value: Column, random: np.random.Generator) -> Column:
    """A measure, an amount, a share, or an amount that most do not have."""
    digits, scale = int(random.choice([1, 2, 3, 4, 6])), float(10.0 ** random.uniform(-1, 3))
    kind = random.random()
    if kind < 0.4:
        return np.round(scale * (value + random.uniform(-2, 5)), digits)
    if kind < 0.7:
        return np.round(scale * np.exp(0.7 * value), digits)
    if kind < 0.85:
        return np.round(1.0 / (1.0 + np.exp(-value)), max(digits, 2))
    return np.round(np.where(value > random.normal(), scale * np.exp(value), 0.0), digits)


def _whole(value: Column, random: np.random.Generator) -> Column:
    """An answer on a scale, a flag, a count, or a number to the next one, five or ten."""
    kind = random.random()
    if kind < 0.45:
        return np.clip(np.rint(value * random.uniform(0.7, 3.0) + 3.0), 0.0, random.integers(3, 12))
    if kind < 0.6:
        return (value > random.normal()).astype(np.float64)
    if kind < 0.8:
        return random.poisson(np.exp(np.clip(0.6 * value + random.uniform(-1, 3), -4, 6))).astype(np.float64)
    step = random.choice([1, 5, 10])
    return np.asarray(step * np.rint((value * random.uniform(5, 20) + 40.0) / step), np.float64)


def _category(value: Column, random: np.random.Generator) -> list[Column]:
    """One of some: its code, or a flag for each."""
    kinds = int(random.integers(3, 7))
    code = np.argmax(np.outer(value, random.normal(size=kinds)) + random.gumbel(size=(RECORDS, kinds)), axis=1)
    return [*np.eye(kinds)[code].T] if random.random() < 0.5 else [code.astype(np.float64)]
