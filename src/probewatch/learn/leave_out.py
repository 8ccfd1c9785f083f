"""Leave one out: what detectors do on an attack family, a benign use or a data set that training never saw.

For each thing left out and each seed, everything that is learned (folds, scales, networks, calibration, thresholds,
rivals) comes from sessions of clients that had nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from probewatch.errors import ConfigError, DataError
from probewatch.learn.contest import OURS
from probewatch.learn.evaluate import tpr_at_fpr
from probewatch.learn.labelled import Labelled
from probewatch.learn.networks import USUAL_FPR, Ground, budget_of, conclude, fit_folds, prepare
from probewatch.learn.presets import Config
from probewatch.learn.resume import digest_labels
from probewatch.learn.rivals import Scores, score_learned, score_rivals
from probewatch.learn.threshold import pick_threshold
from probewatch.learn.unseen import Kind, LeaveOut, Thing, divide, eligible, sessions_of, things_of
from probewatch.learn.views import WHOLE
from probewatch.learn.workers import run_all
from probewatch.network import Network, summarise


class Measure(NamedTuple):
    """A figure of the table: of which kind of thing, its name in JSON, its words, and which end is best."""

    kind: Kind
    name: str
    words: str
    low_is_best: bool = False


MEASURES = (
    Measure("attack", "tpr_at_fpr", "TPR of attack families that training never saw"),
    Measure("benign", "fpr_at_threshold", "FPR of benign uses that training never saw", low_is_best=True),
    Measure("benign", "tpr_at_threshold", "TPR at the same thresholds, of attacks by clients that training held out"),
    Measure("dataset", "roc_auc", "ROC AUC on data sets that training never saw"),
    Measure("dataset", "tpr_at_fpr", "TPR on data sets that training never saw"),
    Measure("none", "roc_auc", "ROC AUC on clients that training never saw"),
    Measure("none", "tpr_at_fpr", "TPR on clients that training never saw"),
)


class Outcome(NamedTuple):
    """What one training without a thing came to.

    Attributes:
        figures: by measure and detector; None where the tested sessions cannot tell.
        max_fpr: the false-positive rate that rates are taken at.
        learned: sessions that were learned from.
        why: what made training impossible, empty where it was not.
    """

    figures: Mapping[str, Mapping[str, float | None]]
    max_fpr: float | None
    learned: int
    why: str = ""


def leave_out(
    data: Labelled,
    config: Config,
    by: LeaveOut,
    *,
    seeds: int = 3,
    workers: int = 1,
    told: Callable[[int, int, str], None] = lambda done, total, word: None,
) -> dict[str, Any]:
    """Train without each family, use or data set in turn, and tell how each detector does on it, as JSON values.

    Args:
        data: labelled sessions; unlabelled and allow-listed ones and other attacks count nowhere.
        config: every choice; clients are split whatever its ``split``, and its ``threshold`` is chosen anew. Seed
            number n adds n to its ``seed`` and ``split_seed``.
        by: ``family`` leaves out each attack family and each benign use, ``dataset`` each data set, ``none``
            nothing but clients.
        seeds: trainings for each thing.
        workers: processes; the result does not depend on their number.
        told: called before the first training and after each with how many are done, of how many, and a word on it.

    Returns:
        ``leave_out``, ``seeds``, ``data``, ``config``, ``max_fpr`` (the budget wished for: a row whose sample is too
        small for it has a larger one), ``skipped`` [{kind, name, why}] and ``tables``, one for each measure: {kind,
        measure, words, low_is_best, rows [{name, sessions, clients, learned, max_fpr, detectors}], mean, worst}.
        ``detectors`` and ``mean`` have {mean, low, high, seeds} for each detector, ``worst`` {name, mean}.

    Raises:
        ConfigError: fewer than one seed or worker, or a worker that was killed.
        DataError: nothing to leave out, or nothing can be learned without any of it.
        TrainingError: a loss that is not finite.
    """
    if seeds < 1 or workers < 1:
        raise ConfigError(f"--seeds is {seeds} and --workers {workers}, expected at least 1 of each.")
    config = replace(config, split="client", threshold=0.0)
    things = things_of(data, by)
    jobs = [
        (thing, replace(config, seed=config.seed + number, split_seed=config.split_seed + number))
        for thing in things
        for number in range(seeds)
    ]
    told(0, len(jobs), "")
    outcomes = run_all(train_without, data, jobs, workers, lambda at, done: told(done, len(jobs), _word(jobs[at])))
    by_thing = {thing: outcomes[at * seeds : (at + 1) * seeds] for at, thing in enumerate(things)}
    whys = {thing: next((one.why for one in ones if one.why), "") for thing, ones in by_thing.items()}
    skipped = [{"kind": thing.kind, "name": thing.name, "why": why} for thing, why in whys.items() if why]
    if len(skipped) == len(things):
        raise DataError(f"nothing could be left out, the first, {things[0].name or 'nothing'}, since {whys[things[0]]}")
    trained = {thing: ones for thing, ones in by_thing.items() if not whys[thing]}
    return {
        "leave_out": by,
        "seeds": seeds,
        "data": {
            "sha256": data.sha256,
            "labels": digest_labels(data),
            "sessions": len(data.sessions),
            "profiles": sorted(data.profiles),
        },
        "config": config.to_json(),
        "max_fpr": config.max_fpr or USUAL_FPR,
        "skipped": skipped,
        "tables": [
            _table(data, measure, trained) for measure in MEASURES if any(measure.kind == one.kind for one in trained)
        ],
    }


def train_without(data: Labelled, job: tuple[Thing, Config]) -> Outcome:
    """Train the networks and the rivals without a thing, and measure them on it."""
    thing, config = job
    try:
        with threadpool_limits(1):  # the same sums whatever the number of workers
            return _train_without(data, thing, config)
    except DataError as error:
        return Outcome({}, None, 0, str(error))


def _train_without(data: Labelled, thing: Thing, config: Config) -> Outcome:
    parts = divide(data, thing, config)
    tested = parts.split.test
    ground = prepare(data, parts.split, config)
    trained = fit_folds(ground, data.label, config, torch.device("cpu"))
    graph, threshold, held = conclude(ground, trained, data.label, config)
    part = ground.views[WHOLE].take(tested)
    logits, _ = Network(graph, list(config.features)).run(part)
    ours = summarise(logits, part.offsets, threshold, config.decision)[0]
    rivals = score_rivals(data.sessions, ground.views[WHOLE], data.label, ground.seen, seed=config.seed)
    scores = {OURS: ours, **{name: score[tested] for name, score in rivals.items()}}
    if thing.kind == "benign":
        return Outcome(
            _at_thresholds(scores, {OURS: held, **_held(data, ground, rivals, config)}, data.label, ground),
            ground.budget,
            len(ground.learned),
        )
    label = data.label[tested]
    benign = int(np.sum(label == 0))
    max_fpr = budget_of(config, benign) if benign else None
    figures = {
        "tpr_at_fpr": {
            name: tpr_at_fpr(label, score, max_fpr) if max_fpr is not None else None for name, score in scores.items()
        }
    }
    if thing.kind != "attack":
        figures["roc_auc"] = {name: _roc_auc(label, score) for name, score in scores.items()}
    return Outcome(figures, max_fpr, len(ground.learned))


def _held(data: Labelled, ground: Ground, rivals: Mapping[str, Scores], config: Config) -> dict[str, Scores]:
    """(S,) scores of each rival on the sessions that our threshold comes from, as it did not learn from them."""
    held = {name: score.copy() for name, score in rivals.items()}
    for train, valid in ground.folds:
        learned = score_learned(data.sessions, ground.views[WHOLE], data.label, train, seed=config.seed)
        for name, score in learned.items():
            held[name][valid] = score[valid]
    return held


def _at_thresholds(
    scores: Mapping[str, Scores], held: Mapping[str, Scores], label: NDArray[np.int8], ground: Ground
) -> dict[str, dict[str, float | None]]:
    """The share of unseen sessions alerted, and of the held attacks, at the threshold that the held benign ones set."""
    validated = np.concatenate([valid for _, valid in ground.folds])
    benign, attacks = validated[label[validated] == 0], validated[label[validated] == 1]
    thresholds = {name: pick_threshold(score[benign], ground.budget) for name, score in held.items()}
    return {
        "fpr_at_threshold": {name: float(np.mean(score >= thresholds[name])) for name, score in scores.items()},
        "tpr_at_threshold": {name: float(np.mean(held[name][attacks] >= one)) for name, one in thresholds.items()},
    }


def _roc_auc(label: NDArray[np.int8], score: Scores) -> float | None:
    return float(roc_auc_score(label, score)) if len(np.unique(label)) > 1 else None


def _word(job: tuple[Thing, Config]) -> str:
    thing, config = job
    return f"without {thing.name or 'nothing'}, seed {config.seed}"


def _table(data: Labelled, measure: Measure, trained: Mapping[Thing, list[Outcome]]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    owner = data.by_actor.client
    for thing, outcomes in trained.items():
        if thing.kind != measure.kind:
            continue
        left = np.flatnonzero(eligible(data)) if thing.kind == "none" else sessions_of(data, thing)
        rows.append(
            {
                "name": thing.name,
                "sessions": len(left),
                "clients": len(set(owner[left])),
                "learned": [one.learned for one in outcomes],
                "max_fpr": None if measure.name == "roc_auc" else _widest(outcomes),
                "detectors": {
                    name: _spread([one.figures[measure.name][name] for one in outcomes])
                    for name in outcomes[0].figures[measure.name]
                },
            }
        )
    names = list(rows[0]["detectors"])
    return {
        "kind": measure.kind,
        "measure": measure.name,
        "words": measure.words,
        "low_is_best": measure.low_is_best,
        "rows": rows,
        "mean": {name: _mean(rows, name) for name in names},
        "worst": {name: _worst(rows, name, measure.low_is_best) for name in names},
    }


def _widest(outcomes: list[Outcome]) -> float | None:
    return max((one.max_fpr for one in outcomes if one.max_fpr is not None), default=None)


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None, "seeds": values}
    return {"mean": float(np.mean(known)), "low": min(known), "high": max(known), "seeds": values}


def _mean(rows: list[dict[str, Any]], detector: str) -> dict[str, Any]:
    """The mean over all rows, seed by seed."""
    means: list[float | None] = []
    for values in zip(*(row["detectors"][detector]["seeds"] for row in rows), strict=True):
        known = [value for value in values if value is not None]
        means.append(float(np.mean(known)) if known else None)
    return _spread(means)


def _worst(rows: list[dict[str, Any]], detector: str, low_is_best: bool) -> dict[str, Any]:
    means = [(row["detectors"][detector]["mean"], row["name"]) for row in rows]
    known = [pair for pair in means if pair[0] is not None]
    if not known:
        return {"name": None, "mean": None}
    mean, name = (max if low_is_best else min)(known, key=lambda pair: pair[0])
    return {"name": name, "mean": mean}
