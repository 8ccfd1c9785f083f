"""Train the detector that the package carries, and tell what it does on models, attacks and uses it never saw.

    probewatch corpus --benchmark --out BENCHMARK
    probewatch corpus --drawn 48 --sessions 3600 --seed 1 --recipe bench/drawn.toml --out DRAWN
    python bench/shipped.py --train LOG BENCHMARK/train DRAWN --test BENCHMARK/test [--without digits …] --out BUNDLE
                            [--seeds 5] [--workers 2]

Each folder holds ``events.jsonl.gz``, ``labels.csv``, ``allow.txt`` and ``targets/``, as ``probewatch corpus`` writes
them. BUNDLE learned from all, with seed 0; the others are trained for their figures alone: further seeds, and detectors
that must not see what is new in the benchmark's test part, or learn from less besides (:data:`LESSONS`). Figures are
kept in BUNDLE.results, so that a stopped run goes on with the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import load, remember, spread
from threadpoolctl import threadpool_limits

from probewatch.bundle import Bundle, read_bundle
from probewatch.corpus.benchmark import NEW_ATTACKS, NEW_USES
from probewatch.corpus.datasets import DRAWN
from probewatch.data.wording import listed
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
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
SETTINGS: dict[str, Any] = {
    "test_share": 0.1,
    "habits": 0.8,  # as on its readers' models, all unknown to it, so that its threshold is one for them
    "evidence_abroad": 0.5,  # the preset's rule would give 0.33
}
HEAD = "## On what it never saw"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """What a detector learns from.

    Attributes:
        text: in words.
        new: the attacks and uses that the benchmark keeps for its test part, on drawn data.
        drawn: drawn data at all.
        share: of the clients.
    """

    text: str
    new: bool = False
    drawn: bool = True
    share: float = 1.0


LESSONS = {
    "all": Lesson("everything", new=True),
    "known": Lesson("all but the attacks and uses that are new there"),
    "few": Lesson("the same, of a quarter of the clients", share=0.25),
    "undrawn": Lesson("the same of all clients, without drawn data", drawn=False),
}


@dataclass(frozen=True)
class Job:
    """One detector to train and test; ``lesson`` is one of :data:`LESSONS`."""

    lesson: str
    seed: int
    test: Path
    without: tuple[str, ...]
    out: Path

    @property
    def kept(self) -> Path:
        return self.out.with_name(f"{self.out.name}.results") / f"{self.lesson}-{self.seed}.json"


def run(data: Labelled, job: Job) -> Figures:
    """The figures of a detector."""
    config = replace(PRESETS["default"], **SETTINGS, seed=job.seed, split_seed=job.seed)
    shipped = job.lesson == "all" and job.seed == 0
    if shipped and not job.out.is_dir():
        job.kept.unlink(missing_ok=True)

    def make() -> Figures:
        with threadpool_limits(1), tempfile.TemporaryDirectory() as scratch:
            part = portion(data, LESSONS[job.lesson], job.seed)
            folder = job.out if shipped else Path(scratch) / "bundle"
            bundle = train_detector(part, config, folder, rivals=False)[0]
            return {"sessions": int(np.sum(part.label >= 0)), "views": test_views(bundle, job, config)}

    return remember(job.kept, {"log": data.sha256, "config": config.to_json(), "without": job.without}, make)


def portion(data: Labelled, lesson: Lesson, seed: int) -> Labelled:
    """``data`` for one lesson; the sessions that do not belong to it have no label."""
    clients, of = np.unique(data.by_actor.client.astype(str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(clients))
    kept = order[of] < round(lesson.share * len(clients))
    if not lesson.new:
        kept &= ~np.isin(data.family.astype(str), (*NEW_ATTACKS, *NEW_USES))
    if not lesson.drawn:
        kept &= ~np.array([model.startswith(f"{DRAWN}-") for model in data.sessions.model])
    return replace(data, label=np.where(kept, data.label, -1).astype(np.int8), allowed=data.allowed & kept)


def test_views(bundle: Bundle, job: Job, config: Config) -> dict[str, Any]:
    """The figures of each view on sessions that are all unseen; ``whole`` has those of each family too."""
    data = known_elsewhere(load(Path(), str(job.test)), job.without)
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
    whole, blind = found["all"], found["known"]
    tested, seeds = whole[0]["views"]["whole"]["n"], len(whole)
    columns = [" | ".join(TOLD) + " |", "---:|" * len(TOLD)]
    return "\n".join([
        HEAD, "",
        f"Tested on {tested:,} sessions of the benchmark's test part (`probewatch corpus --benchmark`), without those"
        f" of data sets that training saw too ({', '.join(without) or 'none'}): on other data sets and other models of"
        f" them. About half of the attacks there are {_named(NEW_ATTACKS)}, and about half of the other sessions"
        f" {_named(NEW_USES)}; this detector knows these kinds from drawn data (`probewatch corpus --drawn`)."
        f" {seeds} seed{'s' if seeds > 1 else ''}, mean (lowest to highest); this detector is seed 0. Measured by"
        " `bench/shipped.py`. How much evidence weighs was chosen with a look at this part as an earlier recipe made"
        " it: read it as slightly optimistic.", "",
        f"| what there is | {columns[0]}", f"|---|{columns[1]}",
        *(f"| {text} | {_cells([one['views'][name] for one in whole])}" for name, text in VIEWS.items()),
        "", "Detectors made in the same way that never saw these kinds, on no data at all:", "",
        f"| what there is | {columns[0]}", f"|---|{columns[1]}",
        *(f"| {text} | {_cells([one['views'][name] for one in blind])}" for name, text in VIEWS.items()),
        "", "How that grew, with a profile of the model:", "",
        f"| learned from | sessions | {columns[0]}", f"|---|---:|{columns[1]}",
        *(f"| {LESSONS[name].text} | {round(np.mean([one['sessions'] for one in ones])):,} |"
          f" {_cells([one['views']['whole'] for one in ones])}" for name, ones in found.items()),
        "", f"Share of sessions that alert, by family: {_by_family(whole)}.",
        "", f"The same where these kinds are new: {_by_family(blind)}.", "",
    ])  # fmt: skip


def _cells(rows: Sequence[Figures]) -> str:
    return " | ".join(spread([row[key] for row in rows]) for key in TOLD.values()) + " |"


def _named(kinds: Sequence[str]) -> str:
    return listed(f"`{kind}`" for kind in kinds)


def _by_family(whole: Sequence[Figures]) -> str:
    rates = [one["views"]["whole"]["families"] for one in whole]
    return ", ".join(f"{family} {np.mean([one[family] for one in rates]):.2f}" for family in sorted(rates[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--without", nargs="*", default=[], help="data sets of the test that training saw too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    jobs = [
        Job(lesson, seed, options.test, tuple(options.without), options.out)
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
