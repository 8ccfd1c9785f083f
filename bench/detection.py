"""Detection figures of a preset and its rivals over several splits and seeds.

Run: ``python bench/detection.py [--data DIR] [--profiles]``, DIR holding ``events.jsonl.gz``, ``labels.csv``,
``allow.txt`` and ``targets/`` (by default the packaged sample). Each run holds out other clients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from probewatch.data.labels import read_allow, read_labels
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_targets
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS

FIGURES = {
    "ROC AUC": "roc_auc",
    "TPR at 1 % FPR": "tpr_at_fpr_0.01",
    "TPR at threshold": "tpr_at_threshold",
    "FPR at threshold": "fpr_at_threshold",
}


def load(folder: Path, log: str, *, profiles: bool = False) -> Labelled:
    with read_logs([folder / log]) as opened:
        sessions, sha256 = opened.all_sessions(), opened.sha256
    matched = read_labels(folder / "labels.csv").match(sessions.session, sessions.client)
    allow = read_allow(folder / "allow.txt")
    allowed = np.array([client in allow for client in sessions.client], bool)
    known = read_targets(folder / "targets")[0] if profiles else {}
    return Labelled(sessions, matched.label, matched.family, allowed, sha256, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a labelled log (default: the packaged sample)")
    parser.add_argument("--profiles", action="store_true", help="use what the owner has of each model, DIR/targets")
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    sample = Path(str(files("probewatch") / "sample"))
    folder, log = (options.data, "events.jsonl.gz") if options.data else (sample, "queries.jsonl.gz")
    data = load(folder, log, profiles=options.profiles)
    found: dict[str, list[dict[str, float]]] = {}
    for run in range(options.runs):
        start = time.perf_counter()
        config = replace(PRESETS[options.preset], seed=run, split_seed=run, split="client")
        with tempfile.TemporaryDirectory() as folder:
            metrics = train_detector(data, config, Path(folder))[1]
        for name, one in {"Probewatch": metrics, **metrics["rivals"]}.items():
            found.setdefault(name, []).append(one)
        delay = metrics["delay"]["median"]
        told = f"ROC AUC {metrics['roc_auc']:.4f}, events until alert (median) {delay}"
        print(f"run {run}: {told}, {time.perf_counter() - start:.0f} s", flush=True)
        rates = {name: f"{one['rate']:.2f} of {one['n']}" for name, one in metrics["families"].items()}
        print(f"  alerted: {rates}", flush=True)
    print("\n| detector | " + " | ".join(FIGURES) + " |\n|---|" + "---:|" * len(FIGURES))
    for name, runs in found.items():
        cells = [[run[key] for run in runs if run[key] is not None] for key in FIGURES.values()]
        told = [f"{np.mean(c):.3f} ({min(c):.3f} to {max(c):.3f})" if c else "–" for c in cells]
        print(f"| {name} | " + " | ".join(told) + " |")
    print(f"\nROC AUC: {np.mean([run['roc_auc'] for run in found['Probewatch']]):.4f}")


if __name__ == "__main__":
    main()
