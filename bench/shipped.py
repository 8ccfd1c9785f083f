"""Train the detector that the package carries, and tell what it does on models, attacks and uses it never saw.

    probewatch corpus --benchmark --out BENCHMARK
    probewatch corpus --drawn 96 --sessions 7200 --seed 1 --recipe bench/drawn.toml --out DRAWN
    python bench/shipped.py --train LOG BENCHMARK/train --drawn DRAWN --test BENCHMARK [--without digits …] --out BUNDLE
                            [--seeds 5] [--workers 2]

Each folder holds ``events.jsonl.gz``, ``labels.csv``, ``allow.txt`` and ``targets/``, as ``probewatch corpus`` writes
them; of the benchmark the test and further parts are tested on. BUNDLE is what ``probewatch train`` makes of the logs,
with seed 0; the others are trained for their figures alone: further seeds, and detectors that must not see the attacks
and uses of one of the parts (:data:`LESSONS`), in the logs or in the drawn data of the package's trees
(``bench/pretrained.py``). Figures are kept in BUNDLE.results, so that a stopped run goes on with the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from benchmark import load, remember, spread
from pretrained import LESSONS, grow, without_families
from threadpoolctl import threadpool_limits

from probewatch.bundle import Bundle, read_bundle
from probewatch.corpus.benchmark import FURTHER, FURTHER_ATTACKS, FURTHER_USES, NEW_ATTACKS, NEW_USES, TEST
from probewatch.data.wording import listed
from probewatch.learn import networks
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.pretrained import pretrained_trees
from probewatch.learn.trees import Trees
from probewatch.learn.trial import measure
from probewatch.learn.views import view_sessions
from probewatch.learn.workers import run_all

TOLD = {
    "ROC AUC": "roc_auc",
    "TPR at 1 % FPR": "tpr_at_fpr_0.01",
    "TPR at its threshold": "tpr_at_threshold",
    "FPR there": "fpr_at_threshold",
}
VIEWS = {"whole": "profile of the model", "no_confidence": "profile, no confidences", "unknown_model": "no profile"}
SETTINGS: dict[str, Any] = {"test_share": 0.1}
PARTS = (TEST.name, FURTHER.name)
HEAD = "## On what it never saw"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One detector to train, and to test on the benchmark in the folder ``test``.

    Attributes:
        lesson: one of LESSONS.
        trees: pretrained ones that know no more than the lesson; None for the package's, which know all.
    """

    lesson: str
    seed: int
    test: Path
    without: tuple[str, ...]
    out: Path
    trees: Trees | None

    @property
    def kept(self) -> Path:
        return self.out.with_name(f"{self.out.name}.results") / f"{self.lesson.replace(' ', '-')}-{self.seed}.json"


def run(data: Labelled, job: Job) -> Figures:
    """The figures of a detector."""
    config = replace(PRESETS["default"], **SETTINGS, seed=job.seed, split_seed=job.seed)
    shipped = job.lesson == "all" and job.seed == 0
    if shipped and not job.out.is_dir():
        job.kept.unlink(missing_ok=True)

    def make() -> Figures:
        with threadpool_limits(1), tempfile.TemporaryDirectory() as scratch:
            learned = without_families(data, LESSONS[job.lesson])
            folder = job.out if shipped else Path(scratch) / "bundle"
            with patch.object(networks, "pretrained_trees", lambda features: job.trees or pretrained_trees(features)):
                bundle = train_detector(learned, config, folder, rivals=False)[0]
            found = {part: test_views(bundle, job.test / part, job.without, config) for part in PARTS}
            return {"sessions": int(np.sum(learned.label >= 0)), **found}

    return remember(job.kept, {"log": data.sha256, "config": config.to_json(), "without": job.without}, make)


def test_views(bundle: Bundle, part: Path, without: Sequence[str], config: Config) -> dict[str, Any]:
    """The figures of each view on sessions that are all unseen; ``whole`` has those of each family too."""
    data = known_elsewhere(load(Path(), str(part)), without)
    tested = np.flatnonzero((data.label >= 0) | data.aside)
    found: dict[str, Any] = {}
    for name, view in view_sessions(data.sessions, config.features, {}, data.profiles, poorer=True).items():
        metrics = measure(data, view, bundle.graph, bundle.threshold, config, tested)[0]
        found[name] = {key: metrics[key] for key in ("n", *TOLD.values())}
        if name == "whole":
            found[name] |= {"families": {family: one["rate"] for family, one in metrics["families"].items()}}
    return found


def known_elsewhere(data: Labelled, without: Sequence[str]) -> Labelled:
    """``data`` with the sessions of these data sets, the models' names up to the first '-', no longer counted."""
    out = np.array([model.split("-")[0] in without for model in data.sessions.model])
    other = data.elsewhere & ~out
    return replace(data, label=np.where(out, -1, data.label).astype(np.int8), allowed=data.allowed & ~out, other=other)


def tell(found: dict[str, list[Figures]], without: Sequence[str]) -> str:
    """What the card says of other models, and of attacks and uses that training never saw.

    Args:
        found: by lesson, the figures of each seed.
    """
    seeds = len(found["all"])
    tested, further = (found["all"][0][part]["whole"]["n"] for part in PARTS)
    blind = "Detectors made in the same way that never saw these kinds, on no data at all:"
    sections = [
        (f"**The test part**, {tested:,} sessions. About half of its attacks are {_named(NEW_ATTACKS)}, and about half"
         f" of its other sessions {_named(NEW_USES)}: this detector knows these from drawn data (`probewatch corpus"
         " --drawn`).", "all", TEST.name),
        (blind, "no new", TEST.name),
        (f"**The further part**, {further:,} sessions: its attacks are {_named(FURTHER_ATTACKS)}, its uses"
         f" {_named(FURTHER_USES)}. Many of these ask as some attack does, about other records: known from drawn data"
         " too.", "all", FURTHER.name),
        (blind, "no further", FURTHER.name),
        ("What these do on the test part:", "no further", TEST.name),
    ]  # fmt: skip
    told = [
        "Tested on the benchmark (`probewatch corpus --benchmark`), without those of its data sets that training saw"
        f" too ({', '.join(without) or 'none'}): on other data sets and other models of them. {seeds}"
        f" seed{'s' if seeds > 1 else ''}, mean (lowest to highest); this detector is seed 0. Measured by"
        " `bench/shipped.py`. How much evidence and the package's trees weigh, and how often the further kinds are in"
        " the data of these, was chosen with a look at these parts: read this as slightly optimistic.",
    ]
    for text, lesson, part in sections:
        told += [text, "\n".join(_table(found[lesson], part)), f"By family: {_by_family(found[lesson], part)}."]
    return "\n\n".join([HEAD, *told]) + "\n"


def _table(results: Sequence[Figures], part: str) -> list[str]:
    rows = [f"| {text} | {_cells([one[part][name] for one in results])}" for name, text in VIEWS.items()]
    return [f"| what there is | {' | '.join(TOLD)} |", f"|---|{'---:|' * len(TOLD)}", *rows]


def _cells(rows: Sequence[Figures]) -> str:
    return " | ".join(spread([row[key] for row in rows]) for key in TOLD.values()) + " |"


def _named(kinds: Sequence[str]) -> str:
    return listed(f"`{kind}`" for kind in kinds)


def _by_family(results: Sequence[Figures], part: str) -> str:
    rates = [one[part]["whole"]["families"] for one in results]
    return ", ".join(f"{family} {np.mean([one[family] for one in rates]):.2f}" for family in sorted(rates[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--drawn", type=Path, required=True, help="what the package's trees learned from")
    parser.add_argument("--test", type=Path, required=True, help="the benchmark's folder")
    parser.add_argument("--without", nargs="*", default=[], help="data sets of the benchmark that training saw too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    drawn = load(Path(), str(options.drawn))
    trees = {
        lesson: grow(without_families(drawn, families))[0] if families else None for lesson, families in LESSONS.items()
    }
    jobs = [
        Job(lesson, seed, options.test, tuple(options.without), options.out, trees[lesson])
        for lesson in LESSONS for seed in range(options.seeds)
    ]  # fmt: skip

    def told(at: int, done: int) -> None:
        print(f"{done} of {len(jobs)}: {jobs[at].lesson}, seed {jobs[at].seed}", flush=True)

    found: dict[str, list[Figures]] = {}
    data = load(Path(), *map(str, options.train))
    for job, figures in zip(jobs, run_all(run, data, jobs, options.workers, told), strict=True):
        found.setdefault(job.lesson, []).append(figures)
    card = read_bundle(options.out).folder / "README.md"
    card.write_text(card.read_text("utf-8").split(HEAD)[0].rstrip() + "\n\n" + tell(found, options.without), "utf-8")
    print(card.read_text("utf-8")[card.read_text("utf-8").index(HEAD) :])


if __name__ == "__main__":
    main()
