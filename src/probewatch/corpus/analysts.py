"""Benign uses that ask around a record: what-if analysis, sweeps and explainers."""

from __future__ import annotations

import numpy as np

from probewatch.corpus.client import Client
from probewatch.corpus.sources import Source

VALUES = (2, 8)  # of a column that a what-if analyst tries
CHANGES = (1, 8)  # that a what-if analyst makes to one record
SWEPT = (4, 12)  # values of a column that is swept
SAMPLES = (15, 150)  # of a LIME-style explainer around one record
COALITIONS = (15, 150)  # of a SHAP-style explainer for one record
BACKGROUND = (1, 8)  # records of a SHAP-style explainer


def ask_what_if(client: Client, random: np.random.Generator) -> Source:
    """An analyst who changes one field at a time and goes on from what moved the answer most."""
    left = client.budget
    while left:
        record = client.pick(1, random)
        answers = yield record
        left -= 1
        label = int(answers[0].argmax())
        for _ in range(int(random.integers(*CHANGES, endpoint=True))):
            if not left:
                break
            column = int(random.choice(client.grid.fields))
            values = client.grid.span(column, int(random.integers(*VALUES, endpoint=True)))[:left]
            tried = client.grid.mix(np.arange(len(client.grid)) == column, values, record)
            answers = yield tried
            left -= len(tried)
            record = tried[[int(answers[:, label].argmin())]]
    return None


def ask_sweep(client: Client, random: np.random.Generator) -> Source:
    """A program that asks for every combination of one or two columns' values, for a record after the other.

    Partial dependence and individual conditional expectation: Friedman 2001, "Greedy Function Approximation",
    section 8.2; Goldstein, Kapelner, Bleich, Pitkin 2015, "Peeking Inside the Black Box".
    """
    grid = client.grid
    columns = random.permutation(grid.fields)[: int(random.integers(1, 3))].tolist()
    values = [grid.span(column, int(random.integers(*SWEPT, endpoint=True))) for column in columns]
    places = np.stack(np.meshgrid(*map(np.arange, map(len, values)), indexing="ij"), axis=-1).reshape(-1, len(columns))
    records = client.pick(-(-client.budget // len(places)), random)
    swept = np.repeat(records, len(places), axis=0)
    for column, own, place in zip(columns, values, places.T, strict=True):
        swept = grid.mix(np.arange(len(grid)) == column, np.tile(own[place], (len(records), 1)), swept)
    yield swept[: client.budget]
    return None


def ask_lime(client: Client, random: np.random.Generator) -> Source:
    """A LIME-style explainer: a record, then normal samples around it, or around the mean record as LIME's default.

    Ribeiro, Singh, Guestrin 2016, "Why Should I Trust You?", section 3.3; for tables as the package lime has it.
    """
    around = random.random() < 0.5
    mean = client.records.mean(axis=0)
    asked = []
    for part in client.shares(*SAMPLES, random):
        record = client.pick(1, random)
        center = np.repeat(record if around else client.grid.snap(mean[None]), part - 1, axis=0)
        asked += [record, client.grid.jitter(center, 1.0, random)]
    yield np.concatenate(asked)
    return None


def ask_shap(client: Client, random: np.random.Generator) -> Source:
    """A SHAP-style explainer: a record, then mixtures that take some of its columns and the others from a background.

    Lundberg, Lee 2017, "A Unified Approach to Interpreting Model Predictions", section 4.1 (Kernel SHAP). The sizes of
    the coalitions follow its kernel, and each coalition comes with its complement.
    """
    free = len(client.grid.fields)
    background = client.pick(int(random.integers(*BACKGROUND, endpoint=True)), random)
    sizes = np.arange(1, max(2, free))
    weight = 1.0 / (sizes * np.maximum(free - sizes, 1))
    asked = []
    for part in client.shares(*COALITIONS, random):
        record = client.pick(1, random)
        coalitions = -(-(part - 1) // len(background))
        size = random.choice(sizes, -(-coalitions // 2), p=weight / weight.sum())
        places = random.random((len(size), free)).argsort(axis=1).argsort(axis=1)
        half = places < size[:, None]
        taken = np.zeros((2 * len(size), len(client.grid)), np.bool_)
        taken[::2, client.grid.fields], taken[1::2, client.grid.fields] = half, ~half
        mixed = client.grid.mix(taken[:coalitions, None], record[0], background)  # (coalitions, background, D)
        asked += [record, mixed.reshape(-1, len(client.grid))[: part - 1]]
    yield np.concatenate(asked)
    return None
