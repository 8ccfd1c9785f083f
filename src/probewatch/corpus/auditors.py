"""Benign uses that test a model: for robustness, fairness, sensitivity, importance of columns, and regressions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.client import Client
from probewatch.corpus.sources import Source

LEVELS = (3, 8)  # of noise, the lowest none
WORST = (0.3, 2.0)  # noise, in each column's own deviations
GROUPS = (2, 6)  # values of a column that fairness is tested for
NUDGE = (0.05, 1.0)  # of a column, in its own deviations
NUDGED = 40  # columns of a record, at most
TABLE = (5, 60)  # records that are asked about again with a column permuted
FIXED = (10, 120)  # records of a regression test


def audit_robustness(client: Client, random: np.random.Generator) -> Source:
    """Each record under more and more noise, a record or a level after the other.

    Hendrycks, Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".
    """
    levels = int(random.integers(*LEVELS, endpoint=True))
    amounts = np.linspace(0.0, random.uniform(*WORST), levels)
    records = client.pick(-(-client.budget // levels), random)
    if random.random() < 0.5:
        records, amounts = np.repeat(records, levels, axis=0), np.tile(amounts, len(records))
    else:
        records, amounts = np.tile(records, (levels, 1)), np.repeat(amounts, len(records))
    amount: NDArray[np.float64] = np.asarray(amounts[:, None], np.float64)
    yield np.where(amount > 0, client.grid.jitter(records, amount, random), records)[: client.budget]
    return None


def audit_fairness(client: Client, random: np.random.Generator) -> Source:
    """Each record, and then as if the person were of another group: a column takes its other values.

    Kusner, Loftus, Russell, Silva 2017, "Counterfactual Fairness"; Galhotra, Brun, Meliou 2017, "Fairness Testing:
    Testing Software for Discrimination".
    """
    grid = client.grid
    few = [column for column in grid.fields.tolist() if grid.categories[column] is not None]
    column = int(random.choice(few or grid.fields))
    values = grid.span(column, int(random.integers(*GROUPS, endpoint=True)))
    records = client.pick(-(-client.budget // (1 + len(values))), random)
    others = grid.mix(np.arange(len(grid)) == column, values, records[:, None])
    asked = np.concatenate([records[:, None], others], axis=1).reshape(-1, len(grid))
    yield asked[: client.budget]
    return None


def audit_sensitivity(client: Client, random: np.random.Generator) -> Source:
    """Each record, and then with one column after the other nudged.

    Morris 1991, "Factorial Sampling Plans for Preliminary Computational Experiments" (one at a time).
    """
    grid = client.grid
    fields = random.permutation(grid.fields)[:NUDGED]
    nudge = random.uniform(*NUDGE)
    records = client.pick(-(-client.budget // (1 + len(fields))), random)
    asked = np.repeat(records, 1 + len(fields), axis=0)
    nudged = np.vstack([np.zeros(len(grid), np.bool_), np.arange(len(grid)) == fields[:, None]])
    yield grid.mix(np.tile(nudged, (len(records), 1)), grid.jitter(asked, nudge, random), asked)[: client.budget]
    return None


def audit_importance(client: Client, random: np.random.Generator) -> Source:
    """A table of records, and then again and again with one column permuted.

    Breiman 2001, "Random Forests", section 10; Fisher, Rudin, Dominici 2019, "All Models are Wrong, but Many are
    Useful".
    """
    records = client.pick(int(random.integers(*TABLE, endpoint=True)), random)
    rounds = -(-client.budget // len(records))
    asked = [records]
    for column in np.resize(random.permutation(client.grid.fields), rounds - 1).tolist():
        permuted = np.arange(len(client.grid)) == column
        asked.append(client.grid.mix(permuted, random.permutation(records), records))
    yield np.concatenate(asked)[: client.budget]
    return None


def audit_regression(client: Client, random: np.random.Generator) -> Source:
    """The same table of records in the same order, at each release of whatever depends on the model.

    Breck, Cai, Nielsen, Salib, Sculley 2017, "The ML Test Score".
    """
    records = client.pick(int(random.integers(*FIXED, endpoint=True)), random)
    yield np.resize(records, (client.budget, len(client.grid)))
    return None
