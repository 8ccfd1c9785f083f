"""Grow the trees that come with the package, and tell what they do by themselves on the benchmark.

    probewatch corpus --benchmark --out BENCHMARK
    probewatch corpus --drawn 96 --sessions 7200 --seed 1 --recipe bench/drawn.toml --out DRAWN
    python bench/pretrained.py DRAWN --test BENCHMARK/test BENCHMARK/further --out FILE

DRAWN holds no data set that anything is tested on. Its families are those that ``corpus`` knows: the table has a row
for trees that learned from all, which are written to FILE, and one for each of LESSONS, which lack those that are new
in a part of the benchmark. The last row is what gradient boosting makes of the same lessons, on aggregates of finished
sessions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import load
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from probewatch.corpus.benchmark import FURTHER_ATTACKS, FURTHER_USES, NEW_ATTACKS, NEW_USES
from probewatch.data.ragged import Ragged
from probewatch.learn.dataset import Split
from probewatch.learn.evaluate import tpr_at_fpr
from probewatch.learn.graph import Grove, build_graph
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.networks import Ground, lessons_of, prepare
from probewatch.learn.presets import PRESETS
from probewatch.learn.pretrained import write_trees
from probewatch.learn.rivals import aggregate, boosting
from probewatch.learn.trees import Trees, grow_habits
from probewatch.learn.unseen import eligible
from probewatch.learn.views import view_sessions
from probewatch.network import Network

CONFIG = PRESETS["default"]
LESSONS: dict[str, tuple[str, ...]] = {
    "all": (),
    "no new": (*NEW_ATTACKS, *NEW_USES),
    "no further": (*FURTHER_ATTACKS, *FURTHER_USES),
}
"""Families that are not learned from."""
VIEWS = {"whole": "profile", "unknown_model": "no profile"}


def without_families(data: Labelled, families: Sequence[str]) -> Labelled:
    """``data`` in which the sessions of these families have no label."""
    kept = ~np.isin(data.family.astype(str), families)
    return replace(data, label=np.where(kept, data.label, -1).astype(np.int8), allowed=data.allowed & kept)


def grow(data: Labelled) -> tuple[Trees, Ground]:
    """Trees of every session that may be learned from, and what they stood on."""
    learned = np.flatnonzero(eligible(data))
    none = learned[:0]
    ground = prepare(data, Split(learned, none, none), CONFIG)
    return grow_habits(*lessons_of(ground), data.label, ground.seen, CONFIG.seed), ground


def peaks(trees: Trees, ground: Ground, view: Ragged) -> NDArray[np.float64]:
    """(S,) highest log-odds of each session by the trees alone."""
    width = ground.scaler.transform(view.take(np.array([0]))).values.shape[1]
    silent = LSTMClassifier(width, 1).eval()
    grove = Grove(trees, None, 0.0, 0.0, 1.0, 1.0)
    network = Network(build_graph([silent], ground.scaler, CONFIG.features, grove=grove), list(CONFIG.features))
    return np.maximum.reduceat(network.run(view)[0], view.offsets[:-1])


def test(trees: Trees, ground: Ground, data: Labelled) -> list[str]:
    """ROC AUC and TPR at 1 % FPR with and without profiles."""
    found: list[str] = []
    for name, view in view_sessions(data.sessions, CONFIG.features, {}, data.profiles, poorer=True).items():
        if name in VIEWS:
            found += figures(data.label, peaks(trees, ground, view))
    return found


def figures(label: NDArray[np.int8], score: NDArray[np.float64]) -> list[str]:
    """ROC AUC and TPR at 1 % FPR of the sessions with a label."""
    label, score = label[label >= 0], score[label >= 0]
    return [f"{roc_auc_score(label, score):.3f}", f"{tpr_at_fpr(label, score, 0.01):.3f}"]


def rival(drawn: Labelled, ground: Ground, data: Labelled) -> list[str]:
    """The same of boosting that learned from the drawn sessions as their owner sees them."""
    lessons, found = aggregate(ground.views["whole"]), list[str]()
    for name, view in view_sessions(data.sessions, CONFIG.features, {}, data.profiles, poorer=True).items():
        if name in VIEWS:
            columns = np.concatenate([lessons, aggregate(view)])
            label, client = (
                np.concatenate(pair)
                for pair in ((drawn.label, data.label), (drawn.sessions.client, data.sessions.client))
            )
            score = boosting(columns, label, ground.seen, client, seed=CONFIG.seed)[len(lessons) :]
            found += figures(data.label, score)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("drawn", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    drawn = load(Path(), str(options.drawn))
    tested: dict[str, Any] = {path.name: load(Path(), str(path)) for path in options.test}
    tested = {name: replace(data, label=np.where(eligible(data), data.label, -1)) for name, data in tested.items()}
    heads = [f"{part}, {view}: {figure}" for part in tested for view in VIEWS.values() for figure in ("ROC AUC", "TPR")]
    print("| " + " | ".join(["learned from", "sessions", *heads]) + " |")
    print("|---" * (2 + len(heads)) + "|")
    for lesson, families in LESSONS.items():
        trees, ground = grow(without_families(drawn, families))
        if lesson == "all":
            write_trees(options.out, trees, CONFIG.features)
            others = [cell for data in tested.values() for cell in rival(drawn, ground, data)]
        row = [
            lesson,
            f"{len(ground.seen):,}",
            *(cell for data in tested.values() for cell in test(trees, ground, data)),
        ]
        print("| " + " | ".join(row) + " |", flush=True)
    print("| " + " | ".join(["all, by boosting", f"{np.sum(eligible(drawn)):,}", *others]) + " |")


if __name__ == "__main__":
    main()
