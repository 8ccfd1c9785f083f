"""The table of benign uses and of attacks on other things than membership; and the plain uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from probewatch.corpus.analysts import (
    ask_alike,
    ask_averaged,
    ask_imputed,
    ask_lime,
    ask_made_up,
    ask_shap,
    ask_sweep,
    ask_what_if,
    learn_actively,
    rank_options,
)
from probewatch.corpus.auditors import (
    audit_fairness,
    audit_importance,
    audit_regression,
    audit_robustness,
    audit_sensitivity,
)
from probewatch.corpus.client import Client as Client
from probewatch.corpus.intruders import extract_model, search_adversarial
from probewatch.corpus.sources import Source

LOOKED_AT = (1, 6)  # queries of a person about one record
EDITED = 3  # columns that a person edits at a time, at most
PROBES = (1, 4)  # records of a health check
LOADS = (5, 60)  # records of a load test
REPEATS = (0.05, 0.3)  # share of queries that are sent again
RESTART = 0.02  # chance after a query that a job goes back
BACK = 20  # queries, at most
ENTRIES = (2, 15)  # queries while a form is filled in
KEPT = (5, 60)  # records that are kept and scored anew
NEWS = (0.02, 0.3)  # share of a kept record's columns that change from one time to the next
WANDER = (0.02, 0.3)  # of a device's readings about their drift, in each column's own deviations


@dataclass(frozen=True)
class Use:
    """One way to use a model.

    Args:
        start: gives the source for a session.
        text: what it does, in a sentence.
        records: whose records the client has: customers', those the model was trained on, or the attackers' own.
        attack: ``labels.csv``'s word for what it is.
        further: it is in no mix that does not name it.
    """

    start: Callable[[Client, np.random.Generator], Source]
    text: str
    records: Literal["customers", "members", "own"] = "customers"
    attack: Literal["none", "extraction", "evasion"] = "none"
    further: bool = False


def look_up(client: Client, random: np.random.Generator) -> Source:
    """A person who looks records up, asks again, and now and then edits some fields first."""
    parts = client.shares(*LOOKED_AT, random)
    records = np.repeat(client.pick(len(parts), random), parts, axis=0)
    edits = random.integers(EDITED, size=client.budget, endpoint=True)
    edits[np.cumsum(parts) - parts] = 0  # first as it is
    free = client.grid.fields
    edited = np.zeros(records.shape, np.bool_)
    edited[:, free] = random.random((client.budget, len(free))).argsort(axis=1).argsort(axis=1) < edits[:, None]
    yield client.grid.mix(edited, client.grid.draw(client.budget, random), records)
    return None


def score_batch(client: Client, random: np.random.Generator) -> Source:
    """A job that scores a table of records, each once."""
    yield client.pick(client.budget, random)
    return None


def check_health(client: Client, random: np.random.Generator) -> Source:
    """A monitor that asks the same few questions all the time."""
    probes = client.pick(int(random.integers(*PROBES, endpoint=True)), random)
    yield probes[np.arange(client.budget) % len(probes)]
    return None


def test_load(client: Client, random: np.random.Generator) -> Source:
    """A load test that sends recorded or made-up inputs over and over."""
    count = int(random.integers(*LOADS, endpoint=True))
    recorded = random.random() < 0.7
    payloads = client.pick(count, random) if recorded else client.grid.draw(count, random)
    yield payloads[random.integers(count, size=client.budget)]
    return None


def send_readings(client: Client, random: np.random.Generator) -> Source:
    """A device whose readings wander about a state that drifts from one record towards another."""
    ends = client.pick(2, random)
    way = np.linspace(0.0, random.uniform(0.1, 1.0), client.budget)[:, None]
    amount = np.exp(random.uniform(*np.log(WANDER)))
    yield client.grid.jitter(client.grid.snap(ends[0] + way * (ends[1] - ends[0])), amount, random)
    return None


def retry(client: Client, random: np.random.Generator) -> Source:
    """A job whose queries time out, are sent again, and that goes back to a checkpoint when it is restarted."""
    again = random.uniform(*REPEATS)
    order: list[int] = []
    at = 0
    while len(order) < client.budget:
        order += [at] * int(random.geometric(1.0 - again))
        at = max(0, at - int(random.integers(BACK))) if random.random() < RESTART else at + 1
    yield client.pick(max(order) + 1, random)[order[: client.budget]]
    return None


def fill_forms(client: Client, random: np.random.Generator) -> Source:
    """A form that asks anew with each entry: the columns go from a usual record's to the person's, in a fixed order."""
    entries = int(random.integers(*ENTRIES, endpoint=True))
    grid = client.grid
    usual = grid.snap(np.median(client.records, axis=0)[None])
    when = np.zeros(len(grid))
    when[grid.fields] = (random.permutation(len(grid.fields)) + 1) / len(grid.fields)
    filled = when <= np.linspace(0.0, 1.0, entries)[:, None]
    records = client.pick(-(-client.budget // entries), random)
    yield grid.mix(filled, records[:, None], usual).reshape(-1, len(grid))[: client.budget]
    return None


def score_updates(client: Client, random: np.random.Generator) -> Source:
    """A job that scores the same records from time to time, of which some columns have changed a little since."""
    records = client.pick(int(random.integers(*KEPT, endpoint=True)), random)
    share, amount = random.uniform(*NEWS), np.exp(random.uniform(*np.log(WANDER)))
    asked = [records]
    for _ in range(client.budget // len(records)):
        changed = random.random(records.shape) < share
        asked.append(client.grid.mix(changed, client.grid.jitter(asked[-1], amount, random), asked[-1]))
    yield np.concatenate(asked)[: client.budget]
    return None


USES: dict[str, Use] = {
    "people": Use(look_up, "a person looks records up and now and then edits some fields"),
    "batch": Use(score_batch, "a job scores a table of records, each once"),
    "health_check": Use(check_health, "a monitor asks the same few questions all the time"),
    "load_test": Use(test_load, "a load test sends a few inputs over and over"),
    "what_if": Use(ask_what_if, "an analyst changes a field at a time towards another answer"),
    "grid_sweep": Use(ask_sweep, "a program asks for every combination of one or two columns' values"),
    "lime": Use(ask_lime, "a LIME-style explainer asks for samples around a record"),
    "shap": Use(ask_shap, "a SHAP-style explainer asks for mixtures of a record and background records"),
    "device": Use(send_readings, "a device sends readings that drift"),
    "retries": Use(retry, "a job sends queries again that timed out"),
    "form": Use(fill_forms, "a form asks anew with each entry, until the record is complete", further=True),
    "updates": Use(score_updates, "a job scores the same records from time to time, as they change", further=True),
    "ranking": Use(rank_options, "a recommender asks about each record with the same few options", further=True),
    "active_learning": Use(learn_actively, "a labelling tool asks again about what is least sure", further=True),
    "averaging": Use(ask_averaged, "a program averages the answers to noisy copies of each record", further=True),
    "imputation": Use(ask_imputed, "a job tries several values for what is missing in each record", further=True),
    "synthetic": Use(ask_made_up, "a job scores synthetic records, each between two like ones", further=True),
    "cohort": Use(ask_alike, "an analyst asks about a record and those most like it", further=True),
    "robustness": Use(audit_robustness, "an auditor asks about records under more and more noise", further=True),
    "fairness": Use(audit_fairness, "an auditor asks about records as if they were of another group", further=True),
    "sensitivity": Use(audit_sensitivity, "an auditor nudges one column of each record after the other", further=True),
    "importance": Use(audit_importance, "an auditor permutes one column of a table after the other", further=True),
    "regression_test": Use(audit_regression, "a test scores the same table at each release", further=True),
    "rescoring": Use(score_batch, "a job scores the customers that the model was trained on", records="members"),
    "extraction": Use(
        extract_model, "an attacker copies the model with inputs near its boundaries", "own", "extraction"
    ),
    "adversarial_search": Use(
        search_adversarial, "an attacker changes columns until the answer turns", "own", "evasion"
    ),
}
"""By family, as ``labels.csv`` names it."""
