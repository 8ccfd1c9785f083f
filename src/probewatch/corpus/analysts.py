"""Benign uses that ask around a record: what-if analysis, sweeps, explainers, averages, and what is like it."""

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
COPIES = (2, 32)  # of a record whose answers are averaged
BLUR = (0.01, 0.3)  # of these copies, in each column's own deviations
DRAWS = (3, 20)  # of what is missing in a record
MISSING = (0.05, 0.4)  # share of a record's columns
NEAREST = 5  # records, to one of which a made-up record lies
ALIKE = (4, 40)  # records that are most like one
OPTIONS = (4, 40)  # that are ranked for each record
OPTION_SHARE = (0.1, 0.6)  # of the columns, which tell of the option
FIRST_SHARE = (0.2, 0.6)  # of an active learner's budget that goes to records it has not seen
ROUND = (5, 40)  # records of which an active learner asks again at a time


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


def ask_averaged(client: Client, random: np.random.Generator) -> Source:
    """Test-time augmentation: each record with noisy copies of it, whose answers are averaged.

    Shanmugam, Blalock, Balakrishnan, Guttag 2021, "Better Aggregation in Test-Time Augmentation"; Cohen, Rosenfeld,
    Kolter 2019, "Certified Adversarial Robustness via Randomized Smoothing", asks about copies alone.
    """
    copies = int(np.exp(random.uniform(*np.log(COPIES))))
    records = np.repeat(client.pick(-(-client.budget // copies), random), copies, axis=0)
    asked = client.grid.jitter(records, np.exp(random.uniform(*np.log(BLUR))), random)
    if random.random() < 0.7:
        asked[::copies] = records[::copies]
    yield asked[: client.budget]
    return None


def ask_imputed(client: Client, random: np.random.Generator) -> Source:
    """Records that lack some columns, several times with what others have there.

    Multiple imputation by hot deck: Rubin 1987, "Multiple Imputation for Nonresponse in Surveys"; Andridge, Little
    2010, "A Review of Hot Deck Imputation".
    """
    draws, share = int(random.integers(*DRAWS, endpoint=True)), random.uniform(*MISSING)
    records = client.pick(-(-client.budget // draws), random)
    fields = client.grid.fields
    missing = np.zeros(records.shape, np.bool_)
    missing[:, fields] = random.random((len(records), len(fields))) < share
    missing[np.arange(len(records)), fields[random.integers(len(fields), size=len(records))]] = True
    donors = client.records[random.integers(len(client.records), size=draws * len(records))]
    lacking = np.repeat(missing, draws, axis=0)
    yield client.grid.mix(lacking, donors, np.repeat(records, draws, axis=0))[: client.budget]
    return None


def ask_made_up(client: Client, random: np.random.Generator) -> Source:
    """A table of synthetic records, each somewhere between a record and one of those nearest to it.

    Chawla, Bowyer, Hall, Kegelmeyer 2002, "SMOTE: Synthetic Minority Over-sampling Technique", section 4.2.
    """
    records = client.pick(client.budget, random)
    nearest = client.nearest(records, 1 + NEAREST)[:, 1:]
    others = client.records[nearest[np.arange(len(records)), random.integers(nearest.shape[1], size=len(records))]]
    yield client.grid.snap(records + random.random((len(records), 1)) * (others - records))
    return None


def ask_alike(client: Client, random: np.random.Generator) -> Source:
    """A record and those that are most like it, the nearest first; then another.

    Case-based reasoning: Aamodt, Plaza 1994, "Case-Based Reasoning: Foundational Issues, Methodological Variations".
    """
    parts = client.shares(*ALIKE, random)
    nearest = client.nearest(client.pick(len(parts), random), max(parts))
    yield np.concatenate([client.records[np.resize(row, part)] for row, part in zip(nearest, parts, strict=True)])
    return None


def rank_options(client: Client, random: np.random.Generator) -> Source:
    """A recommender that asks about each record with the same few options: some columns tell of these, not of it."""
    options = client.pick(int(random.integers(*OPTIONS, endpoint=True)), random)
    fields = client.grid.fields
    own = np.zeros(len(client.grid), np.bool_)
    own[random.permutation(fields)[: max(1, int(len(fields) * random.uniform(*OPTION_SHARE)))]] = True
    records = client.pick(-(-client.budget // len(options)), random)
    yield client.grid.mix(own, options, records[:, None]).reshape(-1, len(client.grid))[: client.budget]
    return None


def learn_actively(client: Client, random: np.random.Generator) -> Source:
    """Asks about records, and then, while people label them, again and again about those that are least sure.

    Lewis, Gale 1994, "A Sequential Algorithm for Training Text Classifiers" (uncertainty sampling).
    """
    pool = client.pick(max(1, int(client.budget * random.uniform(*FIRST_SHARE))), random)
    sure = (yield pool).max(axis=1)
    left = client.budget - len(pool)
    while left:
        again = np.argsort(sure, kind="stable")[: min(left, int(random.integers(*ROUND, endpoint=True)))]
        yield pool[again]
        sure[again] = np.where(random.random(len(again)) < 0.5, np.inf, sure[again])  # labelled by now
        if np.isinf(sure).all():  # the next round begins
            sure[:] = 0.0
        left -= len(again)
    return None
