"""The verb that leaves families, uses or data sets out of training in turn: parse, call, print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probewatch.errors import ConfigError
from probewatch.serve.options import (
    AllowFiles,
    Gap,
    Json,
    KeyFile,
    LabelsFiles,
    Logs,
    Map,
    ProfilesDirs,
    Quiet,
    Rejects,
    TargetsDirs,
)
from probewatch.serve.profile import chosen_profiles
from probewatch.serve.reading import choose_config, label_sessions, open_log

if TYPE_CHECKING:
    from probewatch.learn.unseen import LeaveOut
    from probewatch.serve.screen import Screen

CHOICES: tuple[LeaveOut, ...] = ("family", "dataset", "none")
WITH_SPREAD = 120  # columns of a screen from which each figure has room for its lowest and highest


def benchmark(
    logs: Logs,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for leave_out.json and leave_out.html.")
    ] = None,
    labels: LabelsFiles = None,
    leave: Annotated[
        str,
        typer.Option(
            "--leave-out",
            metavar="family|dataset|none",
            help="Each attack family and benign use, each data set (the target up to its first '-'), or clients only.",
        ),
    ] = "family",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings for each.")] = 3,
    preset: Annotated[str, typer.Option(help="As for train.")] = "default",
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="Settings that replace the preset's.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes; as many as there are cores if not given.")
    ] = None,
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
    """Train without each attack family, benign use or data set in turn, and show how each detector does on it."""
    from probewatch.serve.screen import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    by = _choice(leave)
    chosen = choose_config(preset, config, {})
    from probewatch.learn.leave_out import leave_out
    from probewatch.learn.leave_out_page import check_folder, write_leave_out
    from probewatch.network import usable_cores

    if out is not None:
        check_folder(out)
    known = chosen_profiles(profiles, targets, key, screen)
    with open_log(logs, fields, gap, rejects, screen) as log:
        data = label_sessions(log, labels, allow, known, screen)
    with screen.progress("training") as bar:

        def told(done: int, total: int, word: str) -> None:
            bar(done, total, word)
            if done and not screen.err.is_terminal:
                screen.note(f"{done} of {total}: {word}")

        form = leave_out(data, chosen, by, seeds=seeds, workers=workers or usable_cores(), told=told)
    if out is not None:
        write_leave_out(out, form)
    _show(screen, form, out)


def _choice(leave: str) -> LeaveOut:
    for one in CHOICES:
        if one == leave:
            return one
    raise ConfigError(f"--leave-out is {leave!r}, expected one of: {', '.join(CHOICES)}.")


def _show(screen: Screen, form: Mapping[str, Any], out: Path | None) -> None:
    from probewatch.learn.leave_out_page import PAGE_FILE, remarks, verdict

    for one in form["skipped"]:
        screen.note(f"{one['name'] or 'nothing'} could not be left out: {one['why']}")
    for remark in remarks(form):
        screen.note(remark)
    for table in form["tables"]:
        _show_table(screen, table, form["seeds"])
        screen.line(verdict(form, table) + "\n")
    if out is not None:
        screen.line(f"Table: {out / PAGE_FILE}")
    screen.json({**form, "out": str(out) if out else None})


def _show_table(screen: Screen, table: Mapping[str, Any], seeds: int) -> None:
    from rich.table import Table

    from probewatch.data.wording import counted
    from probewatch.learn.contest import RIVAL_NAMES
    from probewatch.serve.show import figure, name_of

    wide = screen.out.width >= WITH_SPREAD
    ranged = wide and seeds > 1
    spread = " (lowest to highest)" if ranged else ""
    shown = Table(title=f"{table['words']}: mean{spread} of {counted(seeds, 'seed')}", title_justify="left")
    shown.add_column("left out", overflow="fold")
    beside = ("at FPR", "sessions") if wide else ("at FPR",)
    for head in (*beside, *(RIVAL_NAMES.get(name, name) for name in table["mean"])):
        shown.add_column(head, justify="right", overflow="fold")

    def cells(detectors: Mapping[str, Any]) -> list[str]:
        return [
            f"{one['mean']:.3f}\n{one['low']:.3f}–{one['high']:.3f}"
            if ranged and one["mean"] is not None
            else figure(one["mean"])
            for one in detectors.values()
        ]

    rows = table["rows"]
    for number, row in enumerate(rows, 1):
        numbers = (figure(row["max_fpr"]), f"{row['sessions']:,}")[: len(beside)]
        name = name_of(row["name"] or "(nothing)")
        shown.add_row(name, *numbers, *cells(row["detectors"]), end_section=number == len(rows))
    if len(rows) > 1:
        blank = [""] * len(beside)
        shown.add_row("mean", *blank, *cells(table["mean"]), style="bold")
        shown.add_row("worst", *blank, *(figure(one["mean"]) for one in table["worst"].values()))
    screen.table(shown)
