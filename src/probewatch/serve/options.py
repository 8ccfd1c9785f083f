"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Logs = Annotated[
    list[str],
    typer.Argument(
        metavar="LOG",
        help="Query logs or patterns: JSON lines, CSV, Parquet or the article's JSON; plain or .gz; - for stdin.",
    ),
]
DetectorAndLogs = Annotated[
    list[str],
    typer.Argument(
        metavar="[BUNDLE] LOG…",
        help="A trained detector (a folder; without one, the detector that comes with Probewatch), then query logs or"
        " patterns: JSON lines, CSV, Parquet or the article's JSON; plain or .gz; - for stdin.",
    ),
]
Map = Annotated[
    Path | None, typer.Option("--map", metavar="TOML", help="Where the log keeps client, session, time, model, …")
]
Gap = Annotated[
    float,
    typer.Option(
        "--gap", metavar="SECONDS", min=0.0, help="A longer pause starts a new session, where the log names none."
    ),
]
Rejects = Annotated[
    Path | None, typer.Option("--rejects", metavar="FILE", help="Write every rejected line's place and reason here.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors, broken-off logs and --json.")]
LabelsFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--labels",
        metavar="CSV",
        help="task_id or client, is_malicious; optionally attack, actor, family, target. Repeatable.",
    ),
]
ProfilesDirs = Annotated[
    list[Path] | None,
    typer.Option("--profiles", metavar="DIR", help="Profiles of the attacked models (probewatch profile). Repeatable."),
]
TargetsDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--targets",
        metavar="DIR",
        help="Make profiles first, of DIR/MODEL/train.* and holdout.*, and keep none. Repeatable.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Key of the profiles, if not DIR/profiles.key."),
]
Prior = Annotated[
    float | None,
    typer.Option("--prior", metavar="SHARE", help="Share of attacks, above 0 and below 1, to give probabilities for."),
]
AllowFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow",
        metavar="FILE",
        help="Clients known to rescore training customers, one a line. Repeatable.",
    ),
]
