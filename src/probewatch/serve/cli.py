"""The verbs of the command line: parse, call, print. Heavy libraries load when a verb needs them."""

from __future__ import annotations

import functools
import heapq
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from probewatch import __version__
from probewatch.errors import ConfigError, ProbewatchError
from probewatch.serve.corpus import corpus
from probewatch.serve.options import (
    AllowFile,
    Gap,
    Json,
    KeyFile,
    LabelsFile,
    Logs,
    Map,
    ProfilesDir,
    Quiet,
    Rejects,
    TargetsDir,
)  # fmt: skip
from probewatch.serve.profile import chosen_profiles, profile, tell_unprofiled

if TYPE_CHECKING:
    from probewatch.bundle import Bundle
    from probewatch.data.logs import Log
    from probewatch.data.profile import Profiles
    from probewatch.learn.labelled import Labelled
    from probewatch.serve.show import Screen

app = typer.Typer(
    name="probewatch",
    help="Read the query log of a prediction API and say which clients probe it for its training data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


P = ParamSpec("P")
TOLD_EPOCHS = 10  # where no progress bar can be shown, the losses of every tenth epoch are told


def _sentences(verb: Callable[P, None]) -> Callable[P, None]:
    """Turn what Probewatch raises on purpose into a sentence on stderr and exit code 2."""

    @functools.wraps(verb)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except ProbewatchError as error:
            from probewatch.data.cells import printable

            print(f"probewatch: {printable(str(error))}", file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            print("probewatch: stopped; nothing was half-written.", file=sys.stderr)
            raise typer.Exit(130) from None

    return told


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
@_sentences
def train(
    logs: Logs,
    out: Annotated[
        Path, typer.Option("--out", metavar="BUNDLE", help="Folder of the trained detector and its report.")
    ],
    labels: LabelsFile = None,
    preset: Annotated[str, typer.Option(help="default, or article: the tutorial's system to the letter.")] = "default",
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="Settings that replace the preset's.")] = None,
    features: Annotated[str | None, typer.Option(metavar="A,B,…", help="Features, in order.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="stratified|client|time", help="How test sessions are held out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Of the split.")] = None,
    max_fpr: Annotated[float | None, typer.Option(metavar="F", help="Share of benign sessions that may alert.")] = None,
    allow: AllowFile = None,
    profiles: ProfilesDir = None,
    targets: TargetsDir = None,
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
    from probewatch.serve.show import Screen

    changes = {
        "features": features.split(",") if features is not None else None,
        "split": split, "seed": seed, "split_seed": split_seed, "max_fpr": max_fpr,
    }  # fmt: skip
    screen = Screen(as_json=as_json, quiet=quiet)
    chosen = _config(preset, config, {name: value for name, value in changes.items() if value is not None})
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is {device!r}, expected auto, cpu or cuda.")
    known = chosen_profiles(profiles, targets, key, screen)
    with _read(logs, fields, gap, rejects, screen) as log:
        data = replace(_labelled(log, labels, allow, screen), profiles=known)
        _train(data, chosen, out, device, resume, screen)


@app.command(epilog="Example: probewatch evaluate bundle last-week.jsonl.gz --labels labels.csv --out checked")
@_sentences
def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A trained detector.")],
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report.")],
    labels: LabelsFile = None,
    allow: AllowFile = None,
    profiles: ProfilesDir = None,
    targets: TargetsDir = None,
    key: KeyFile = None,
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a detector on labelled sessions and write a report."""
    from probewatch.bundle import read_bundle
    from probewatch.serve.show import Screen, figures_table

    screen = Screen(as_json=as_json, quiet=quiet)
    detector = read_bundle(bundle)
    _needs_training_extra()
    from probewatch.learn.trial import evaluate_detector

    known = chosen_profiles(profiles, targets, key, screen)
    with _read(logs, fields, gap, rejects, screen) as log:
        metrics = evaluate_detector(detector, replace(_labelled(log, labels, allow, screen), profiles=known), out)
    for sentence in metrics["notes"]:
        screen.note(sentence)
    screen.table(figures_table(metrics))
    screen.line(f"Report: {out / 'report' / 'index.html'}")
    screen.json({**metrics, "report": str(out / "report")})


@app.command(epilog="Example: probewatch score bundle today.jsonl.gz --out verdicts.csv")
@_sentences
def score(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A trained detector.")],
    logs: Logs,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="All verdicts: .jsonl, .csv or .parquet.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="T", min=0.0, max=1.0, help="Alert at this score.")] = None,
    allow: AllowFile = None,
    profiles: ProfilesDir = None,
    targets: TargetsDir = None,
    key: KeyFile = None,
    fields: Map = None,
    gap: Gap = 1800.0,
    rejects: Rejects = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a verdict on every session of a log."""
    from probewatch.bundle import read_bundle
    from probewatch.serve.show import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    detector = read_bundle(bundle)
    known = chosen_profiles(profiles, targets, key, screen)
    with _read(logs, fields, gap, rejects, screen) as log:
        _score(detector, log, out, threshold, allow, screen, known)


@app.command(epilog="Example: probewatch inspect queries.jsonl.gz")
@_sentences
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
    from probewatch.serve.show import Screen, counts_line, pairs_table

    screen = Screen(as_json=as_json, quiet=quiet)
    if len(logs) == 1 and is_bundle(logs[0]):
        manifest = read_bundle(logs[0]).manifest
        screen.table(pairs_table(f"Detector {logs[0]}", _manifest_pairs(manifest)))
        screen.json(manifest)
        return
    with _read(logs, fields, gap, rejects, screen) as log:
        summary = log.summary()
        examples = [f"{one.file}:{one.line}: {one.reason}" for one in log.rejected[:10]]
    screen.line(counts_line(summary))
    models = {
        f"model {name or '(none)'}": f"{one['events']:,} queries of {one['inputs']} inputs"
        for name, one in summary["models"].items()
    }
    pairs = {
        "sessions": f"{summary['sessions']:,}", "clients": f"{summary['clients']:,}", "first": summary["first"],
        "last": summary["last"], **models, "features": _available(summary),
    }  # fmt: skip
    screen.table(pairs_table("Log", pairs))
    for sentence in examples:
        screen.note(f"rejected: {sentence}")
    screen.json({**summary, "examples": examples})


@app.command(epilog="Example: probewatch demo --out demo")
@_sentences
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for all that is made.")] = Path(
        "probewatch-demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, test and use a detector on a bundled log of real attacks on really trained models."""
    from importlib.resources import as_file, files

    from probewatch.serve.show import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    _needs_training_extra()
    with as_file(files("probewatch") / "sample") as sample:
        screen.line(
            "1. Train on a week of queries to two models, labelled, and test on clients that training never saw"
        )
        with _read([str(sample / "queries.jsonl.gz")], None, 1800.0, None, screen) as log:
            data = _labelled(log, sample / "labels.csv", sample / "allow.txt", screen)
            detector = _train(data, _config("default", None, {}), out / "bundle", "auto", False, screen)
        screen.line("\n2. A verdict on every session of another log, of clients that are in neither")
        with _read([str(sample / "new.jsonl.gz")], None, 1800.0, None, screen) as log:
            _score(detector, log, out / "verdicts.csv", None, sample / "allow.txt", screen)


app.command(
    epilog="Example: probewatch profile --train train.jsonl --holdout others.jsonl --model credit --out profiles"
)(_sentences(profile))
app.command(epilog="Example: probewatch corpus --demo digits --out corpus")(_sentences(corpus))


def _config(preset: str, path: Path | None, changes: dict[str, Any]) -> Any:
    _needs_training_extra()
    from probewatch.learn.presets import PRESETS, read_config

    if preset not in PRESETS:
        raise ConfigError(f"--preset is {preset!r}, expected one of: {', '.join(PRESETS)}.")
    config = PRESETS[preset]
    if path is not None:
        config = read_config(path, config)
    return config.with_changes(changes)


def _needs_training_extra() -> None:
    from importlib.util import find_spec

    lacking = [name for name in ("torch", "sklearn", "onnx", "safetensors", "matplotlib") if find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"training and evaluation need {', '.join(lacking)}, which this host lacks;"
            " install them with: pip install 'probewatch[train]'."
        )


def _read(logs: list[str], fields: Path | None, gap: float, rejects: Path | None, screen: Screen) -> Log:
    from probewatch.data.fields import FieldMap
    from probewatch.data.logs import read_logs

    with screen.progress("reading") as told:
        log = read_logs(
            logs,
            fields=FieldMap.load(fields) if fields else None,
            gap_s=gap,
            rejects=rejects,
            progress=lambda done, total: told(done, total, ""),
        )
    if log.counts.rejects:
        first = log.rejected[0]
        screen.note(
            f"{log.counts.rejects:,} lines were rejected, the first: {first.file}:{first.line}: {first.reason}"
            + ("" if rejects else " (--rejects FILE writes all)")
        )
    return log


def _labelled(log: Log, labels: Path | None, allow: Path | None, screen: Screen) -> Labelled:
    import numpy as np

    from probewatch.data.labels import read_allow, read_labels
    from probewatch.learn.labelled import Labelled

    sessions = log.all_sessions()
    label, family = sessions.label, np.full(sessions.session.shape, "", object)
    actor, other = None, None
    if labels is not None:
        matched = read_labels(labels).match(sessions.session, sessions.client)
        label, family, actor, other = matched.label, matched.family, matched.actor, matched.other
        for sentence in matched.warnings:
            screen.note(sentence)
    clients = read_allow(allow) if allow else frozenset()
    allowed = np.array([client in clients for client in sessions.client], bool)
    return Labelled(sessions, label, family, allowed, log.sha256, actor=actor, other=other)


def _train(data: Labelled, config: Any, out: Path, device: str, resume: bool, screen: Screen) -> Bundle:
    from probewatch.learn.detector import train_detector
    from probewatch.serve.show import figures_table

    with screen.progress("training") as bar:

        def told(what: str, done: int, epoch: dict[str, float], total: int) -> None:
            losses = f"{what}: training loss {epoch['train_loss']:.4f}, validation loss {epoch['valid_loss']:.4f}"
            bar(done + epoch["epoch"], total, losses)
            if not screen.err.is_terminal and epoch["epoch"] % TOLD_EPOCHS == 1:
                screen.note(f"epoch {epoch['epoch']}, {losses}")

        bundle, metrics = train_detector(data, config, out, device=device, resume=resume, told=told)
    screen.note(f"False-alarm budget: {metrics['max_fpr']:.1%} of benign sessions.")
    screen.note(f"Trained on {bundle.manifest['device']}: {bundle.manifest['network']}")
    screen.table(figures_table(metrics))
    screen.line(f"Detector: {out}   Report: {out / 'report' / 'index.html'}")
    screen.json({**metrics, "bundle": str(out), "report": str(out / "report")})
    return bundle


def _score(
    bundle: Bundle,
    log: Log,
    out: Path | None,
    threshold: float | None,
    allow: Path | None,
    screen: Screen,
    profiles: Profiles | None = None,
) -> None:
    from contextlib import nullcontext
    from dataclasses import asdict

    from probewatch.data.labels import read_allow
    from probewatch.score.batch import Scorer
    from probewatch.score.verdicts import VerdictFile
    from probewatch.serve.show import ROWS, counts_line, verdict_table

    if out and out.resolve() in {path.resolve() for path in log.paths}:
        raise ConfigError(f"{out}: it is the log itself, expected another file; choose another --out.")
    allowed = read_allow(allow) if allow else frozenset()
    scorer = Scorer(bundle, threshold=threshold, allow=allowed, profiles=profiles)
    highest: list[tuple[bool, float, int, dict[str, Any]]] = []
    sessions = alerts = events = 0
    models: Counter[str] = Counter()
    file = VerdictFile(out) if out else nullcontext()
    with file as written, screen.progress("scoring") as bar:
        for verdicts in scorer.score(log.sessions()):
            if written is not None:
                written.write(verdicts)
            sessions += len(verdicts)
            models.update(verdicts.model)
            alerts += int(verdicts.alert.sum())
            events += int(verdicts.events.sum())
            shown = 1000 if screen.as_json else ROWS
            keys = [(bool(row["alert"]), row["score"], -at, row) for at, row in enumerate(verdicts.rows(), -sessions)]
            highest = heapq.nlargest(shown, [*highest, *keys], key=lambda key: key[:3])
            bar(events, log.counts.events, "")
    rows = [row for *_, row in highest]
    counts = asdict(log.counts)
    screen.line(counts_line(counts))
    screen.table(verdict_table(rows, sessions, alerts, scorer.threshold, screen.out.width))
    if out:
        screen.line(f"Verdicts: {out}")
    told = tell_unprofiled(models, scorer.profiles, screen) if scorer.wants_profiles else {}
    form = {"sessions": sessions, "alerts": alerts, "threshold": scorer.threshold, "out": str(out) if out else None}
    screen.json({**counts, **form, **told, "highest": rows})


def _available(summary: dict[str, Any]) -> str:
    """How many features a log has what they are made of, and what the others lack."""
    from probewatch.data.columns import FEATURES

    needs = {"confidence": "confidence", "scale": "confidence", "class": "predicted_class", "inputs": "inputs"}
    lacking = {group for group, field in needs.items() if field not in summary["fields"]}
    made = [name for name, feature in FEATURES.items() if feature.group not in lacking or name in summary["given"]]
    without = sorted({needs[group] for group in lacking})
    return f"{len(made)} of {len(FEATURES)}" + (f"; the log has no {', no '.join(without)}" if without else "")


def _manifest_pairs(manifest: Any) -> dict[str, object]:
    data, metrics, config = manifest["data"], manifest["metrics"], manifest["config"]
    return {
        "features": ", ".join(manifest["features"]),
        "threshold": f"{manifest['threshold']:.4f} on the {manifest['decision']} score",
        "streams": "yes" if manifest["streams"] else "no: it reads a session from both ends, so it needs it whole",
        "networks": f"{config['folds']} of {manifest['network']}",
        "trained on": f"{data['train']} sessions, validated on {data['valid']}, tested on {data['test']}"
        f" (split: {config['split']}); {data['attack_share']:.0%} attacks",
        "models": ", ".join(name or "(none)" for name in data["models"]),
        "test": ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float)),
        "made with": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
    }
