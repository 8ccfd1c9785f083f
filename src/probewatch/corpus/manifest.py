"""What a corpus's manifest says: all that it depends on, and what was found out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES
from probewatch.corpus.events import Session
from probewatch.corpus.giveaways import give_aways
from probewatch.corpus.plan import Run
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Asked, Subject
from probewatch.corpus.truth import Outcome, attack_figures, model_leak, who_asked
from probewatch.errors import ConfigError

LIBRARIES = ("probewatch", "numpy", "scikit-learn", "adversarial-robustness-toolbox", "statsmodels")

Owned = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(R, D) records and the target's (R, C) answers."""


def parameters(subjects: Sequence[Subject], recipe: Recipe, start: str, wave: int) -> dict[str, Any]:
    """All that a corpus depends on, and the proof that the pools share no record.

    The targets are asked about a few records, so that a run that goes on notices another model behind a name.

    Raises:
        TargetError: a target gives no usable answer.
    """
    return {
        "format": 1,
        "recipe": recipe.to_json(),
        "start": start,
        "runs_in_lock_step": wave,
        "models": {
            one.target.name: {
                **one.described,
                "answers_sha256": one.fingerprint(),
                "classes": [str(value) for value in one.classes],
                "shadow_models": one.kind or "of the kind that each attacker believes in",
                "pools": one.pools.proof(),
            }
            for one in subjects
        },
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Of the libraries that a corpus's bytes depend on; None where one is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def findings(
    runs: Sequence[Run],
    asked: Sequence[Asked],
    sessions: Sequence[Session],
    owners: Sequence[tuple[Owned, Owned]],
    subjects: Sequence[Subject],
) -> dict[str, Any]:
    """Counts, the targets' accuracy, who asked about whose records, the attacks' success, and what gives them away."""
    grids = {one.target.name: one.grid for one in subjects}
    return {
        "sessions": _counts(sessions, runs),
        "targets": _told_of_targets(sessions, owners, subjects),
        "attacks": {
            name: {"text": ATTACKS[name].text, "paper": ATTACKS[name].paper, **told}
            for name, told in attack_figures(_outcomes(runs, asked, subjects)).items()
        },
        "give_aways": give_aways(sessions, grids, set(rescorers(sessions))),
    }


def earlier(folder: Path, has: str) -> dict[str, Any]:
    """The manifest in a folder that is to be written, empty if there is none.

    Args:
        has: a key of such a manifest, by which it is told from a bundle's or another's.

    Raises:
        ConfigError: it is of something else, which writing there would destroy.
    """
    path = folder / "manifest.json"
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or has not in found:
        raise ConfigError(f"{path}: is of something else, which would be lost; give another --out.")
    return found


def rescorers(sessions: Sequence[Session]) -> list[str]:
    """The clients that rescore training customers."""
    families = {name for name, use in USES.items() if use.records == "members"}
    return sorted({one.client for one in sessions if one.family in families and one.attack == "none"})


def _counts(sessions: Sequence[Session], runs: Sequence[Run]) -> dict[str, Any]:
    attacks = [one for one in sessions if one.attack == "membership"]
    return {
        "all": len(sessions),
        "queries": sum(len(one) for one in sessions),
        "runs": len(runs),
        "clients": len({one.client for one in sessions}),
        "actors": len({one.actor for one in sessions}),
        "by_attack": dict(sorted(Counter(one.attack for one in sessions).items())),
        "by_family": dict(sorted(Counter(one.family for one in sessions).items())),
        "by_evasion": dict(sorted(Counter(one.evasion for one in attacks).items())),
    }


def _told_of_targets(
    sessions: Sequence[Session], owners: Sequence[tuple[Owned, Owned]], subjects: Sequence[Subject]
) -> dict[str, Any]:
    asked = who_asked(sessions, {one.target.name: one.pools for one in subjects})
    told = {}
    for one, (train, holdout) in zip(subjects, owners, strict=True):
        right = [
            round(float(np.mean(answers.argmax(axis=1) == pool.label)), 4)
            for (_, answers), pool in ((train, one.pools.members), (holdout, one.pools.holdout))
        ]
        told[one.target.name] = {
            "accuracy": {"train": right[0], "holdout": right[1]},
            "leak": model_leak(
                train[1][one.pools.counted],
                one.pools.members.label[one.pools.counted],
                holdout[1],
                one.pools.holdout.label,
            ),
            "queries": sum(len(session) for session in sessions if session.target == one.target.name),
            "pool_share_by_role": asked[one.target.name],
            **one.target.trouble(),
        }
    return told


def _outcomes(runs: Sequence[Run], asked: Sequence[Asked], subjects: Sequence[Subject]) -> list[Outcome]:
    found = []
    for run, one in zip(runs, asked, strict=True):
        if one.guess is not None and run.attack == "membership":
            subject = subjects[run.target]
            counted = subject.counted[one.guess.record]
            record = one.guess.record[counted]
            found.append(
                Outcome(
                    subject.target.name, run.family, run.actor.evasion, record, subject.member[record],
                    one.guess.score[counted],
                )
            )  # fmt: skip
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
