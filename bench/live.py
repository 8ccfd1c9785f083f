"""What gradient boosting comes to if it, too, must decide while a session runs.

    python bench/live.py TRAIN [TEST] [--seeds 3] [--workers 2]

Boosting beside our figures is asked once, about the finished session; a detector that alerts while it runs is judged
by its highest answer so far. Here boosting is asked after every eight queries and judged by its highest answer, trained
on finished sessions as it is beside our figures, or on unfinished ones too. TRAIN and TEST are folders with
``events.jsonl.gz``, ``labels.csv``, ``allow.txt`` and ``targets/``; without TEST the clients of TRAIN are split anew
for each seed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark import load, spread
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from probewatch.data.ragged import Ragged
from probewatch.data.records import offsets_of, ranges
from probewatch.learn.dataset import Split, split_sessions
from probewatch.learn.evaluate import tpr_at_fpr
from probewatch.learn.labelled import Labelled
from probewatch.learn.networks import budget_of, conclude, fit_folds, prepare
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.rivals import aggregate, boosting
from probewatch.learn.unseen import eligible
from probewatch.learn.views import WHOLE
from probewatch.learn.workers import run_all
from probewatch.network import Network

ASKED = 8  # queries from one question to the next
LEARNED = 24  # queries from one unfinished session that is learned from to the next
MOST = 48  # of a session, questions or lessons; a longer one has them farther apart
ROWS = (
    "Probewatch, finished",
    "Probewatch, while it runs",
    "boosting, finished",
    "boosting, while it runs",
    "boosting on unfinished sessions too, finished",
    "boosting on unfinished sessions too, while it runs",
)
Figures = dict[str, tuple[float, float]]


def unfinished(whole: Ragged, chosen: NDArray[np.int64], every: int) -> tuple[Ragged, NDArray[np.int64]]:
    """The ``chosen`` sequences after each ``every`` steps and at their end, and which sequence each is of."""
    lengths = whole.lengths[chosen]
    every_own = np.maximum(every, -(-lengths // MOST))
    counts = -(-lengths // every_own)
    own = np.repeat(np.arange(len(chosen)), counts)
    number = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    taken = np.minimum(number * every_own[own], lengths[own])
    return Ragged(whole.values[ranges(whole.offsets[chosen][own], taken)], offsets_of(taken)), chosen[own]


def compare(data: Labelled, job: tuple[Config, NDArray[np.bool_] | None]) -> Figures:
    """ROC AUC and TPR at 1 % FPR of each row on the test sessions."""
    config, in_test = job
    with threadpool_limits(1):
        split = _split(data, config, in_test)
        ground = prepare(data, split, config)
        graph = conclude(ground, fit_folds(ground, data.label, config, torch.device("cpu")), data.label, config).graph
        whole, seen = ground.views[WHOLE], np.concatenate([split.train, split.valid])
        part = whole.take(split.test)
        logits, _ = Network(graph, list(config.features), threads=1).run(part)
        scores = [logits[part.offsets[1:] - 1], np.maximum.reduceat(logits, part.offsets[:-1])]
        asked, asked_of = unfinished(whole, split.test, ASKED)
        last = np.append(asked_of[1:] != asked_of[:-1], True)
        for every in (int(whole.lengths.max()), LEARNED):
            learned, learned_of = unfinished(whole, seen, every)
            columns = np.concatenate([aggregate(learned), aggregate(asked)])
            of = np.concatenate([learned_of, asked_of])
            answers = boosting(
                columns, data.label[of], np.arange(len(learned)), data.by_actor.client[of], seed=config.seed
            )[len(learned) :]  # fmt: skip
            scores += [answers[last], np.maximum.reduceat(answers, np.flatnonzero(np.append(True, last[:-1])))]
    label = data.label[split.test]
    max_fpr = budget_of(config, int(np.sum(label == 0)))
    return {
        name: (float(roc_auc_score(label, score)), tpr_at_fpr(label, score, max_fpr) or 0.0)
        for name, score in zip(ROWS, scores, strict=True)
    }


def _split(data: Labelled, config: Config, in_test: NDArray[np.bool_] | None) -> Split:
    if in_test is None:
        return split_sessions(data.by_actor, data.label, eligible(data), config)
    split = split_sessions(data.by_actor, data.label, eligible(data) & ~in_test, config)
    return Split(np.sort(np.concatenate([split.train, split.test])), split.valid,
                 np.flatnonzero(eligible(data) & in_test))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = options.train.parent
    in_test = None
    if options.test:
        data = load(folder, options.train.name, options.test.name)
        tested = set(load(folder, options.test.name).sessions.session)
        in_test = np.array([name in tested for name in data.sessions.session], bool)
    else:
        data = load(folder, options.train.name)
    base = replace(PRESETS["default"], split="client")
    jobs = [(replace(base, seed=seed, split_seed=base.split_seed + seed), in_test) for seed in range(options.seeds)]
    found = run_all(compare, data, jobs, options.workers, lambda at, done: print(f"{done} of {len(jobs)}", flush=True))
    print("| | ROC AUC | TPR at 1 % FPR |\n|---|---:|---:|")
    for name in ROWS:
        cells = [spread([one[name][figure] for one in found]) for figure in (0, 1)]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
