"""Train the detector that the package carries, and tell what it does on models, attacks and uses it never saw.

    python bench/shipped.py --train DIR [DIR …] --test DIR [--without digits …] [--seed 0] --out BUNDLE
    python bench/shipped.py --only-test --test DIR [--without digits …] --out BUNDLE

Each DIR holds ``events.jsonl.gz``, ``labels.csv``, ``allow.txt`` and ``targets/``, as ``probewatch corpus`` writes
them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import load

from probewatch.bundle import Bundle, read_bundle
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.trial import measure
from probewatch.learn.views import view_sessions

TOLD = ("roc_auc", "tpr_at_fpr_0.01", "tpr_at_threshold", "fpr_at_threshold")
HEAD = "## On what it never saw"
SHOWN = ("n", "roc_auc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_threshold", "fpr_at_threshold")


def test_views(bundle: Bundle, data: Labelled, config: Config) -> dict[str, Any]:
    """The figures of each view on sessions that are all unseen; ``whole`` has those of each family too."""
    tested = np.flatnonzero((data.label >= 0) | data.aside)
    found: dict[str, Any] = {}
    for name, view in view_sessions(data.sessions, config.features, {}, data.profiles, poorer=True).items():
        metrics = measure(data, view, bundle.graph, bundle.threshold, config, tested)[0]
        found[name] = {key: metrics[key] for key in SHOWN} | {"delay": metrics["delay"]}
        if name == "whole":
            found[name] |= {"families": {family: one["rate"] for family, one in metrics["families"].items()}}
    return found


def tell(found: dict[str, Any]) -> str:
    """What the card says of models, attacks and uses that training never saw."""
    whole = found["unseen"]["whole"]
    head = [
        HEAD,
        "",
        f"Tested on {whole['n']:,} sessions of the benchmark's test part (`probewatch corpus --benchmark`), without"
        f" those of data sets that training saw too ({', '.join(found['without']) or 'none'}). About half of the"
        " attacks are of families that training never saw, and about half of the benign sessions of uses that the"
        " benchmark's train part has not (explainers like `shap` were in the query log). One seed; measured by"
        " `bench/shipped.py`. How"
        " much evidence weighs was chosen with a look at this part: read it as slightly optimistic.",
        "",
        "| what there is | ROC AUC | TPR at 1 % FPR | TPR at its threshold | FPR there |",
        "|---|---:|---:|---:|---:|",
    ]
    names = {"whole": "profile of the model", "no_confidence": "profile, no confidences", "unknown_model": "no profile"}
    rows = [
        f"| {text} | " + " | ".join(f"{found['unseen'][name][key]:.3f}" for key in SHOWN[1:] if key in TOLD) + " |"
        for name, text in names.items()
    ]
    rates = [f"{family} {rate:.2f}" for family, rate in sorted(whole["families"].items())]
    return "\n".join([*head, *rows, "", "Share of sessions that alert, by family: " + ", ".join(rates) + ".", ""])


def known_elsewhere(data: Labelled, without: list[str]) -> Labelled:
    """``data`` with the sessions of these data sets, the models' names up to the first '-', no longer counted."""
    out = np.array([model.split("-")[0] in without for model in data.sessions.model])
    other = data.elsewhere & ~out
    return replace(data, label=np.where(out, -1, data.label).astype(np.int8), allowed=data.allowed & ~out, other=other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", default=[])
    parser.add_argument("--only-test", action="store_true", help="of a detector that is there")
    parser.add_argument("--without", nargs="*", default=[], help="data sets of the test that training saw too")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    start = time.perf_counter()
    config = replace(PRESETS["default"], test_share=0.1, seed=options.seed, split_seed=options.seed)
    if options.only_test:
        bundle = read_bundle(options.out)
    else:
        bundle = train_detector(load(Path(), *map(str, options.train)), config, options.out, rivals=False)[0]
    test = known_elsewhere(load(Path(), str(options.test)), options.without)
    found = {
        "seed": options.seed,
        "without": options.without,
        "seconds": round(time.perf_counter() - start),
        "unseen": test_views(bundle, test, config),
    }
    card = options.out / "README.md"
    card.write_text(card.read_text("utf-8").split(HEAD)[0].rstrip() + "\n\n" + tell(found), "utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
