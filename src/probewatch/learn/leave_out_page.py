"""The leave-one-out table as files: ``leave_out.json``, and ``leave_out.html`` to look at."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probewatch.data.artefacts import dump_json, replace_file
from probewatch.data.wording import counted
from probewatch.errors import OutputError
from probewatch.learn.contest import OURS, RIVAL_NAMES
from probewatch.learn.markup import NONE, document, number, percent, safe

JSON_FILE, PAGE_FILE = "leave_out.json", "leave_out.html"
CAUGHT = ("benign", "tpr_at_threshold")  # the table that tells what thresholds catch, beside what they cost


def write_leave_out(folder: Path, form: Mapping[str, Any]) -> None:
    """Write both files, the page last; the same form gives the same bytes.

    Args:
        folder: made if it is not there.
        form: what :func:`probewatch.learn.leave_out.leave_out` returns.

    Raises:
        OutputError: the folder cannot be written.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / JSON_FILE, dump_json(form))
        replace_file(folder / PAGE_FILE, render_leave_out(form).encode("utf-8", "backslashreplace"))


def check_folder(folder: Path) -> None:
    """Make the folder of the files, so that one that cannot be made is told before hours of training.

    Raises:
        OutputError: it cannot be made.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: the table cannot be written there ({error.strerror}); free disk, or name another folder."
        ) from error


def render_leave_out(form: Mapping[str, Any]) -> str:
    """The whole page."""
    title = "Probewatch: what training never saw"
    seeds = counted(form["seeds"], "seed")
    lead = (
        "Each row was left out of training, with all that its clients did; networks, scales, thresholds and rivals"
        f" come from the others. Mean of {seeds}{', with the lowest and highest' if form['seeds'] > 1 else ''}."
    )
    notes = "".join(
        f'<p class="note">{safe(one["name"] or "nothing")} could not be left out: {html.escape(one["why"])}</p>'
        for one in form["skipped"]
    )
    notes += "".join(f'<p class="note">{html.escape(remark)}</p>' for remark in remarks(form))
    header = (
        f'<header><p class="brand">Probewatch · leave one out</p><h1>{title}</h1><p class="lead">{lead}</p>'
        f"{notes}</header>"
    )
    return document(title, "\n".join([header, *(_section(form, table) for table in form["tables"])]))


def verdict(form: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """A sentence on which rivals do better than Probewatch, by the mean over all rows.

    Whoever never alerts has no false alarms, so of benign uses the attacks caught at the same thresholds are told too.
    """
    means = {name: one["mean"] for name, one in table["mean"].items()}
    sign = -1 if table["low_is_best"] else 1
    known = {name: sign * mean for name, mean in means.items() if mean is not None}
    if OURS not in known:
        return "These sessions cannot tell."
    better = [name for name, mean in known.items() if mean > known[OURS]]
    shown = [RIVAL_NAMES.get(name, name) for name in better]
    if table["low_is_best"]:
        caught = next(one["mean"] for one in form["tables"] if (one["kind"], one["measure"]) == CAUGHT)
        shown = [f"{one} (TPR {caught[name]['mean']:.3f})" for one, name in zip(shown, better, strict=True)]
        shown += [f"against Probewatch's TPR of {caught[OURS]['mean']:.3f}"] if shown else []
    if not better:
        return "No rival does better than Probewatch on average."
    return f"Better than Probewatch on average: {', '.join(shown)}."


def remarks(form: Mapping[str, Any]) -> list[str]:
    """Sentences on what should be known before the tables are read."""
    told = []
    rows = [row["max_fpr"] for table in form["tables"] for row in table["rows"]]
    if any(one is not None and one > form["max_fpr"] for one in rows):
        told.append(
            f"Where benign sessions are too few to speak of an FPR of {form['max_fpr']:.1%}, figures are at the lowest"
            " that they support: see the column 'at FPR'."
        )
    config = form["config"]
    if config["trees"] and (config["pretrained"] or config["pretrained_abroad"]):
        told.append(
            "What was left out is missing from the log, and not from the drawn data of the trees that come with the"
            " package: pretrained = 0 and pretrained_abroad = 0 in a --config shows the log alone."
        )
    return told


def _section(form: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    names = list(table["mean"])
    head = "".join(f'<th class="num">{safe(RIVAL_NAMES.get(name, name))}</th>' for name in names)
    rows = [
        _row(row["name"] or "nothing", f"{row['sessions']:,}", percent(row["max_fpr"]), row["detectors"], table)
        for row in table["rows"]
    ]
    if len(rows) > 1:
        rows += [_row("Mean", "", "", table["mean"], table, bold=True), _worst(table)]
    return (
        f"<section><h2>{html.escape(table['words'])}</h2><p>{html.escape(verdict(form, table))}</p>"
        f'<div class="scroll"><table><thead><tr><th>Left out</th><th class="num">Sessions</th>'
        f'<th class="num">At FPR</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _row(
    name: str, sessions: str, fpr: str, detectors: Mapping[str, Any], table: Mapping[str, Any], *, bold: bool = False
) -> str:
    known = [one["mean"] for one in detectors.values() if one["mean"] is not None]
    best = max(known) if known and not table["low_is_best"] else None  # whoever never alerts has the lowest FPR
    cells = "".join(_cell(one, best, table) for one in detectors.values())
    mark = ' class="ours"' if bold else ""
    return f'<tr{mark}><th>{safe(name)}</th><td class="num">{sessions}</td><td class="num">{fpr}</td>{cells}</tr>'


def _worst(table: Mapping[str, Any]) -> str:
    form = number if table["measure"] == "roc_auc" else percent
    cells = "".join(
        f'<td class="num">{form(one["mean"])}<br><span class="small">{safe(one["name"] or "")}</span></td>'
        for one in table["worst"].values()
    )
    return f"<tr><th>Worst</th><td></td><td></td>{cells}</tr>"


def _cell(one: Mapping[str, Any], best: float | None, table: Mapping[str, Any]) -> str:
    if one["mean"] is None:
        return f'<td class="num">{NONE}</td>'
    share = table["measure"] != "roc_auc"
    low, high = (f"{100 * one[end]:.1f}" if share else f"{one[end]:.3f}" for end in ("low", "high"))
    mark = " best" if one["mean"] == best else ""
    spread = f'<br><span class="small">{low}–{high}</span>' if len(one["seeds"]) > 1 else ""
    return f'<td class="num{mark}">{(percent if share else number)(one["mean"])}{spread}</td>'
