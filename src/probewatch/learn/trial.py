"""What a detector and its rivals do on sessions that they did not learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.bundle import Bundle, Overlap
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.ragged import Ragged
from probewatch.errors import DataError
from probewatch.learn.dataset import Split
from probewatch.learn.evaluate import evaluate
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import Config
from probewatch.learn.report import RIVAL_PREFIX, write_report
from probewatch.learn.resume import digest_queries
from probewatch.learn.rivals import score_learned, score_rivals
from probewatch.learn.threshold import loosest_budget, pick_threshold, supports
from probewatch.network import Network, prior_shift, shifted, summarise, tell_prior

RANKED = ("roc_auc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")  # no threshold matters to them
WEIGHED = (
    "Loss, Brier score and calibration weigh the test's sessions so that attacks have that share; precision, F1 and"
    " average precision are at the test's own."
)
RULES = ("count_per_hour", "prada", "near_duplicates")  # rivals whose scores are no probabilities


def evaluate_detector(
    bundle: Bundle,
    data: Labelled,
    folder: Path,
    *,
    prior: float | None = None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score labelled sessions with a bundle and write ``folder/report``; returns the metrics.

    On the bundle's own training log only the test sessions count, known by the hash of its bytes or of its queries.

    Args:
        prior: the share of attacks at which scores shall be probabilities, instead of the training's; the threshold
            moves with them.
        source: ``detector`` and ``logs``, how the report names what was evaluated.

    Raises:
        DataError: no labelled session.
        ConfigError: ``prior`` is not above 0 and below 1.
    """
    shift = 0.0 if prior is None else prior_shift(prior, bundle.prior)
    sequences = compute(data.sessions, bundle.features, Known(bundle.scales, data.profiles))
    config = Config().with_changes(bundle.manifest["config"])
    notes, counted = [], data.label >= 0
    own = bundle.manifest["data"]
    if data.sha256 == own["sha256"] or digest_queries(data) == own.get("queries"):  # the same log in another form
        counted &= bundle.holds_out(data.sessions)
        notes.append("This is the log that the detector was trained on: only the sessions of its test split count.")
    counted |= data.aside
    tested = np.flatnonzero(counted)
    if not len(tested):
        raise DataError("the log has no labelled session to evaluate on; give --labels.")
    if prior is not None:
        notes.append(f"{tell_prior(prior, bundle.prior)} {WEIGHED}")
    metrics, predictions = measure(
        data, sequences, bundle.graph, bundle.threshold, config, tested, shift=shift, prior=prior
    )
    predictions["split"] = np.where(counted, "test", "left out").astype(object)
    met = tested[~data.aside[tested]]
    overlap = Overlap.of(bundle, set(data.sessions.client[met]), set(data.sessions.model[met]), data.profiles)
    notes += overlap.sentences()
    metrics |= {"notes": notes, "overlap": overlap.to_json(), "max_fpr": bundle.manifest["metrics"].get("max_fpr")}
    metrics |= {"source": source, "profiles": tell_profiles(data, met) if bundle.wants_profiles else None}
    metrics["prior"] = bundle.prior if prior is None else prior
    write_report(
        folder / "report", metrics=metrics, predictions=predictions, history=None, title="Probewatch: evaluation"
    )
    return metrics


def tell_profiles(data: Labelled, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """How many of the ``chosen`` sessions, and of their models, were judged by a profile, as JSON values.

    Returns:
        ``models`` and ``sessions``, the names ``models_without`` a profile, ``sessions_without`` one, and
        ``sessions_estimated``, whose profile was estimated from a log.
    """
    models = Counter(data.sessions.model[chosen].tolist())
    without = sorted(models.keys() - data.profiles.keys())
    return {
        "models": len(models),
        "models_without": without,
        "sessions": models.total(),
        "sessions_without": sum(models[name] for name in without),
        "sessions_estimated": sum(models[name] for name, one in data.profiles.items() if one.estimated),
    }


def measure(
    data: Labelled,
    sequences: Ragged,
    graph: bytes,
    threshold: float,
    config: Config,
    tested: NDArray[np.int64],
    *,
    shift: float = 0.0,
    prior: float | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics over the ``tested`` sessions, and predictions on all of them; ``shift`` moves scores and threshold.

    ``prior`` is the share of attacks that the shift is for, if it is for one.

    Where the highest score of a session decides, ``finished`` has how well the last ones rank: the learned rivals judge
    finished sessions, too.
    """
    logits, _ = Network(graph, list(config.features)).run(sequences)
    score, last, first = summarise(logits, sequences.offsets, threshold, config.decision, shift)
    known: dict[str, Any] = {
        "client": data.sessions.client[tested], "actor": data.by_actor.client[tested],
        "allowed": data.allowed[tested], "other": data.elsewhere[tested],
        "threshold": shifted(threshold, shift), "seed": config.seed,
    }  # fmt: skip
    label, family = data.label[tested], data.family[tested]
    metrics = evaluate(label, score[tested], family=family, first_alert=first[tested], prior=prior, **known)
    if config.decision == "peak":
        found = evaluate(label, last[tested], intervals=False, **known)
        metrics["finished"] = {name: found[name] for name in RANKED}
    predictions = {
        "session": data.sessions.session,
        "client": data.sessions.client,
        "label": data.label,
        "score": score,
        "split": np.full(len(score), "test", object),
        "last_score": last,
        "first_alert": first,
        "model": data.sessions.model,
        "family": data.family,
        "allowed": data.allowed,
    }
    return metrics, predictions


def measure_rivals(
    data: Labelled,
    sequences: Ragged,
    split: Split,
    seen: NDArray[np.int64],
    budget: float,
    predictions: dict[str, Any],
    tested: NDArray[np.int64],
    config: Config,
) -> dict[str, Any]:
    """The same figures for each rival, which learns from the same sessions as the detector.

    Its threshold keeps the same budget on validation sessions, by a rival that learned without them; the
    rules, which learn nothing, have training sessions to choose it on too. Where these are too few for any
    budget, it is silent on all of them.
    """
    final = score_rivals(data.sessions, sequences, data.label, seen, seed=config.seed)
    held = final
    if config.folds > 1:
        held = score_learned(data.sessions, sequences, data.label, split.train, seed=config.seed)
    found = {}
    for name, score in final.items():
        rule = name in RULES
        chosen = np.concatenate([split.train, split.valid]) if rule else split.valid
        benign = (score if rule else held[name])[chosen][data.label[chosen] == 0]
        found[name] = evaluate(
            data.label[tested], score[tested], client=data.sessions.client[tested], family=data.family[tested],
            threshold=_threshold_of(benign, budget),
            allowed=data.allowed[tested], other=data.elsewhere[tested], intervals=False, seed=config.seed,
            probabilities=not rule,
        )  # fmt: skip
        predictions[f"{RIVAL_PREFIX}{name}"] = score
    return found


def _threshold_of(benign: NDArray[np.float64], budget: float) -> float:
    widened = loosest_budget(len(benign), budget)
    if not supports(len(benign), widened):
        return float(np.nextafter(benign.max(initial=0.0), np.inf))
    return pick_threshold(benign, widened)
