"""The fixed benchmark: a part to train on, and parts of other data, with attacks and uses that training never saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES
from probewatch.corpus.generate import START, WAVE, Told, make_corpus
from probewatch.corpus.learners import LEARNERS, train_subject
from probewatch.corpus.manifest import earlier, parameters, versions
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Subject
from probewatch.data.artefacts import dump_json, replace_file
from probewatch.errors import ConfigError

SESSIONS = 7500
FEWEST = 125  # sessions, so that each part has some of each kind
MOST = 800  # records of a pool, to bound the time that shadow models take
POOLS = (0.5, 0.3, 0.2)  # attackers need enough records of their own to fit shadow models on

NEW_ATTACKS = ("rmia", "neighbourhood", "label_boundary")
"""Families of the test part alone. Two ask as no other does, RMIA asks once like five others, but amid a population."""
NEW_USES = ("grid_sweep", "shap", "retries", "adversarial_search")
"""Uses of the test part alone."""
FURTHER_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.further)
"""Families of the further part, which has no others."""
FURTHER_USES = (
    "averaging", "imputation", "synthetic", "cohort", "form", "updates", "ranking", "active_learning", "robustness",
    "fairness", "sensitivity", "importance", "regression_test",
)  # fmt: skip
"""Uses of the further part, which has no others; who asks what hangs on their order."""
ONCE = ("threshold_confidence", "threshold_top_confidence", "threshold_entropy", "threshold_modified_entropy",
        "difficulty_calibration")  # fmt: skip
"""Families whose queries are alike: each candidate once."""

VERSION = 2  # the train and test parts are those of version 1
RULES = (
    "Learn from the train part alone, from whatever is in it; choose everything there.",
    "The other parts' targets/NAME/train.jsonl.gz and holdout.jsonl.gz are what a model's owner has: a detector may use"
    " them, and must say so. Their labels.csv is for scoring alone.",
    "A session's score may depend on that session, the detector, and the targets' folders, not on other sessions.",
    "family and attack are for tables and are no inputs. Clients on allow.txt are left out of the headline figures.",
    "Attacks on something else than membership count neither as hits nor as false alarms, and have a row of their own.",
    "Report ROC AUC, TPR at 1 % and 0.1 % FPR, and alerts at a threshold chosen on the train part, over five seeds.",
)


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: of its folder.
        share: of the sessions.
        models: data set, learner, and records that the model is trained on.
        attacks, uses: weights by family.
    """

    name: str
    share: float
    models: tuple[tuple[str, str, int], ...]
    attacks: dict[str, float]
    uses: dict[str, float]

    def recipe(self, sessions: int, seed: int) -> Recipe:
        """Its mix, of so many sessions."""
        return Recipe(pools=POOLS).with_changes(
            {"sessions": sessions, "seed": seed, "attacks": self.attacks, "uses": self.uses}
        )


def _weights(names: Iterable[str], new: Sequence[str], of_new: float) -> dict[str, float]:
    """Families that ask alike share two families' weight; what is new has its own."""
    known = [name for name in names if name not in (*FURTHER_ATTACKS, *FURTHER_USES)]
    return {name: of_new if name in new else 2.0 / len(ONCE) if name in ONCE else 1.0 for name in known}


TRAIN = Part(
    "train",
    0.48,
    (
        ("marriages", "forest", 700), ("marriages", "logistic", 500),
        ("cancer", "network", 120), ("cancer", "extra-trees", 120),
        ("voters", "boosting", 250), ("voters", "network", 250),
        ("patches", "network", 600), ("patches", "stiff-forest", 600),
        ("borrowers", "forest", 600), ("borrowers", "loose-logistic", 120), ("borrowers", "stiff-network", 600),
        ("wine", "forest", 60),
    ),
    _weights(ATTACKS, NEW_ATTACKS, 0.0),
    _weights(USES, NEW_USES, 0.0),
)  # fmt: skip
TEST = Part(
    "test",
    0.32,
    (
        ("insured", "forest", 600), ("insured", "stiff-network", 600),
        ("diabetes", "network", 120), ("diabetes", "logistic", 120),
        ("digits", "network", 300), ("digits", "extra-trees", 300),
        ("subscribers", "boosting", 400), ("subscribers", "stiff-forest", 600),
        ("schools", "loose-logistic", 80),
    ),
    _weights(ATTACKS, NEW_ATTACKS, 2.0),
    _weights(USES, NEW_USES, 2.0),
)  # fmt: skip
FURTHER = Part("further", 0.2, TEST.models, dict.fromkeys(FURTHER_ATTACKS, 1.0), dict.fromkeys(FURTHER_USES, 1.0))
PARTS = (TRAIN, TEST, FURTHER)


def make_benchmark(
    folder: Path,
    *,
    sessions: int = SESSIONS,
    seed: int = 0,
    told: Told | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a folder for each part, as :func:`make_corpus` does, and ``folder/manifest.json``.

    The same arguments give the same bytes. A killed run goes on where it was, and parts that are done are kept.

    Args:
        sessions: of all parts, at least 125.
        seed: of every draw but those of the data sets, which are fixed.
        note: is told what becomes of earlier parts that are of other arguments, and of runs that were stopped.

    Returns:
        the manifest: rules, versions, what is seen and what is new, and the parts' manifests.

    Raises:
        ConfigError: too few sessions, or a folder that cannot be written or holds something else.
    """
    if sessions < FEWEST:
        raise ConfigError(f"--sessions is {sessions}, expected at least {FEWEST} for a benchmark.")
    earlier(folder, "benchmark")
    ends = np.rint(np.cumsum([part.share for part in PARTS]) * sessions).astype(np.int64)
    found = {}
    for number, (part, count) in enumerate(zip(PARTS, np.diff(ends, prepend=0).tolist(), strict=True)):
        own = int(np.random.default_rng([seed, 7, number]).integers(2**31))
        recipe = part.recipe(count, own)
        subjects = part_subjects(part, recipe)
        found[part.name] = _finished(folder / part.name, subjects, recipe) or make_corpus(
            subjects, recipe, folder / part.name, told=_named(part.name, told), note=note
        )
    manifest = _manifest(sessions, seed, found)
    replace_file(folder / "manifest.json", dump_json(manifest))
    return manifest | {"parts": {name: manifest["parts"][name] | {"manifest": one} for name, one in found.items()}}


def part_subjects(part: Part, recipe: Recipe) -> list[Subject]:
    """A part's trained models."""
    subjects = []
    for number, (data, learner, members) in enumerate(part.models):
        own = int(np.random.default_rng([recipe.seed, 8, number]).integers(2**31))
        subjects.append(
            train_subject(
                data, learner, members, seed=own, shares=recipe.pools, budget=recipe.budget,
                most=MOST,
            )
        )  # fmt: skip
    return subjects


def _named(part: str, told: Told | None) -> Told | None:
    return None if told is None else lambda what, done, total: told(f"{part}: {what}", done, total)


def _finished(folder: Path, subjects: Sequence[Subject], recipe: Recipe) -> dict[str, Any] | None:
    """The manifest of a part that is there already, whole and of the same parameters."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        files = manifest["files"]
        whole = all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == files[name] for name in files)
    except (OSError, ValueError, KeyError):
        return None
    key = json.loads(json.dumps(parameters(subjects, recipe, f"{START}Z", WAVE)))
    return manifest if whole and all(manifest.get(name) == value for name, value in key.items()) else None


def _manifest(sessions: int, seed: int, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": 1,
        "benchmark": VERSION,
        "sessions": sessions,
        "seed": seed,
        "rules": list(RULES),
        "versions": versions(),
        "only_in_test": {
            "data": sorted({data for data, *_ in TEST.models} - {data for data, *_ in TRAIN.models}),
            "attacks": list(NEW_ATTACKS),
            "uses": list(NEW_USES),
        },
        "only_in_further": {"attacks": list(FURTHER_ATTACKS), "uses": list(FURTHER_USES)},
        "parts": {
            part.name: {
                "targets": [
                    {"data": data, "model": learner, "kind": LEARNERS[learner].kind, "trained_on": members}
                    for data, learner, members in part.models
                ],
                "sessions": found[part.name]["sessions"],
                "give_aways": found[part.name]["give_aways"],
                "files": found[part.name]["files"],
            }
            for part in PARTS
        },
    }
