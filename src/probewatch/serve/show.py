"""What a person sees of a verb's outcome: its tables and lines."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from probewatch.data.cells import printable
from probewatch.data.wording import counted, listed
from probewatch.serve.screen import Screen

if TYPE_CHECKING:
    from probewatch.bundle import Bundle, Overlap
    from probewatch.data.logs import Log
    from probewatch.score.verdicts import Verdicts

ROWS = 25  # sessions shown on a terminal
JSON_ROWS = 1000  # sessions in --json
FIXED_COLUMNS = 62  # of the verdicts: events, score, alert and reason with their rules
WITH_CLIENT, WITH_MODEL = 96, 110  # columns of a screen from which verdicts have room for these names
TOLD_EPOCHS = 10  # where no progress bar can be shown, the losses of every tenth epoch are told


def name_of(text: object) -> str:
    """A name from a log, safe to print."""
    return escape(printable(str(text)))


def probability(value: float) -> str:
    """A score as tables show it; a small one, as a rare attack's prior makes it, keeps its size.

    >>> probability(0.43471), probability(0.00012345), probability(0.0)
    ('0.435', '1.2e-04', '0.000')
    """
    return f"{value:.3f}" if value >= 0.001 or value == 0.0 else f"{value:.1e}"


def counts_line(counts: Mapping[str, Any]) -> str:
    """``read = events + duplicates + skipped + rejects`` with its numbers."""
    parts = " + ".join(f"{counts[name]:,} {name}" for name in ("events", "duplicates", "skipped", "rejects"))
    return f"{counts['read']:,} read = {parts}"


def pairs_table(title: str, pairs: Mapping[str, object]) -> Table:
    """A table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name_of(name), name_of(value))
    return table


def figures_table(metrics: Mapping[str, Any]) -> Table:
    """The detector beside its rivals."""
    table = Table(
        title=f"Test: {counted(metrics['n'], 'session')} of {counted(metrics['n_clients'], 'client')}",
        title_justify="left",
    )
    table.add_column("detector", no_wrap=True)
    shown = {
        "ROC AUC": "roc_auc", "average precision": "average_precision", "TPR at 1 % FPR": "tpr_at_fpr_0.01",
        "TPR at threshold": "tpr_at_threshold", "FPR at threshold": "fpr_at_threshold",
    }  # fmt: skip
    for head in shown:
        table.add_column(head, justify="right")
    finished = {"  when finished": metrics["finished"]} if metrics.get("finished") else {}
    rows = {"Probewatch": metrics, **finished, **(metrics.get("rivals") or {})}
    for name, row in rows.items():
        style = "bold" if row is metrics else None
        table.add_row(name, *(figure(row.get(key)) for key in shown.values()), style=style)
    return table


def remarks(metrics: Mapping[str, Any]) -> list[str]:
    """What the table of figures leaves out, and why some could not be measured."""
    aside = {"of allow-listed clients": metrics["allowed"]["n"], "of other attacks": metrics["other_attacks"]["n"]}
    told = [f"{count:,} {whose}" for whose, count in aside.items() if count]
    lines = [f"Not counted there: {' and '.join(told)}."] if told else []
    absent = [noun for noun, key in (("attack", "n_attacks"), ("benign", "n_benign")) if not metrics[key]]
    if absent:
        lines.append(f"– where it takes both kinds: there is no {absent[0]} session.")
    elif metrics["tpr_at_fpr_0.01"] is None:
        lines.append(f"– at 1 % FPR, which takes 300 benign sessions: there are {metrics['n_benign']:,}.")
    return lines


def figure(value: Any) -> str:
    """A share to three places; a dash where it could not be measured."""
    return "–" if value is None else f"{value:.3f}"


def verdict_table(rows: list[dict[str, Any]], total: int, alerts: int, threshold: float, width: int) -> Table:
    """The sessions with the highest scores, a line each, with what of its behaviour moved the score.

    Where the screen is too narrow for all columns, the model is left out first, then the client.
    """
    share = f"{alerts:,} of {counted(total, 'session')} {'alerts' if total == 1 else 'alert'}"
    more = "the highest score" if len(rows) == 1 else f"the {len(rows)} highest scores"
    table = Table(
        title=f"{share} at a score of {probability(threshold)}", title_justify="left",
        caption=f"{more}; --out FILE writes all, with every reason", caption_justify="left",
    )  # fmt: skip
    names = ("session", "client", "model")[: 1 + (width >= WITH_CLIENT) + (width >= WITH_MODEL)]
    room = (width - FIXED_COLUMNS) // len(names) - 3  # what numbers, reasons and rules leave to each name
    for head in names:
        table.add_column(head, no_wrap=True, overflow="ellipsis", max_width=max(room, 6))
    for head in ("events", "score", "alert at"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("what it did", no_wrap=True, overflow="ellipsis", max_width=28)
    for row in rows:
        style = "red" if row["alert"] else ("dim" if row["allowed"] else None)
        table.add_row(
            *(name_of(row[head]) for head in names), f"{row['events']:,}", probability(row["score"]),
            str(row["first_alert"] or "–"), name_of("allow-listed" if row["allowed"] else row["why"].split(" (")[0]),
            style=style,
        )  # fmt: skip
    return table


class Tally:
    """Counts verdicts as they come, and keeps those with the highest scores, alerts first."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._highest: list[tuple[bool, float, int, dict[str, Any]]] = []
        self.sessions = self.alerts = self.events = 0

    def add(self, verdicts: Verdicts) -> None:
        """Count some verdicts."""
        self.sessions += len(verdicts)
        self.alerts += int(verdicts.alert.sum())
        self.events += int(verdicts.events.sum())
        rows = enumerate(verdicts.rows(), -self.sessions)
        keys = [(bool(row["alert"]), row["score"], -at, row) for at, row in rows]
        self._highest = heapq.nlargest(self._rows, [*self._highest, *keys], key=lambda key: key[:3])

    @property
    def highest(self) -> list[dict[str, Any]]:
        """The rows kept."""
        return [row for *_, row in self._highest]


def show_verdicts(
    screen: Screen,
    log: Log,
    tally: Tally,
    threshold: float,
    out: Path | None,
    overlap: Overlap,
    told: Mapping[str, Any],
) -> None:
    """The outcome of ``score``; ``told`` goes into the JSON as it is."""
    counts = asdict(log.counts)
    for sentence in overlap.sentences():
        screen.note(sentence)
    screen.line(counts_line(counts))
    screen.table(verdict_table(tally.highest, tally.sessions, tally.alerts, threshold, screen.out.width))
    if out:
        screen.line(f"Verdicts: {out}")
    form: dict[str, Any] = {"sessions": tally.sessions, "alerts": tally.alerts, "threshold": threshold}
    form |= {"cut_short": list(log.cut_short), "overlap": overlap.to_json(), **told}
    screen.json({**counts, **form, "out": str(out) if out else None, "highest": tally.highest})


def told_losses(screen: Screen, bar: Callable[[float, float, str], None]) -> Callable[..., None]:
    """What training calls after every epoch: it moves the bar, or writes some epochs' losses where there is none."""

    def told(what: str, done: int, epoch: Mapping[str, float], total: int) -> None:
        losses = f"{what}: training loss {epoch['train_loss']:.4f}, validation loss {epoch['valid_loss']:.4f}"
        bar(done + epoch["epoch"], total, losses)
        if not screen.err.is_terminal and epoch["epoch"] % TOLD_EPOCHS == 1:
            screen.note(f"epoch {epoch['epoch']}, {losses}")

    return told


def show_trained(screen: Screen, bundle: Bundle, metrics: Mapping[str, Any]) -> None:
    """The outcome of ``train``."""
    report = bundle.folder / "report"
    screen.note(f"Trained on {bundle.manifest['device']}: {_readers(bundle.manifest)}.")
    screen.table(figures_table(metrics))
    for sentence in [*remarks(metrics), *_threshold_lines(bundle, metrics), *_view_lines(metrics.get("views") or {})]:
        screen.line(sentence)
    screen.line(f"Detector: {bundle.folder}   Report: {report / 'index.html'}")
    screen.json({**metrics, "bundle": str(bundle.folder), "report": str(report)})


def _threshold_lines(bundle: Bundle, metrics: Mapping[str, Any]) -> list[str]:
    """The threshold, what it lets through on the test split and out of fold, and what it was chosen for."""
    apart = metrics.get("out_of_fold") or {"benign": 0, "fpr": None, "interval": None}
    given = bundle.manifest["config"]["threshold"]
    chosen = "as asked for" if given else f"chosen for at most {rate(metrics['max_fpr'])} of benign sessions"
    interval = metrics["intervals"].get("fpr_at_threshold")
    return [
        f"It alerts at a score of {metrics['threshold']:.4f}, {chosen}.",
        f"False alarms on the test split: {rate(metrics['fpr_at_threshold'], interval)}"
        f" of {counted(metrics['n_benign'], 'benign session')}.",
        f"False alarms out of fold: {rate(apart['fpr'], apart['interval'])}"
        f" of {counted(apart['benign'], 'benign session')} (Clopper-Pearson).",
    ]


def _view_lines(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the detector does with poorer logs, a line each; none where there is but the whole."""
    from probewatch.learn.views import WHOLE, describe_view

    return [
        f"With {describe_view(name)}: ROC AUC {figure(one['roc_auc'])}, at the threshold"
        f" TPR {figure(one['tpr_at_threshold'])}, FPR {figure(one['fpr_at_threshold'])}."
        for name, one in views.items()
        if name != WHOLE
    ]


def rate(share: float | None, interval: Sequence[float] | None = None) -> str:
    """A share in percent, small ones in full, with its 95 % interval.

    >>> rate(0.00025), rate(0.012, (0.0051, 0.02))
    ('0.025 %', '1.2 % (95 %: 0.51 % to 2 %)')
    """
    if share is None:
        return "–"
    ends = [f"{100 * end:.2g} %" for end in interval or ()]
    return f"{100 * share:.3g} %" + (f" (95 %: {ends[0]} to {ends[1]})" if ends else "")


def show_evaluated(screen: Screen, metrics: Mapping[str, Any], report: Path) -> None:
    """The outcome of ``evaluate``."""
    for sentence in metrics["notes"]:
        screen.note(sentence)
    screen.table(figures_table(metrics))
    for sentence in remarks(metrics):
        screen.line(sentence)
    screen.line(f"Report: {report / 'index.html'}")
    screen.json({**metrics, "report": str(report)})


def show_bundle(screen: Screen, bundle: Bundle) -> None:
    """What ``inspect`` says of a detector."""
    screen.table(pairs_table(f"Detector {bundle.folder}", _manifest_pairs(bundle.manifest)))
    screen.json(bundle.manifest)


def show_log(screen: Screen, log: Log) -> None:
    """What ``inspect`` says of a log."""
    summary = log.summary()
    screen.line(counts_line(summary))
    models = {}
    for name, one in summary["models"].items():
        size = f"{counted(one['events'], 'query', 'queries')} of {counted(one['inputs'], 'input')}"
        models[f"model {name or '(none)'}"] = size
    pairs = {
        "sessions": f"{summary['sessions']:,}", "clients": f"{summary['clients']:,}", "first": summary["first"],
        "last": summary["last"], **models, **_available(summary),
    }  # fmt: skip
    screen.table(pairs_table("Log", pairs))
    examples = [str(one) for one in log.rejected[:10]]
    for sentence in examples[1:]:  # the first was told when the log was read
        screen.note(f"rejected: {sentence}")
    screen.json({**summary, "examples": examples})


def _available(summary: dict[str, Any]) -> dict[str, str]:
    """How many features a log has what they are made of, what the others lack, and what a profile would add."""
    from probewatch.data.columns import FEATURES, theme_of

    fields = set(summary["fields"])
    needs = {"confidence": "confidence", "scale": "confidence", "class": "predicted_class", "inputs": "inputs"}
    groups = {"profile": "model", "members": "training records"}  # what a log alone never tells
    own = [name for name, feature in FEATURES.items() if feature.group not in groups]
    made = [name for name in own if needs.get(FEATURES[name].group, "") in {"", *fields} or name in summary["given"]]
    without = sorted({field for field in needs.values() if field not in fields})
    lacks = [f"no {field}" for field in without]
    if "digest" in fields and "inputs" in without:
        made += [name for name in own if theme_of(name) == "repeats"]
        lacks[without.index("inputs")] = "hashes for inputs, which tell repeats alone"
    told = f"{len(made)} of {len(own)}" + (f"; the log has {', '.join(lacks)}" if lacks else "")
    more = dict.fromkeys(groups, 0)
    for name in FEATURES.keys() - set(own):
        more[FEATURES[name].group] += ("confidence" if theme_of(name) == "likelihood" else "inputs") in fields
    parts = [f"{count} of the {groups[group]}" for group, count in more.items() if count]
    return {"features": told, "more with a profile": " and ".join(parts) or "none: it needs confidences or inputs"}


def _readers(manifest: Mapping[str, Any]) -> str:
    """What reads the features, in words."""
    config, one = manifest["config"], manifest["network"]
    trees = ", and boosted trees of every query's features" if config["trees"] and not config["bidirectional"] else ""
    return (f"{config['folds']} networks, each {one}" if config["folds"] > 1 else one) + trees


def _manifest_pairs(manifest: Any) -> dict[str, object]:
    data, metrics, config = manifest["data"], manifest["metrics"], manifest["config"]
    return {
        "features": f"{len(manifest['features'])}: {listed(manifest['features'])}",
        "threshold": f"{manifest['threshold']:.4f} on the {manifest['decision']} score",
        "streams": "yes" if manifest["streams"] else "no: it reads a session from both ends, so it needs it whole",
        "made of": _readers(manifest),
        "trained on": f"{counted(data['train'], 'session')}, validated on {data['valid']}, tested on {data['test']}"
        f" (split: {config['split']}); {data['attack_share']:.0%} attacks",
        "models": listed(name or "(none)" for name in data["models"]),
        "test": ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float)),
        "made with": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
    }
