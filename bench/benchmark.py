"""The default preset and all its rivals on the benchmark, over several seeds: trained on DIR/train, tested on the rest.

    probewatch corpus --benchmark --out DIR
    python bench/benchmark.py DIR [--seeds 5] [--preset default] [--workers 1] [--pretrained] [--write]

Without ``--pretrained`` the package's trees are left out, which have learned from drawn data, not from DIR/train alone.
``--write`` puts the tables into docs/benchmark.md. Each seed's bundle, predictions (as bench/enter.py takes them) and
figures are kept in DIR.results, so that a stopped run of the same code goes on with the seeds that are missing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from enter import COLUMNS
from numpy.typing import NDArray

import probewatch
from probewatch.bundle import Bundle
from probewatch.corpus.benchmark import FURTHER, TEST, TRAIN
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.labels import read_allow, read_labels
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_targets
from probewatch.data.profile import Profile
from probewatch.learn.contest import FINISHED, RIVAL_NAMES
from probewatch.learn.dataset import Split, split_sessions
from probewatch.learn.detector import train_detector
from probewatch.learn.entry import Truth, read_truth, score_entry
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.report import RIVAL_PREFIX
from probewatch.learn.trial import measure_rivals
from probewatch.learn.workers import run_all
from probewatch.score.batch import Scorer

PAGE = Path(__file__).parent.parent / "docs" / "benchmark.md"
BEGIN, END = "<!-- figures: written by bench/benchmark.py -->", "<!-- figures: end -->"
BEGIN_PRETRAINED = "<!-- figures: written by bench/benchmark.py --pretrained -->"
OURS = "Probewatch"
TESTED = (TEST.name, FURTHER.name)
AT_THRESHOLD = {"TPR at its threshold": "tpr_at_threshold", "FPR there": "fpr_at_threshold"}
Scores = NDArray[np.float64]
Results = dict[str, dict[str, Any]]
"""Figures by detector."""


def load(benchmark: Path, *parts: str) -> Labelled:
    """Sessions of one part, or of several read as one log, with the profiles of their models."""
    with read_logs([benchmark / part / "events.jsonl.gz" for part in parts]) as opened:
        sessions, sha256 = opened.all_sessions(), opened.sha256
    folders = [benchmark / part for part in parts]
    matched = read_labels(*[folder / "labels.csv" for folder in folders]).match(sessions.session, sessions.client)
    allow = read_allow(*[folder / "allow.txt" for folder in folders])
    allowed = np.array([client in allow for client in sessions.client], bool)
    profiles: dict[str, Profile] = {}
    for folder in folders:
        profiles |= read_targets(folder / "targets")[0]
    return Labelled(sessions, matched.label, matched.family, allowed, sha256, profiles, matched.actor, matched.other)


def code() -> str:
    """A hash of the package's source: figures that other code made are not taken for its own."""
    files = sorted(Path(probewatch.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def remember(path: Path, of: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` gives, from where it is kept if it was made by the same code ``of`` the same."""
    key = json.loads(json.dumps({"code": code(), **of}))
    old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if old.get("of") != key:
        old = {"of": key, "found": make()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(old, indent=1) + "\n", "utf-8")
    found: dict[str, Any] = old["found"]
    return found


def run_seed(train: Labelled, job: tuple[Path, str, Config]) -> Results:
    """The figures of the detector and of each rival on all parts."""
    benchmark, preset, config = job
    folder = benchmark.with_name(f"{benchmark.name}.results") / f"{preset.replace(' ', '-')}-{config.seed}"
    of = {
        "benchmark": hashlib.sha256((benchmark / "manifest.json").read_bytes()).hexdigest(), "config": config.to_json()
    }  # fmt: skip
    return remember(folder / "figures.json", of, lambda: _run(train, benchmark, config, folder))


def _run(train: Labelled, benchmark: Path, config: Config, folder: Path) -> Results:
    bundle, metrics = train_detector(train, config, folder / "bundle")
    finished = {RIVAL_NAMES[FINISHED]: metrics[FINISHED]} if metrics.get(FINISHED) else {}
    seen = {OURS: metrics, **finished, **metrics["rivals"]}
    keys = ("roc_auc", *AT_THRESHOLD.values())
    found: Results = {name: {TRAIN.name: {key: one.get(key) for key in keys}} for name, one in seen.items()}
    for part in TESTED:
        truth = read_truth(benchmark, part)
        peaks, lasts, threshold = own_scores(bundle, benchmark / part)
        entries = {OURS: (peaks, threshold), **rival_scores(train, benchmark, truth, part, bundle, config, metrics)}
        for name, (scores, threshold) in entries.items():
            score = np.array([scores[session] for session in truth.session])
            write_predictions(folder / f"{part}-{name}.csv", truth, score, score >= threshold)
            found[name][part] = score_entry(truth, score, score >= threshold, intervals=False)
        for name in finished:
            last = np.array([lasts[session] for session in truth.session])
            found[name][part] = score_entry(truth, last, None, intervals=False)
    return found


def own_scores(bundle: Bundle, part: Path) -> tuple[Mapping[str, float], Mapping[str, float], float]:
    """The highest and the last scores as ``probewatch score`` gives them, and the threshold."""
    scorer = Scorer(bundle, profiles=read_targets(part / "targets")[0])
    peaks, lasts = dict[str, float](), dict[str, float]()
    with read_logs([part / "events.jsonl.gz"]) as log:
        for verdicts in scorer.score(log.sessions()):
            names = verdicts.session.tolist()
            peaks |= dict(zip(names, verdicts.score.tolist(), strict=True))
            lasts |= dict(zip(names, verdicts.last_score.tolist(), strict=True))
    return peaks, lasts, scorer.threshold


def rival_scores(
    train: Labelled,
    benchmark: Path,
    truth: Truth,
    part: str,
    bundle: Bundle,
    config: Config,
    metrics: Mapping[str, Any],
) -> dict[str, tuple[Mapping[str, float], float]]:
    """Of each rival the scores, and the threshold that it has on the train part, as beside every training."""
    both = load(benchmark, TRAIN.name, part)
    place = {name: number for number, name in enumerate(both.sessions.session.tolist())}
    split = split_sessions(train.by_actor, train.label, (train.label >= 0) & ~train.allowed, config)

    def there(indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([place[train.sessions.session[index]] for index in indices], np.int64)

    moved = Split(there(split.train), there(split.valid), there(split.test))
    seen = np.sort(np.concatenate([moved.train, moved.valid])) if config.folds > 1 else moved.train
    tested = np.sort(np.array([place[name] for name in truth.session], np.int64))
    predictions: dict[str, Any] = {}
    sequences = compute(both.sessions, bundle.features, Known(bundle.scales, both.profiles))
    found = measure_rivals(both, sequences, moved, seen, metrics["max_fpr"], predictions, tested, config)
    return {
        name: (dict(zip(place, predictions[f"{RIVAL_PREFIX}{name}"].tolist(), strict=True)), one["threshold"])
        for name, one in found.items()
    }


def write_predictions(path: Path, truth: Truth, score: Scores, alert: NDArray[np.bool_]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["session", "score", "alert"])
        writer.writerows(zip(truth.session, score.tolist(), alert.astype(int).tolist(), strict=True))


def spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    return f"{np.mean(known):.3f}" + (f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else "")


def table(results: Sequence[Results], head: Mapping[str, Any]) -> list[str]:
    """A row for each detector; ``head`` names a column and gives the figure from one detector's results."""
    told = ["| detector | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name in results[0]:
        cells = [spread([figure(one[name]) for one in results]) for figure in head.values()]
        told.append(f"| {name} | " + " | ".join(cells) + " |")
    return told


def by_family(results: Sequence[Results], part: str) -> list[str]:
    """A row for each family, attacks first, and a column for each detector that alerts."""
    results = [{name: one[name] for name in one if "families" in one[name][part]} for one in results]
    first = results[0][OURS][part]
    asides = {"families": "", "other_attacks": " (another attack)"}
    told = ["| family | " + " | ".join(results[0]) + " |", "|---|" + "---:|" * len(results[0])]
    for kind, aside in asides.items():
        rows = first["families"] if kind == "families" else first[kind]["families"]
        for family, row in sorted(rows.items(), key=lambda one: not one[1].get("malicious", True)):
            rates = []
            for name in results[0]:
                each = [one[name][part][kind] for one in results]
                each = [one if kind == "families" else one["families"] for one in each]
                rates.append(spread([one.get(family, {}).get("rate") for one in each]))
            benign = "" if row.get("malicious", True) else " (benign)"
            told.append(f"| {family}{benign}{aside} | " + " | ".join(rates) + " |")
    rates = [spread([one[name][part]["allowed"]["rate"] for one in results]) for name in results[0]]
    return [*told, "| allow-listed rescoring | " + " | ".join(rates) + " |"] if first["allowed"]["n"] else told


def tables(results: Sequence[Results], benchmark: Mapping[str, Any], preset: str) -> list[str]:
    def at(part: str, key: str) -> Any:
        return lambda one: one[part].get(key)

    rungs = list(results[0][OURS][TEST.name]["rungs"])
    sessions = "; ".join(
        f"{name}: {part['sessions']['all']:,} sessions of {part['sessions']['clients']:,} clients"
        for name, part in benchmark["parts"].items()
    )
    told = [
        f"Benchmark {benchmark['benchmark']}, seed {benchmark['seed']} ({sessions}); preset `{preset}`,"
        f" {len(results)} seed{'s' if len(results) > 1 else ''}: mean (lowest to highest)."
    ]
    for part in TESTED:
        head = {name: at(part, key) for name, key in {**COLUMNS, **AT_THRESHOLD}.items()}
        told += ["", f"**The {part} part, all of it**", "", *table(results, head)]
    told += [
        "", "**ROC AUC, from what is known to what is new** (the first column is clients of the train part that were"
        " held out, the others the test part)", "",
        *table(results, {
            "held-out clients": at(TRAIN.name, "roc_auc"),
            **{rung: lambda one, rung=rung: one[TEST.name]["rungs"][rung]["roc_auc"] for rung in rungs},
        }),
    ]  # fmt: skip
    for part in TESTED:
        told += ["", f"**Share of the {part} part's sessions that alert, by family**", "", *by_family(results, part)]
    return told


def write_page(page: Path, begin: str, told: Sequence[str]) -> None:
    text = page.read_text("utf-8")
    before, rest = text.split(begin)
    after = rest.split(END, 1)[1]
    page.write_text(before + "\n".join([begin, *told, END]) + after, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--workers", type=int, default=1, help="seeds trained at a time")
    parser.add_argument("--pretrained", action="store_true", help="with the package's trees; no rivals are shown")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmark.md")
    options = parser.parse_args()
    config = PRESETS[options.preset]
    if not options.pretrained:
        config = replace(config, pretrained=0.0, pretrained_abroad=0.0)
    named = options.preset + (" with the package's trees" if options.pretrained else "")
    jobs = [
        (options.benchmark, named, replace(config, seed=seed, split_seed=seed)) for seed in range(options.seeds)
    ]  # fmt: skip

    def told(at: int, done: int) -> None:
        print(f"{done} of {len(jobs)}: seed {at}, {time.perf_counter() - start:.0f} s since the start", flush=True)

    start = time.perf_counter()
    results = run_all(run_seed, load(options.benchmark, "train"), jobs, options.workers, told)
    manifest = json.loads((options.benchmark / "manifest.json").read_text("utf-8"))
    if options.pretrained:
        results = [{name: one[name] for name in one if name in (OURS, RIVAL_NAMES[FINISHED])} for one in results]
    page = tables(results, manifest, named)
    print("\n".join(["", *page]))
    if options.write:
        write_page(PAGE, BEGIN_PRETRAINED if options.pretrained else BEGIN, page)


if __name__ == "__main__":
    main()
