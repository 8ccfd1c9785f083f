"""What a corpus's attacks found out, against the truth, and who asked about whose records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.events import Session
from probewatch.corpus.pools import Pools

FPR = 0.01
FEWEST = 1 / FPR  # non-members for a rate at that FPR


@dataclass(frozen=True)
class Outcome:
    """One attack's guesses about g candidates.

    Attributes:
        target, family, evasion: of its run.
        record: int64 (g,) which candidates.
        member: (g,) bool, the truth.
        score: (g,) high means member.
    """

    target: str
    family: str
    evasion: str
    record: NDArray[np.int64]
    member: NDArray[np.bool_]
    score: NDArray[np.float64]


def attack_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How well each family tells members: overall, by target, and by what hides it.

    Guesses of one family on one target are ranked together; over several targets, figures are the means of theirs. A
    target's ``interval`` says how far its ROC AUC may be from 0.5 by the luck of which records were drawn.
    """
    told = {}
    for family in sorted({one.family for one in outcomes}):
        own = [one for one in outcomes if one.family == family]
        targets = {
            name: _with_interval([one for one in own if one.target == name])
            for name in sorted({one.target for one in own})
        }
        evasions = {
            name: figures([one for one in own if one.evasion == name]) for name in sorted({one.evasion for one in own})
        }
        told[family] = {
            "runs": len(own),
            "guesses": sum(len(one.score) for one in own),
            "members": int(sum(one.member.sum() for one in own)),
            "roc_auc": _mean([one["roc_auc"] for one in targets.values()]),
            "tpr_at_fpr_0.01": _mean([one["tpr_at_fpr_0.01"] for one in targets.values()]),
            "by_target": targets,
            "by_evasion": evasions,
        }
    return told


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """ROC AUC and TPR at 1 % FPR of these guesses, ranked together; None where they are too few."""
    from sklearn.metrics import roc_auc_score, roc_curve

    member = np.concatenate([one.member for one in outcomes])
    score = np.concatenate([one.score for one in outcomes])
    told: dict[str, Any] = {"guesses": len(member), "members": int(member.sum()), "roc_auc": None}
    told["tpr_at_fpr_0.01"] = None
    if 0 < member.sum() < len(member):
        told["roc_auc"] = round(float(roc_auc_score(member, score)), 4)
        if len(member) - member.sum() >= FEWEST:
            fpr, tpr, _ = roc_curve(member, score)
            told["tpr_at_fpr_0.01"] = round(float(tpr[fpr <= FPR].max()), 4)
    return told


def _with_interval(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of one target, with an interval by its distinct records: guessing about one again is no news."""
    record, first = np.unique(np.concatenate([one.record for one in outcomes]), return_index=True)
    inside = int(np.concatenate([one.member for one in outcomes])[first].sum())
    told = figures(outcomes)
    return {**told, "records": len(record), "interval": auc_interval(told["roc_auc"], inside, len(record) - inside)}


def model_leak(
    members: NDArray[np.float64],
    member_label: NDArray[np.int64],
    others: NDArray[np.float64],
    other_label: NDArray[np.int64],
) -> dict[str, Any]:
    """What a model gives away by its confidence in the true class (Yeom 2018), over all members and the holdout.

    Where this is near 0.5, attacks that learn nothing are no bug.

    Args:
        members, others: (R, C) answers to the members and to records that nobody trained on.
        member_label, other_label: int64 (R,).

    Returns:
        ``members``, ``others``, ``roc_auc``, its 95 % ``interval``, and ``reading``, a sentence.
    """  # fmt: skip
    score = np.concatenate(
        [answers[np.arange(len(label)), label] for answers, label in ((members, member_label), (others, other_label))]
    )
    record = np.arange(len(score))
    auc = figures([Outcome("", "", "", record, record < len(members), score)])["roc_auc"]
    interval = auc_interval(auc, len(members), len(others))
    told = {"members": len(members), "others": len(others), "roc_auc": auc, "interval": interval}
    return {**told, "reading": _reading(interval)}


def auc_interval(auc: float | None, positives: int, negatives: int) -> list[float] | None:
    """About 95 % of a ROC AUC, by Hanley and McNeil 1982, "The Meaning and Use of the Area under a ROC Curve".

    >>> auc_interval(0.43, 100, 120)
    [0.3545, 0.5055]
    """
    if auc is None or not positives or not negatives:
        return None
    one, other = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    variance = auc * (1.0 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (other - auc**2)
    off = 1.96 * float(np.sqrt(variance / (positives * negatives)))
    return [round(max(0.0, auc - off), 4), round(min(1.0, auc + off), 4)]


def _reading(interval: list[float] | None) -> str:
    if interval is None:
        return "cannot be told"
    if interval[0] > 0.5:
        return "confidence gives members away"
    if interval[1] < 0.5:
        return "its members happen to be the harder records: confidence says nothing, attacks below 0.5 are no bug"
    return "confidence does not show members on so many records: attacks near 0.5 are no bug"


def _mean(found: Sequence[float | None]) -> float | None:
    known = [one for one in found if one is not None]
    return round(float(np.mean(known)), 4) if known else None


def who_asked(sessions: Sequence[Session], pools: Mapping[str, Pools]) -> dict[str, dict[str, dict[str, float]]]:
    """For each target and role, the share of queries that are a record of each pool; the rest is made up.

    The holdout's is 0, and so is the customers' in attacks, but for inputs that were made up and happen to equal one.
    """
    told: dict[str, dict[str, dict[str, float]]] = {}
    for target in sorted(pools):
        owner = {
            row.tobytes(): name for name, pool in pools[target].named().items() for row in pool.inputs + 0.0
        }  # fmt: skip
        counts: dict[str, dict[str, int]] = {}
        for one in sessions:
            if one.target == target:
                role = one.family if one.attack == "none" else one.attack
                row_counts = counts.setdefault(role, dict.fromkeys([*pools[target].named(), "queries"], 0))
                row_counts["queries"] += len(one)
                for row in one.inputs + 0.0:
                    name = owner.get(row.tobytes())
                    if name:
                        row_counts[name] += 1
        told[target] = {
            role: {
                name: count if name == "queries" else round(count / found["queries"], 5)
                for name, count in found.items()
            }
            for role, found in sorted(counts.items())
        }
    return told
