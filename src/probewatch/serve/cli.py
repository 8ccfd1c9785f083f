"""The verbs of the command line: parse, call, print. Heavy libraries load when a verb needs them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probewatch import __version__
from probewatch.errors import ConfigError
from probewatch.serve.benchmark import benchmark
from probewatch.serve.corpus import corpus
from probewatch.serve.exits import sentences
from probewatch.serve.options import (
    AllowFiles,
    DetectorAndLogs,
    Gap,
    Json,
    KeyFile,
    LabelsFiles,
    Logs,
    Map,
    Prior,
    ProfilesDirs,
    Quiet,
    Rejects,
    TargetsDirs,
)
from probewatch.serve.profile import chosen_profiles, profile, tell_other_lengths, tell_unprofiled
from probewatch.serve.reading import choose_config, choose_detector, label_sessions, need_training_extra, open_log
from probewatch.serve.watch import watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probewatch.bundle import Bundle
    from probewatch.data.logs import Log
    from probewatch.data.profile import Profiles
    from probewatch.learn.labelled import Labelled
    from probewatch.learn.presets import Config
    from probewatch.serve.screen import Screen

app = typer.Typer(
    name="probewatch",
    help="Read the query log of a prediction API and say which clients probe it for its training data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"probewatch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Read the query log of a prediction API and say which clients probe it for its training data."""


@app.command(epilog="Example: probewatch train queries.jsonl.gz --labels labels.csv --out bundle")
@sentences
def train(
    logs: Logs,
    out: Annotated[
        Path, typer.Option("--out", metavar="BUNDLE", help="Folder of the trained detector and its report.")
    ],
    labels: LabelsFiles = None,
    preset: Annotated[str, typer.Option(help="default, or article: the tutorial's system to the letter.")] = "default",
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="Settings that replace the preset's.")] = None,
    features: Annotated[str | None, typer.Option(metavar="A,B,…", help="Features, in order.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="stratified|client|time", help="How test sessions are held out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Of the split.")] = None,
    max_fpr: Annotated[float | None, typer.Option(metavar="F", help="Share of benign sessions that may alert.")] = None,
    max_alerts_per_day: Annotated[
        float | None,
        typer.Option("--max-alerts-per-day", metavar="N", help="The same as false alarms a day, at this traffic:"),
    ] = None,
    sessions_per_day: Annotated[
        float | None, typer.Option("--sessions-per-day", metavar="N", help="Sessions that a day brings.")
    ] = None,
    allow: AllowFiles = None,
    profiles: ProfilesDirs = None,
    targets: TargetsDirs = None,
    key: KeyFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector on labelled sessions, test it once on clients that it never saw, and write both to a folder."""
    from probewatch.serve.screen import Screen

    changes = {
        "features": features.split(",") if features is not None else None,
        "split": split, "seed": seed, "split_seed": split_seed, "max_fpr": max_fpr,
        "max_alerts_per_day": max_alerts_per_day, "sessions_per_day": sessions_per_day,
    }  # fmt: skip
    screen = Screen(as_json=as_json, quiet=quiet)
    chosen = choose_config(preset, config, changes)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is {device!r}, expected auto, cpu or cuda.")
    known = chosen_profiles(profiles, targets, key, screen)
    with open_log(logs, fields, gap, rejects, screen) as log:
        data = label_sessions(log, labels, allow, known, screen)
        _train(data, chosen, out, device, resume, screen)


@app.command(epilog="Example: probewatch evaluate bundle last-week.jsonl.gz --labels labels.csv --out checked")
@sentences
def evaluate(
    logs: DetectorAndLogs,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report.")],
    labels: LabelsFiles = None,
    prior: Prior = None,
    allow: AllowFiles = None,
    profiles: ProfilesDirs = None,
    targets: TargetsDirs = None,
    key: KeyFile = None,
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a detector on labelled sessions and write a report."""
    from probewatch.data.features import compile_ahead
    from probewatch.data.profile import with_profiles
    from probewatch.serve.screen import Screen
    from probewatch.serve.show import counts_line, show_evaluated

    screen = Screen(as_json=as_json, quiet=quiet)
    named = logs
    detector, logs = choose_detector(named)
    source = {"detector": named[0] if len(logs) < len(named) else "the packaged detector", "logs": logs}
    compile_ahead()
    need_training_extra()
    from probewatch.learn.trial import evaluate_detector

    known = chosen_profiles(profiles, targets, key, screen)
    with open_log(logs, fields, gap, rejects, screen) as log:
        data = label_sessions(log, labels, allow, known, screen)
        told = asdict(log.counts)
        screen.note(counts_line(told))
        if detector.wants_profiles:
            told |= tell_unprofiled(Counter(data.sessions.model.tolist()), known, screen)
        told |= tell_other_lengths(log, with_profiles(detector.scales, known), screen)
        metrics = evaluate_detector(detector, data, out, prior=prior, source=source)
    show_evaluated(screen, told | metrics, out / "report")


@app.command(epilog="Example: probewatch score bundle today.jsonl.gz --profiles profiles --out verdicts.csv")
@sentences
def score(
    logs: DetectorAndLogs,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="All verdicts: .jsonl, .csv, either with .gz, or .parquet."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="T", min=0.0, max=1.0, help="Alert at this score.")] = None,
    prior: Prior = None,
    allow: AllowFiles = None,
    profiles: ProfilesDirs = None,
    targets: TargetsDirs = None,
    key: KeyFile = None,
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a verdict on every session of a log."""
    from probewatch.data.features import compile_ahead
    from probewatch.serve.screen import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    detector, logs = choose_detector(logs)
    compile_ahead()
    known = chosen_profiles(profiles, targets, key, screen)
    with open_log(logs, fields, gap, rejects, screen) as log:
        _score(detector, log, out, threshold, allow, screen, known, prior)


@app.command(epilog="Example: probewatch inspect queries.jsonl.gz")
@sentences
def inspect(
    logs: Annotated[list[str], typer.Argument(metavar="BUNDLE|LOG", help="A trained detector, or query logs.")],
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what is in a detector or a log."""
    from probewatch.bundle import is_bundle, read_bundle
    from probewatch.serve.screen import Screen
    from probewatch.serve.show import show_bundle, show_log

    screen = Screen(as_json=as_json, quiet=quiet)
    if len(logs) == 1 and is_bundle(logs[0]):
        show_bundle(screen, read_bundle(logs[0]))
        return
    with open_log(logs, fields, gap, rejects, screen) as log:
        show_log(screen, log)


@app.command(epilog="Example: probewatch demo --out demo")
@sentences
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for all that is made.")] = Path(
        "probewatch-demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, test and use a detector on a bundled log of real attacks on really trained models."""
    from importlib.resources import as_file, files

    from probewatch.serve.screen import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    need_training_extra()
    with as_file(files("probewatch") / "sample") as sample:
        known = chosen_profiles(None, [sample / "targets"], None, screen)
        screen.line(
            "1. Train on a week of queries to two models, labelled, with what their owner knows of them, and test on"
            " clients that training never saw"
        )
        with open_log([str(sample / "queries.jsonl.gz")], None, 1800.0, None, screen) as log:
            data = label_sessions(log, [sample / "labels.csv"], [sample / "allow.txt"], known, screen)
            detector = _train(data, choose_config("default", None, {}), out / "bundle", "auto", False, screen)
        screen.line("\n2. A verdict on every session of another log, of clients that are in neither")
        with open_log([str(sample / "new.jsonl.gz")], None, 1800.0, None, screen) as log:
            _score(detector, log, out / "verdicts.csv", None, [sample / "allow.txt"], screen, known)


app.command(
    epilog="Example: probewatch profile --train train.jsonl --holdout others.jsonl --model credit --out profiles"
)(sentences(profile))
app.command(
    epilog="Example: probewatch benchmark queries.jsonl.gz --labels labels.csv --leave-out family --out unseen"
)(sentences(benchmark))
app.command(epilog="Example: probewatch corpus --demo digits --out corpus")(sentences(corpus))
app.command(epilog="Example: tail -n +1 -F queries.jsonl | probewatch watch bundle --state state.db")(sentences(watch))


def _train(data: Labelled, config: Config, out: Path, device: str, resume: bool, screen: Screen) -> Bundle:
    from probewatch.learn.detector import train_detector
    from probewatch.serve.show import show_trained, told_losses

    with screen.progress("training") as bar:
        bundle, metrics = train_detector(
            data, config, out, device=device, resume=resume, told=told_losses(screen, bar), note=screen.note
        )
    show_trained(screen, bundle, metrics)
    return bundle


def _score(
    bundle: Bundle,
    log: Log,
    out: Path | None,
    threshold: float | None,
    allow: Sequence[Path] | None,
    screen: Screen,
    profiles: Profiles | None = None,
    prior: float | None = None,
) -> None:
    from contextlib import nullcontext

    from probewatch.bundle import Overlap
    from probewatch.data.labels import read_allow
    from probewatch.network import tell_prior
    from probewatch.score.batch import Scorer
    from probewatch.score.verdicts import VerdictFile
    from probewatch.serve.show import JSON_ROWS, ROWS, Tally, show_verdicts

    allowed = read_allow(*allow or ())
    scorer = Scorer(bundle, threshold=threshold, allow=allowed, profiles=profiles, prior=prior)
    tally = Tally(JSON_ROWS if screen.as_json else ROWS)
    models: Counter[str] = Counter()
    file = VerdictFile(out) if out else nullcontext()
    with file as written, screen.progress("scoring") as bar:
        for verdicts in scorer.score(log.sessions()):
            if written is not None:
                written.write(verdicts)
            tally.add(verdicts)
            models.update(verdicts.model)
            bar(tally.events, log.counts.events, "")
    if prior is not None:
        screen.note(tell_prior(prior, bundle.prior))
    overlap = Overlap.of(bundle, log.distinct("client"), log.distinct("model"), scorer.profiles)
    told = tell_unprofiled(models, scorer.profiles, screen) if bundle.wants_profiles else {}
    told |= tell_other_lengths(log, scorer.scales, screen)
    told["prior"] = scorer.prior
    show_verdicts(screen, log, tally, scorer.threshold, out, overlap, told)
