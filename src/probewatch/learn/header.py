"""The top of a report's page: what was tested on what, and what should be known before the figures are read."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from probewatch.data.wording import SHOWN, counted
from probewatch.learn.markup import percent, safe


def header(metrics: Mapping[str, Any], title: str) -> str:
    """The title, what was tested on what and how it came out, and the notes."""
    n, attacks, benign = metrics["n"], metrics["n_attacks"], metrics["n_benign"]
    notes = "".join(f'<p class="note">{html.escape(str(note))}</p>' for note in metrics.get("notes") or ())
    (_, false), (_, caught) = metrics["confusion_matrix"]
    sentences = []
    if attacks:
        sentences.append(f"Of <b>{counted(attacks, 'attack session')}</b> the detector alerted on <b>{caught:,}</b>.")
    if benign:
        sentences.append(f"Of <b>{counted(benign, 'benign session')}</b> it alerted on <b>{false:,}</b> by mistake.")
    clients = metrics.get("n_clients")
    scope = f"Tested on {counted(n, 'session')}" + (f" of {counted(clients, 'client')}" if clients is not None else "")
    scope += f", {percent(metrics['prevalence'])} of them attacks." if n else "."
    return (
        f'<header><p class="brand">Probewatch · evaluation</p><h1>{safe(title)}</h1>'
        f'<p class="lead">{scope} {" ".join(sentences)}</p>{_source(metrics)}{_profiles(metrics)}{notes}</header>'
    )


def _source(metrics: Mapping[str, Any]) -> str:
    source = metrics.get("source")
    if not source:
        return ""
    logs = ", ".join(f"<b>{safe(name)}</b>" for name in source["logs"])
    return f'<p class="aside">Detector: <b>{safe(source["detector"])}</b>. Queries: {logs}.</p>'


def _profiles(metrics: Mapping[str, Any]) -> str:
    """How many of the models had a profile; a note where some had none, or an estimated one."""
    told = metrics.get("profiles")
    if not told:
        return ""
    models, without, n = told["models"], told["models_without"], told["sessions"]
    sentence = (
        f"{models - len(without):,} of {counted(models, 'model')} had a profile, and so had"
        f" {n - told['sessions_without']:,} of {counted(n, 'session')}."
    )
    if without:
        names = ", ".join(safe(name or "(none)") for name in without[:SHOWN])
        more = f" and {len(without) - SHOWN:,} more" if len(without) > SHOWN else ""
        others = f"{counted(told['sessions_without'], 'session')} {'was' if told['sessions_without'] == 1 else 'were'}"
        sentence += (
            f" The other {others} judged by the features that need none ({names}{more}): with a profile the figures"
            " would be others."
        )
    if told["sessions_estimated"]:
        sentence += (
            f" {counted(told['sessions_estimated'], 'session')} had one that was estimated from a log, which tells"
            " nothing of training records."
        )
    return f'<p class="{"note" if without or told["sessions_estimated"] else "aside"}">{sentence}</p>'
