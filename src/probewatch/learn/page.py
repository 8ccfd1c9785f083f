"""The page of a report: figures in, one self-contained HTML text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.wording import counted
from probewatch.learn import plots
from probewatch.learn.contest import OURS, RIVAL_NAMES, rivals_section, views_section
from probewatch.learn.header import header
from probewatch.learn.markup import breakable, document, figure, number, percent

MOST_FAMILIES = 40


@dataclass(frozen=True)
class Scored:
    """The test sessions that count in the headline figures.

    Attributes:
        scores: name to (S,) scores, ours first.
        first_alert: (S,) event number from 1, 0 = never; None where it was not recorded.
    """

    label: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    first_alert: NDArray[np.int64] | None


def render(
    metrics: Mapping[str, Any],
    scored: Scored,
    history: Sequence[Mapping[str, Any]] | None,
    title: str,
) -> str:
    """The whole page; what is missing in the figures is left out of it.

    Args:
        metrics: what :func:`probewatch.learn.evaluate.evaluate` returns, optionally with ``rivals`` and ``views``
            (name to the same), ``notes`` (sentences to show on top), ``max_fpr`` (the threshold's budget), ``source``
            (``detector`` and ``logs``, by name) and ``profiles`` (see :func:`probewatch.learn.trial.tell_profiles`).
        scored: what the curves are drawn from.
        history: the losses of each epoch, or None.
        title: plain text.
    """
    body = [
        header(metrics, title),
        _cards(metrics),
        rivals_section(metrics),
        views_section(metrics),
        _threshold(metrics),
        _families(metrics),
        _curves(metrics, scored, history),
        GUIDE,
    ]
    return document(title, "\n".join(part for part in body if part))


def _cards(metrics: Mapping[str, Any]) -> str:
    few = f"needs 300 benign sessions, here {'is' if metrics['n_benign'] == 1 else 'are'} {metrics['n_benign']:,}"
    measured = metrics["tpr_at_fpr_0.01"] is not None
    budget = metrics.get("max_fpr")
    goal = "" if budget is None else f", set for at most {100 * budget:.3g}\N{NO-BREAK SPACE}%"
    cards = [
        _card(
            "ROC AUC",
            number(metrics["roc_auc"]),
            _interval(metrics, "roc_auc"),
            "1 is perfect, 0.5 is chance",
        ),
        _card(
            "TPR at 1 % FPR",
            percent(metrics["tpr_at_fpr_0.01"]),
            _interval(metrics, "tpr_at_fpr_0.01") if measured else few,
            "attacks caught at one false alarm in 100 benign sessions",
        ),
        _card(
            "TPR at the threshold",
            percent(metrics["tpr_at_threshold"]),
            _interval(metrics, "tpr_at_threshold"),
            f"attacks caught at {metrics['threshold']:.4g}",
        ),
        _card(
            "FPR at the threshold",
            percent(metrics["fpr_at_threshold"]),
            _interval(metrics, "fpr_at_threshold"),
            f"benign sessions alerted{goal}",
        ),
        _delay_card(metrics),
    ]
    return f'<section class="cards">{"".join(cards)}</section>{_precision_sentence(metrics)}'


def _delay_card(metrics: Mapping[str, Any]) -> str:
    delay = metrics.get("delay")
    if delay is None or not metrics["n_attacks"]:
        return ""
    median, p90 = delay["median"], delay["p90"]
    if p90 is not None:
        most = f"9 in 10 attacks alert within {counted(p90, 'event')}"
    else:
        most = "more than 1 in 10 attacks never alert"
    return _card(
        "Events until alert",
        "never" if median is None else f"{median:,}",
        most if median is not None else "half of the attacks or more never alert",
        "median over all attacks, those that never alert counted as the latest",
    )


def _card(name: str, figure: str, interval: str, note: str) -> str:
    return (
        f'<div class="card"><h3>{name}</h3><p class="figure">{figure}</p>'
        f'<p class="interval">{interval or "&nbsp;"}</p><p class="small">{note}</p></div>'
    )


def _interval(metrics: Mapping[str, Any], name: str) -> str:
    interval = (metrics.get("intervals") or {}).get(name)
    if not interval:
        return ""
    low, high = map(number if name == "roc_auc" else percent, interval)
    if metrics[name] == 0:
        return f"95 %: up to {high}"
    return f"95 %: {low} or more" if metrics[name] == 1 else f"95 %: {low} to {high}"


def _precision_sentence(metrics: Mapping[str, Any]) -> str:
    """Precision where attacks are rarer than in a test, which is everywhere."""
    tpr, fpr = metrics["tpr_at_threshold"], metrics["fpr_at_threshold"]
    if not tpr or not fpr or metrics["precision"] is None:
        return ""
    rare = 0.001
    real = tpr * rare / (tpr * rare + fpr * (1 - rare))
    return (
        f'<p class="aside">In this test {percent(metrics["precision"])} of the alerts were attacks. Real '
        f"logs hold fewer: were one session in 1,000 an attack, {percent(real)} of the alerts would be.</p>"
    )


def _threshold(metrics: Mapping[str, Any]) -> str:
    if not metrics["n"]:
        return ""
    names = (
        ("accuracy", "Accuracy"),
        ("balanced_accuracy", "Balanced accuracy"),
        ("loss", "Loss"),
        ("brier", "Brier"),
    )
    overall = "".join(f"<div><dt>{name}</dt><dd>{number(metrics.get(key))}</dd></div>" for key, name in names)
    picture = figure(plots.confusion_matrix(metrics["confusion_matrix"]), "Confusion matrix", "")
    return (
        f"<section><h2>At the threshold {metrics['threshold']:.4g}</h2>"
        f'<div class="pair">{picture}<div><h3>By class</h3>{_class_table(metrics["per_class"])}'
        f"<dl>{overall}</dl></div></div></section>"
    )


def _class_table(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f'<th class="num">{name}</th>' for name in ("Precision", "Recall", "F1", "Sessions"))
    rows = []
    for name, row in per_class.items():
        cells = [number(row["precision"]), number(row["recall"]), number(row["f1"]), f"{row['support']:,}"]
        rows.append(f"<tr><th>{name}</th>" + "".join(f'<td class="num">{cell}</td>' for cell in cells) + "</tr>")
    return f"<table><thead><tr><th>Class</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _families(metrics: Mapping[str, Any]) -> str:
    families: Mapping[str, Mapping[str, Any]] = metrics.get("families") or {}
    allowed = metrics.get("allowed") or {"n": 0, "rate": None}
    groups = []
    for malicious, heading in ((True, "TPR by attack family"), (False, "FPR by benign use")):
        chosen = {name: row for name, row in families.items() if bool(row["malicious"]) == malicious}
        worst_first = sorted(chosen.items(), key=lambda item: (item[1]["rate"] * (1 if malicious else -1), item[0]))
        if worst_first:
            groups.append(_family_table(heading, worst_first, "attack" if malicious else "benign"))
    listed = _family_table("Allow-listed clients", [("allow-listed", allowed)], "listed") if allowed["n"] else ""
    others = _other_attacks(metrics)
    if not groups and not listed and not others:
        return ""
    note = " Allow-listed clients are known to be benign and count in no other figure." if listed else ""
    note += " Attacks on something else than membership count in no other figure." if others else ""
    return (
        "<section><h2>Who is caught, who is disturbed</h2>"
        f"<p>Share of sessions alerted at the threshold, the worst first.{note}</p>"
        f'<div class="pair">{"".join(groups)}{listed}{others}</div></section>'
    )


def _other_attacks(metrics: Mapping[str, Any]) -> str:
    others: Mapping[str, Any] = metrics.get("other_attacks") or {"n": 0}
    if not others["n"]:
        return ""
    rows = sorted(others["families"].items()) or [("other attacks", others)]
    return _family_table("Alerts on other attacks", rows, "listed")


def _family_table(heading: str, rows: Sequence[tuple[str, Mapping[str, Any]]], kind: str) -> str:
    lines = []
    for name, row in rows[:MOST_FAMILIES]:
        bar = f'<div class="{kind}" style="width:{100 * row["rate"]:.1f}%"></div>' if row["rate"] else ""
        lines.append(
            f'<tr><th>{breakable(name)}</th><td class="bar">{bar}</td><td class="num">{percent(row["rate"])}</td>'
            f'<td class="num small">{round(row["rate"] * row["n"]):,} of {row["n"]:,}</td></tr>'
        )
    more = len(rows) - MOST_FAMILIES
    rest = f'<p class="small">and {more:,} more in metrics.json</p>' if more > 0 else ""
    return f'<div><h3>{heading}</h3><table class="bars"><tbody>{"".join(lines)}</tbody></table>{rest}</div>'


def _curves(metrics: Mapping[str, Any], scored: Scored, history: Sequence[Mapping[str, Any]] | None) -> str:
    figures = [*_score_figures(metrics, scored), *_loss_figures(history)]
    return f'<section><h2>The curves</h2><div class="pair">{"".join(figures)}</div></section>' if figures else ""


def _score_figures(metrics: Mapping[str, Any], scored: Scored) -> list[str]:
    label, threshold = scored.label, metrics["threshold"]
    scores = {RIVAL_NAMES.get(name, name): values for name, values in scored.scores.items()}
    figures = []
    if len(np.unique(label)) == 2:
        note = "What each rate of false alarms buys. The left end is what can be afforded, so it is drawn wide."
        figures.append(figure(plots.roc(label, scores, threshold), "ROC curve", note))
        note = "How many of the alerts are attacks, at this test's share of attacks."
        figures.append(figure(plots.precision_recall(label, scores, threshold), "Precision and recall", note))
    if len(label):
        note = "The further the two classes stand apart, the less the threshold costs."
        picture = plots.score_distributions(label, scored.scores[OURS], threshold)
        figures.append(figure(picture, "Scores by class", note))
    if metrics.get("calibration"):
        note = (
            "On the dotted line, a score is a probability; below it, scores are too high, above it, too low. Taken"
            f" where {percent(metrics['probability_share'])} of the sessions are attacks."
        )
        figures.append(figure(plots.calibration(**metrics["calibration"]), "Calibration", note))
    if scored.first_alert is not None and len(label):
        note = "How far into a session the first alert comes. A missed attack never counts as alerted."
        picture = plots.events_until_alert(label, scored.first_alert)
        figures.append(figure(picture, "Events until alert", note))
    return figures


def _loss_figures(history: Sequence[Mapping[str, Any]] | None) -> list[str]:
    rows = [_finite(row) for row in history or ()]
    if all(row["train_loss"] is None and row["valid_loss"] is None for row in rows):
        return []
    note = (
        "Training stops when the validation loss no longer falls; the best epoch's weights are kept. Of several"
        " networks the mean: one that has stopped stands at its best epoch."
    )
    return [figure(plots.loss_curves(rows), "Loss by epoch", note)]


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    losses = {name: row.get(name) for name in ("train_loss", "valid_loss")}
    return {
        "epoch": row["epoch"],
        **{name: loss if loss is not None and math.isfinite(loss) else None for name, loss in losses.items()},
    }


GUIDE = """<section class="guide"><h2>How to read this</h2>
<p><b>TPR</b> (true-positive rate, recall) is the share of attack sessions that alerted; <b>FPR</b>
(false-positive rate) the share of benign sessions that did. A session alerts when its score reaches the
threshold. <b>ROC AUC</b> is the chance that an attack scores above a benign session. <b>95 %</b> intervals
hold that share of the values found by drawing the test's clients again and again, with replacement. A rate
of 0 or 100 % hardly varies so: it has the exact interval of as many clients (Clopper and Pearson), and a ROC
AUC of 0 or 1 has Newcombe's. “–” means that these sessions cannot tell.</p>
<p>This detects <em>probing</em> for training data, not that any has leaked. Internal jobs that score known
customers look the same: put them on the allow-list.</p></section>"""
