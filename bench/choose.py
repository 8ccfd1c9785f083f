"""Which parts of a detector buy what, and how much evidence should weigh: the choices of the default preset.

    python bench/choose.py DIR [--seeds 1] [--workers 2] [--write]

DIR holds ``events.jsonl.gz``, ``labels.csv``, ``allow.txt`` and ``targets/``. The clients that a test holds out (the
preset's ``split_seed``) are put away first: nothing here looks at them. From the others each data set, each attack
family and each benign use is left out in turn, as ``probewatch benchmark`` does; networks and trees are trained once
without it, and each variant weighs them in its own way. ``--write`` puts the table into docs/choices.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmark import load, write_page
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from probewatch.learn.dataset import split_sessions
from probewatch.learn.evaluate import tpr_at_fpr
from probewatch.learn.graph import Grove
from probewatch.learn.labelled import Labelled
from probewatch.learn.networks import Trained, budget_of, conclude, fit_folds, prepare
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.unseen import Thing, divide, eligible, things_of
from probewatch.learn.views import WHOLE
from probewatch.learn.workers import run_all
from probewatch.network import Network, summarise

PAGE = Path(__file__).parent.parent / "docs" / "choices.md"
BEGIN = "<!-- figures: written by bench/choose.py -->"
Figures = dict[str, float]


class Variant(NamedTuple):
    """Weights of the evidence, and of the package's trees beside all others, at home and abroad; None: no trees."""

    text: str
    evidence: tuple[float, float] | None
    pretrained: tuple[float, float] = (0.0, 0.0)


OWN = 0.2, 0.4
VARIANTS = (
    Variant("networks alone", None),
    Variant("networks and trees of habits", (0.0, 0.0)),
    *(Variant(f"and evidence at {share:g}", (share, share)) for share in (0.1, 0.2, 0.3, 0.5, 0.7)),
    Variant("evidence at 0.2, and 0.4 abroad", OWN),
    *(
        Variant(f"and the package's trees at {near:g}, and {far:g} abroad", OWN, (near, far))
        for near, far in ((0.1, 0.5), (0.2, 0.5))
    ),
    Variant("**and the package's trees at 0.2, and 0.8 abroad**", OWN, (0.2, 0.8)),
    *(
        Variant(f"and the package's trees at {near:g}, and {far:g} abroad", OWN, (near, far))
        for near, far in ((0.3, 0.7), (0.5, 0.9))
    ),
    Variant("the package's trees alone", OWN, (1.0, 1.0)),
)
COLUMNS = {  # heading -> (kind of thing left out, figure, how rows come together)
    "clients: ROC AUC": ("none", "auc", np.mean),
    "TPR": ("none", "tpr", np.mean),
    "data set: ROC AUC": ("dataset", "auc", np.mean),
    "TPR ": ("dataset", "tpr", np.mean),
    "attack: TPR": ("attack", "tpr", np.mean),
    "use: FPR, mean": ("benign", "fpr", np.mean),
    "worst": ("benign", "fpr", np.max),
}


def known_clients(data: Labelled, config: Config) -> Labelled:
    """``data`` without the clients that a test holds out."""
    split = split_sessions(data.by_actor, data.label, eligible(data), config)
    keep = np.sort(np.concatenate([split.train, split.valid]))

    def of(column: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
        return None if column is None else column[keep]

    columns = {name: of(getattr(data, name)) for name in ("label", "family", "allowed", "actor", "other", "target")}
    return replace(data, sessions=data.sessions.take(keep), **columns)  # type: ignore[arg-type]


def weigh(data: Labelled, job: tuple[Thing, Config]) -> dict[str, Figures]:
    """The figures of each variant, trained without a thing and tested on it."""
    thing, config = job
    with threadpool_limits(1):
        parts = divide(data, thing, config)
        ground = prepare(data, parts.split, config)
        trained = fit_folds(ground, data.label, config, torch.device("cpu"))
        tested = parts.split.test
        return {one.text: _figures(data, thing, config, ground, _weighed(trained, one), tested) for one in VARIANTS}


def _weighed(trained: Trained, variant: Variant) -> Trained:
    def of(grove: Grove | None) -> Grove | None:
        if grove is None or variant.evidence is None:
            return None
        (home, abroad), (near, far) = variant.evidence, variant.pretrained
        kept = grove.pretrained if near or far else None
        return replace(
            grove, share=home, share_abroad=abroad, pretrained=kept, of_pretrained=near, of_pretrained_abroad=far
        )

    return Trained(trained.networks, [of(grove) for grove in trained.groves], of(trained.grove))


def _figures(data, thing, config, ground, trained, tested) -> Figures:  # type: ignore[no-untyped-def]
    graph, threshold, _ = conclude(ground, trained, data.label, config)
    part = ground.views[WHOLE].take(tested)
    logits, _ = Network(graph, list(config.features), threads=1).run(part)
    scores, label = summarise(logits, part.offsets, threshold, config.decision)[0], data.label[tested]
    if thing.kind == "benign":
        return {"fpr": float(np.mean(scores >= threshold))}
    max_fpr = budget_of(config, int(np.sum(label == 0)))
    return {"auc": float(roc_auc_score(label, scores)), "tpr": tpr_at_fpr(label, scores, max_fpr) or 0.0}


def table(found: Mapping[tuple[str, str], list[dict[str, Figures]]]) -> str:
    """Markdown, a row a variant; each cell is over the things left out, each meaned over its seeds."""
    lines = ["| left out | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for variant in VARIANTS:
        cells = []
        for kind, figure, together in COLUMNS.values():
            things = [ones for thing, ones in found.items() if thing[0] == kind]
            means = [float(np.mean([one[variant.text][figure] for one in ones])) for ones in things]
            cells.append(f"{together(means):.3f}" if means else "–")
        lines.append(f"| {variant.text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into docs/choices.md")
    options = parser.parse_args()
    base = replace(PRESETS["default"], split="client")
    data = known_clients(load(options.data.parent, options.data.name), base)
    things = [thing for by in ("none", "dataset", "family") for thing in things_of(data, by)]  # type: ignore[arg-type]
    seeds = range(options.seeds)
    jobs = [
        (one, replace(base, seed=base.seed + n, split_seed=base.split_seed + 1 + n)) for one in things for n in seeds
    ]

    def told(at: int, done: int) -> None:
        print(f"{done} of {len(jobs)}: without {jobs[at][0].name or 'clients'}", flush=True)

    found: dict[tuple[str, str], list[dict[str, Figures]]] = {}
    for (thing, _), figures in zip(jobs, run_all(weigh, data, jobs, options.workers, told), strict=True):
        found.setdefault((thing.kind, thing.name), []).append(figures)
    text = table(found)
    print(text)
    if options.write:
        write_page(PAGE, BEGIN, ["", text, ""])


if __name__ == "__main__":
    main()
