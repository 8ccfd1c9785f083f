"""What an attacker gains by padding, by patience and by waiting, and what long benign sessions cost.

    python bench/evasion.py --bundle demo/bundle [--targets DIR] [--log FILE --labels FILE] [--write docs/streaming.md]

Takes the attack sessions that the bundle held out of its training, changes them as an attacker would who knows how a
stream works, and scores them event by event. Without a log, the packaged sample. ``--write`` replaces the figures in
the document. Long benign sessions are 100,000 events of a health check (one query, again and again), of a batch job
(different records at a steady pace) and of people (sessions of one benign use end to end).
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probewatch.bundle import Bundle, read_bundle
from probewatch.data.events import Events
from probewatch.data.labels import read_labels
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_targets
from probewatch.data.profile import Profiles
from probewatch.data.records import Sessions
from probewatch.score.incidents import Activity, Severity
from probewatch.score.limits import Limits
from probewatch.score.stream import StreamScorer

GAP_S = 1800.0
PADDING = (50, 200, 1000)  # harmless queries first
SPREAD_H = (1, 6, 24)  # hours that the attack is spread over
PIECES = (5, 10, 20)  # queries between two waits
LONG = 100_000  # events of a benign session
START_S = 1.7e9
BEGIN, END = "<!-- figures of bench/evasion.py -->", "<!-- end of figures -->"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of some attacks: alerts after the attack began, and those of high severity."""

    attacks: int
    alerts: int
    severe: int
    recorded: int  # clients without an alert, of which a record was kept


def events_of(sessions: Sessions, s: int) -> Events:
    """The queries of one session."""
    own = slice(sessions.offsets[s], sessions.offsets[s + 1])
    ends = sessions.input_offsets[own.start : own.stop + 1]
    count = own.stop - own.start
    return dataclasses.replace(
        Events.of(
            [str(sessions.client[s])] * count, sessions.time_s[own], model=str(sessions.model[s]),
            session=[str(sessions.session[s])] * count, confidence=sessions.confidence[own],
            predicted_class=sessions.predicted_class[own],
        ),
        inputs=sessions.inputs[ends[0] : ends[-1]], input_offsets=ends - ends[0],
    )  # fmt: skip


def renamed(events: Events, client: str, session: str, time_s: NDArray[np.float64]) -> Events:
    """The same queries by another client, in another session, at other times."""
    named = Events.of([client] * len(events), time_s, session=[session] * len(events))
    return dataclasses.replace(events, client=named.client, session=named.session, time_s=named.time_s)


def paces(events: Events) -> NDArray[np.float64]:
    """Seconds since the first query."""
    return np.asarray(events.time_s - events.time_s[0])


def padded(attack: Events, harmless: Events, count: int) -> Events:
    """``count`` harmless queries, then the attack, at the pace of each."""
    times = harmless.time_s - harmless.time_s[0]
    rounds = -(-count // len(harmless))
    gap_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    first = Events.concat([harmless] * rounds).slice(0, count)
    first_s = START_S + np.concatenate([times + at * (times[-1] + gap_s) for at in range(rounds)])[:count]
    return Events.concat(
        [renamed(first, "eve", "task", first_s), renamed(attack, "eve", "task", first_s[-1] + gap_s + paces(attack))]
    )


def spread(attack: Events, hours: float) -> Events:
    """The attack at an even pace over so many hours."""
    return renamed(attack, "eve", "task", START_S + np.linspace(0.0, 3600.0 * hours, len(attack)))


def waiting(attack: Events, piece: int) -> Events:
    """The attack in pieces without a task's name, with waits longer than a session's gap between them."""
    waits = (GAP_S + 60.0) * (np.arange(len(attack)) // piece)
    return renamed(attack, "eve", "", START_S + paces(attack) + waits)


def outcome(bundle: Bundle, attacks: list[Events], begins: int = 0, *, profiles: Profiles | None = None) -> Outcome:
    """Score each alone; alerts before event ``begins`` do not count."""
    alerts = severe = recorded = 0
    for events in attacks:
        watch = StreamScorer(
            bundle, limits=Limits(gap_s=GAP_S, idle_s=GAP_S, quiet_s=GAP_S, threads=1), profiles=profiles
        )
        before, after = watch.push(events.slice(0, begins)), watch.push(events.slice(begins, len(events)))
        news = [one for one in after.news if one.activity in (Activity.CREATE, Activity.UPDATE)]
        found = bool((after.score >= watch.threshold).any())
        alerts += found
        severe += any(one.incident.severity > Severity.MEDIUM for one in (*before.news, *news)) and found
        recorded += not found and watch.remembered > 0
    return Outcome(len(attacks), alerts, severe, recorded)


def long_sessions(sessions: Sessions, benign: NDArray[np.int64]) -> dict[str, Events]:
    """Benign sessions of LONG events on the model that most benign sessions are of."""
    models, counts = np.unique(sessions.model[benign].astype(str), return_counts=True)
    model = models[counts.argmax()]
    own = [events_of(sessions, s) for s in benign if sessions.model[s] == model]
    pool = Events.concat(own)
    random = np.random.default_rng(0)
    one = pool.take(np.full(LONG, int(random.integers(len(pool)))))
    any_order = pool.take(random.integers(0, len(pool), LONG))
    longest = max(own, key=len)
    rounds = -(-LONG // len(longest))
    again = Events.concat([longest] * rounds).slice(0, LONG)
    times = np.concatenate([paces(longest) + at * (paces(longest)[-1] + 5.0) for at in range(rounds)])[:LONG]
    return {
        "health check, one query every 10 s": renamed(one, "health", "task", START_S + 10.0 * np.arange(LONG)),
        "batch job, records in any order, one a second": renamed(
            any_order, "job", "task", START_S + np.arange(LONG) * 1.0
        ),
        "one benign session again and again": renamed(again, "people", "task", START_S + times),
    }


def long_outcome(bundle: Bundle, events: Events, profiles: Profiles | None = None) -> tuple[float, int, float]:
    """Peak, incidents and alerts per client-day of a long session."""
    watch = StreamScorer(bundle, limits=Limits(idle_s=1e9, threads=1), profiles=profiles)
    peak = float(watch.push(events).peak[-1])
    counts = watch.counts()
    return peak, int(counts["incidents"]), counts["alerts_per_client_day"]


def figures(bundle: Bundle, sessions: Sessions, label: NDArray[np.int8], profiles: Profiles | None = None) -> str:
    """The tables, as Markdown."""
    tried = partial(outcome, bundle, profiles=profiles)
    test = bundle.holds_out(sessions)
    chosen = np.flatnonzero(test & (label == 1) & (sessions.lengths >= 10))
    benign = np.flatnonzero(test & (label == 0))
    attacks = [events_of(sessions, s) for s in chosen]
    harmless = [longest_of(sessions, benign, str(sessions.model[s])) for s in chosen]
    rows: list[tuple[str, Outcome]] = [("as it is", tried(attacks))]
    for count in PADDING:
        mixed = [padded(attack, other, count) for attack, other in zip(attacks, harmless, strict=True)]
        rows.append((f"{count:,} harmless queries first", tried(mixed, count)))
    rows += [(f"spread over {hours} h", tried([spread(one, hours) for one in attacks])) for hours in SPREAD_H]
    rows += [
        (f"waits out the gap after every {piece} queries", tried([waiting(one, piece) for one in attacks]))
        for piece in PIECES
    ]
    lines = [
        f"{len(attacks)} attack sessions of 10 queries or more that training never saw;"
        f" threshold {bundle.threshold:.3f}.",
        "",
        "| the attacker | alerts | of them high or critical | silent, but on record |",
        "|---|---:|---:|---:|",
    ]
    for what, found in rows:
        share = f"{found.alerts} of {found.attacks} ({found.alerts / found.attacks:.0%})"
        lines.append(f"| {what} | {share} | {found.severe} | {found.recorded} |")
    each = [tried([events_of(sessions, s)]).alerts for s in benign]
    lines += [
        "",
        f"Benign sessions of the same test: {sum(each)} of {len(each)} alert ({np.mean(each):.1%} session FPR)."
        " Long ones:",
        "",
        f"| {LONG:,} benign events | peak score | incidents | alerts per client-day |",
        "|---|---:|---:|---:|",
    ]
    for what, events in long_sessions(sessions, benign).items():
        peak, incidents, rate = long_outcome(bundle, events, profiles)
        lines.append(f"| {what} | {peak:.3f} | {incidents} | {rate:.3f} |")
    return "\n".join(lines)


def longest_of(sessions: Sessions, benign: NDArray[np.int64], model: str) -> Events:
    """The longest benign session on a model."""
    own = [s for s in benign if sessions.model[s] == model]
    return events_of(sessions, own[int(np.argmax(sessions.lengths[own]))])


def write(path: Path, text: str) -> None:
    """Put the figures between their marks."""
    before, rest = path.read_text("utf-8").split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", "utf-8")


def load(log: Path, labels: Path) -> tuple[Sessions, NDArray[np.int8]]:
    """Sessions and their labels."""
    with read_logs([log]) as opened:
        sessions = opened.all_sessions()
    return sessions, read_labels(labels).match(sessions.session, sessions.client).label


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--targets", type=Path, help="what the owner has of each model")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    with as_file(files("probewatch") / "sample") as sample:
        data = load(options.log or sample / "queries.jsonl.gz", options.labels or sample / "labels.csv")
    profiles = read_targets(options.targets)[0] if options.targets else None
    text = figures(bundle, *data, profiles)
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
