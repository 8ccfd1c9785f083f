"""The detector against its rivals, and against itself on poorer logs, as tables and in plain words."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from probewatch.learn.markup import number, percent, safe
from probewatch.learn.views import WHOLE, describe_view

OURS = "Probewatch"
FINISHED = "finished"
RIVAL_NAMES = {
    FINISHED: f"{OURS}, finished sessions",
    "boosting": "Gradient boosting",
    "logistic": "Logistic regression",
    "count_per_hour": "Count per hour",
    "prada": "PRADA",
    "near_duplicates": "Near-duplicates",
}
RIVAL_NOTES = {
    FINISHED: "by its last score",
    "boosting": "on aggregates of the same features",
    "logistic": "on means of the same features",
    "count_per_hour": "Elastic's shipped rule",
    "prada": "normality of distances",
    "near_duplicates": "as in Blacklight",
}
COLUMNS = (
    ("roc_auc", "ROC AUC", False),
    ("average_precision", "Average precision", False),
    ("tpr_at_fpr_0.01", "TPR at 1 % FPR", True),
    ("tpr_at_fpr_0.001", "TPR at 0.1 % FPR", True),
    ("tpr_at_threshold", "TPR at its threshold", True),
    ("fpr_at_threshold", "FPR at its threshold", True),
    ("f1", "F1", False),
)
"""Key, heading, and whether it is shown as a percentage."""
VIEW_FIGURES = ("roc_auc", "tpr_at_fpr_0.01", "tpr_at_threshold", "fpr_at_threshold")
CONTESTS = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "tpr_at_fpr_0.01": "TPR at 1 % FPR",
}
"""Figures that do not depend on anyone's threshold, by which a rival wins or loses."""


def rivals_section(metrics: Mapping[str, Any]) -> str:
    """The table of ``metrics`` beside those of its ``rivals``; nothing where there are none."""
    rivals: Mapping[str, Mapping[str, Any]] = metrics.get("rivals") or {}
    if not rivals:
        return ""
    finished = {FINISHED: metrics[FINISHED]} if metrics.get(FINISHED) else {}
    everyone = {OURS: metrics, **finished, **rivals}
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in everyone.values())]
    head = "".join(f'<th class="num">{html.escape(heading)}</th>' for _, heading, _ in columns)
    rows = []
    for name in everyone:
        note = f'<span class="small">{html.escape(RIVAL_NOTES.get(name, ""))}</span>'
        cells = "".join(_cell(everyone, name, key, share) for key, _, share in columns)
        mark = ' class="ours"' if name == OURS else ""
        rows.append(f"<tr{mark}><th>{safe(RIVAL_NAMES.get(name, name))} {note}</th>{cells}</tr>")
    sentence = _wins(metrics, rivals)
    return (
        "<section><h2>Probewatch against what could be used instead</h2>"
        f"<p>{sentence} All were tested on the same sessions, each with a threshold of its own. "
        'The best of each column is <span class="best">marked</span>.</p>'
        f'<div class="scroll"><table><thead><tr><th>Detector</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def views_section(metrics: Mapping[str, Any]) -> str:
    """The table of what the same sessions show where a log or its reader knows less; nothing where that is all."""
    views: Mapping[str, Mapping[str, Any]] = metrics.get("views") or {}
    if len(views) < 2:
        return ""
    columns = [column for column in COLUMNS if column[0] in VIEW_FIGURES]
    headings = (heading.replace("its threshold", "the threshold") for _, heading, _ in columns)
    head = "".join(f'<th class="num">{html.escape(heading)}</th>' for heading in headings)
    rows = []
    for name, row in views.items():
        cells = "".join(
            f'<td class="num">{percent(row.get(key)) if share else number(row.get(key))}</td>'
            for key, _, share in columns
        )
        mark = ' class="ours"' if name == WHOLE else ""
        rows.append(f"<tr{mark}><th>{html.escape(describe_view(name))}</th>{cells}</tr>")
    return (
        "<section><h2>One detector, poorer logs</h2>"
        "<p>The same test sessions as a poorer log, or a reader who knows less, would show them to the same detector at"
        " the same threshold. How many of the attacks it still finds is what the missing part is worth.</p>"
        f'<div class="scroll"><table><thead><tr><th>What there is</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(everyone: Mapping[str, Mapping[str, Any]], name: str, key: str, share: bool) -> str:
    value = everyone[name].get(key)
    rows = [row for row in everyone.values() if row.get(key) is not None]
    if key == "fpr_at_threshold":  # the lowest is best, of those that catch anything: whoever never alerts would win
        rows = [row for row in rows if row.get("tpr_at_threshold")]
        best = everyone[name] in rows and value == min(row[key] for row in rows)
    else:
        best = value is not None and value == max(row[key] for row in rows)
    return f'<td class="num{" best" if best else ""}">{percent(value) if share else number(value)}</td>'


def _wins(metrics: Mapping[str, Any], rivals: Mapping[str, Mapping[str, Any]]) -> str:
    contests = {key: words for key, words in CONTESTS.items() if metrics.get(key) is not None}
    sentences = []
    for name, rival in rivals.items():
        won = []
        for key, words in contests.items():
            if rival.get(key) is not None and rival[key] > metrics[key]:
                form = percent if key.startswith("tpr") else number
                theirs, ours = form(rival[key]), form(metrics[key])
                if theirs == ours:
                    theirs, ours = f"{rival[key]:.5f}", f"{metrics[key]:.5f}"
                won.append(f"{words} {theirs} against {ours}")
        if won:
            shown = safe(RIVAL_NAMES.get(name, name))
            sentences.append(f"<b>{shown} does better than Probewatch</b>: {', '.join(won)}.")
    if sentences and (finished := metrics.get(FINISHED)) and finished["roc_auc"] is not None:
        sentences.append(
            "Probewatch must alert while a session runs, so its highest score so far counts; the learned rivals judge"
            f" finished sessions, which its last score ranks by ROC AUC {number(finished['roc_auc'])}."
        )
    if contests and not sentences:
        *most, last = contests.values()
        measured = f"{', '.join(most)} or {last}" if most else last
        sentences.append(f"No rival does better than Probewatch on {measured}.")
    return " ".join(sentences)
