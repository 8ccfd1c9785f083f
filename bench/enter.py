"""Score a detector's predictions on a part of the benchmark.

    probewatch corpus --benchmark --out benchmark
    python bench/enter.py benchmark predictions.csv [--part test] [--json]

``predictions.csv`` has a line for each session of the part: ``session,score`` and optionally ``alert``. A high score is
an attack. docs/benchmark.md has the rules.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from probewatch.errors import ProbewatchError
from probewatch.learn.entry import read_predictions, read_truth, score_entry

COLUMNS = {
    "ROC AUC": "roc_auc", "average precision": "average_precision", "TPR at 1 % FPR": "tpr_at_fpr_0.01",
    "TPR at 0.1 % FPR": "tpr_at_fpr_0.001",
}  # fmt: skip


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def lines(found: dict[str, Any]) -> list[str]:
    head = ["sessions ranked", "attacks", "benign", *COLUMNS]
    told = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, row in {"all": found, **found["rungs"]}.items():
        cells = [name, f"{row['n_attacks']:,}", f"{row['n_benign']:,}", *(figure(row[key]) for key in COLUMNS.values())]
        told.append("| " + " | ".join(cells) + " |")
    told += ["", *(f"95 % of {name}: {low:.3f} to {high:.3f}" for name, key in COLUMNS.items()
                   for low, high in [found["intervals"].get(key) or (None, None)] if low is not None)]  # fmt: skip
    if "families" not in found:
        return [*told, "No alerts given, so nothing is said of a threshold."]
    told += ["", f"At its threshold: TPR {figure(found['tpr_at_threshold'])}, FPR {figure(found['fpr_at_threshold'])}",
             "", "| family | sessions | alerted |", "|---|---:|---:|"]  # fmt: skip
    families = sorted(found["families"].items(), key=lambda one: (not one[1]["malicious"], one[0]))
    told += [f"| {name} | {row['n']:,} | {figure(row['rate'])} |" for name, row in families]
    told += [f"| {name} (another attack) | {row['n']:,} | {figure(row['rate'])} |"
             for name, row in found["other_attacks"]["families"].items()]  # fmt: skip
    return [*told, f"| allow-listed | {found['allowed']['n']:,} | {figure(found['allowed']['rate'])} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--part", default="test")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        truth = read_truth(options.benchmark, options.part)
        found = score_entry(truth, *read_predictions(options.predictions, truth))
    except ProbewatchError as error:
        sys.exit(f"enter.py: {error}")
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
