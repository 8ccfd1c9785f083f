"""What a person sees on a terminal: progress on stderr, tables on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from probewatch.data.cells import printable

ROWS = 25  # sessions shown on a terminal
WIDE = 110  # columns of a screen on which a table has room for reasons
WIDTH = 160  # columns of a table that goes to no terminal, unless COLUMNS says otherwise


class Screen:
    """Where a verb prints: JSON or tables on stdout, progress and notes on stderr."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        if not self.out.is_terminal and "COLUMNS" not in os.environ:
            self.out = Console(highlight=False, width=WIDTH)

    def note(self, text: str) -> None:
        """A sentence on stderr."""
        if not self.quiet:
            self.err.print(escape(printable(text)), soft_wrap=True)

    def json(self, form: Mapping[str, Any]) -> None:
        """The one JSON object of a run with ``--json``."""
        if self.as_json:
            print(json.dumps(form, ensure_ascii=True))

    def table(self, table: Table) -> None:
        """A table on stdout."""
        if not self.as_json and not self.quiet:
            self.out.print(table)

    def line(self, text: str) -> None:
        """A line on stdout."""
        if not self.as_json and not self.quiet:
            self.out.print(text, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[float, float, str], None]]:
        """A bar on stderr; call it with what is done, what there is, and a word."""
        if self.quiet or not self.err.is_terminal:
            yield lambda done, total, word: None
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[word]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(title, total=None, word="")
            yield lambda done, total, word: bar.update(task, completed=done, total=total or None, word=word)


def name_of(text: object) -> str:
    """A name from a log, safe to print."""
    return escape(printable(str(text)))


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
    table = Table(title=f"Test: {metrics['n']} sessions of {metrics['n_clients']} clients", title_justify="left")
    table.add_column("detector")
    shown = {
        "ROC AUC": "roc_auc", "average precision": "average_precision", "TPR at 1 % FPR": "tpr_at_fpr_0.01",
        "TPR at threshold": "tpr_at_threshold", "FPR at threshold": "fpr_at_threshold",
    }  # fmt: skip
    for head in shown:
        table.add_column(head, justify="right")
    rows = {"LSTM": metrics, **(metrics.get("rivals") or {})}
    for name, row in rows.items():
        table.add_row(name, *(figure(row[key]) for key in shown.values()), style="bold" if name == "LSTM" else None)
    return table


def figure(value: Any) -> str:
    """A share to three places; a dash where it could not be measured."""
    return "–" if value is None else f"{value:.3f}"


def verdict_table(rows: list[dict[str, Any]], total: int, alerts: int, threshold: float, width: int) -> Table:
    """The sessions with the highest scores, a line each, with what moved the score most if the screen is wide."""
    title = f"{alerts:,} of {total:,} sessions alert at a score of {threshold:.3f}"
    more = f"the {len(rows)} highest scores; --out FILE writes all, with every reason"
    table = Table(title=title, caption=more, title_justify="left", caption_justify="left")
    wide = width >= WIDE
    room = (width - 34 - (31 if wide else 0)) // 3  # what numbers, reasons and rules leave to each name
    for head in ("session", "client", "model"):
        table.add_column(head, no_wrap=True, overflow="ellipsis", max_width=max(room, 6))
    for head in ("events", "score", "alert at"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("mostly for", no_wrap=True, overflow="ellipsis", max_width=28)
    for row in rows:
        style = "red" if row["alert"] else ("dim" if row["allowed"] else None)
        table.add_row(
            name_of(row["session"]), name_of(row["client"]), name_of(row["model"]), f"{row['events']:,}",
            f"{row['score']:.3f}", str(row["first_alert"] or "–"),
            *([name_of("allow-listed" if row["allowed"] else row["why"].split(" (")[0])] if wide else []), style=style,
        )  # fmt: skip
    return table
