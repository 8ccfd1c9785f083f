"""Where a verb prints: JSON or tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from probewatch.data.cells import printable
from probewatch.errors import OutputError

WIDTH = 160  # columns of a table that goes to no terminal, unless COLUMNS says otherwise


_TRAILING_BLANKS = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)


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
            self.warn(text)

    def warn(self, text: str) -> None:
        """A sentence on stderr that even ``--quiet`` must not hide."""
        self.err.print(escape(printable(text)), soft_wrap=True)

    def json(self, form: Mapping[str, Any]) -> None:
        """The one JSON object of a run with ``--json``."""
        if self.as_json:
            with _sound_stdout():
                print(json.dumps(form, ensure_ascii=True), flush=True)

    def table(self, table: Table) -> None:
        """A table on stdout."""
        if not self.as_json and not self.quiet:
            with _sound_stdout():
                with self.out.capture() as captured:
                    self.out.print(table)
                print(_TRAILING_BLANKS.sub(r"\1", captured.get()), end="", flush=True)

    def line(self, text: str) -> None:
        """A line on stdout."""
        if not self.as_json and not self.quiet:
            with _sound_stdout():
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


@contextmanager
def _sound_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        with suppress(OSError):  # or Python tries once more when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"standard output: cannot be written ({error.strerror}); free disk.") from error
