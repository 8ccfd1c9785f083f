"""The verb that scores a log while it is written: parse, call, print."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probewatch.data.wording import listed
from probewatch.errors import ConfigError, LogError, OutputError
from probewatch.serve.exits import name_of
from probewatch.serve.options import AllowFiles, Gap, Json, KeyFile, Map, ProfilesDirs, Quiet, TargetsDirs
from probewatch.serve.profile import chosen_profiles, tell_other_lengths
from probewatch.serve.steering import TICK_S, Consumed, Pace, Signals

if TYPE_CHECKING:
    from probewatch.data.events import Events
    from probewatch.data.live import LiveReader
    from probewatch.data.logs import Log
    from probewatch.data.rejects import Counts, Reject
    from probewatch.score.stream import StreamScorer
    from probewatch.serve.metrics import Metrics
    from probewatch.serve.screen import Screen
    from probewatch.serve.sinks import Sink

COMMIT_S = 1.0  # between commits, where not said
SHOWN_S = 1.0  # between renewals of the metrics
ALERT_S = 0.1  # between commits when there are alerts to deliver
SHOWN_REJECTS = 10
TOLD_MODELS = 4096

_GAP, _IDLE, _SESSIONS, _TOLERANCE, _QUIET = 1800.0, 86_400.0, 262_144, 2.0, 1800.0


def watch(
    logs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE|LOG",
            help="A detector of one direction, or none: the packaged one; and logs to replay in order of time, or"
            " none or -: JSON lines on stdin.",
        ),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep everything here, so that a killed watch goes on.")
    ] = None,
    alerts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append findings here; standard output has none of them, and notes tell each."
        ),
    ] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Post findings here too.")] = None,
    dead_letter: Annotated[
        Path, typer.Option("--dead-letter", metavar="FILE", help="What the webhook did not take.")
    ] = Path("dead-letter.jsonl"),
    metrics: Annotated[
        str | None, typer.Option(metavar="FILE|PORT", help="Prometheus metrics, in a file or on a port of this host.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(metavar="N", min=0.001, help="Replay so many times faster than it was.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="T", min=0.0, max=1.0, help="Alert at this score.")] = None,
    allow: AllowFiles = None,
    profiles: ProfilesDirs = None,
    targets: TargetsDirs = None,
    key: KeyFile = None,
    fields: Map = None,
    gap: Gap = _GAP,
    idle: Annotated[float, typer.Option(metavar="SECONDS", help="Forget sessions without a query for longer.")] = _IDLE,
    max_sessions: Annotated[
        int,
        typer.Option(
            "--max-sessions", metavar="N", help="Held at most, 4096 or more; then the least recently used goes."
        ),
    ] = _SESSIONS,
    tolerance: Annotated[
        float, typer.Option(metavar="SECONDS", help="Put events in order that are no further behind.")
    ] = _TOLERANCE,
    quiet_after: Annotated[
        float, typer.Option("--quiet-after", metavar="SECONDS", help="Resolve an incident that was quiet for longer.")
    ] = _QUIET,
    commit_every: Annotated[
        float, typer.Option("--commit-every", metavar="SECONDS", min=0.0, help="Time between writes of the state.")
    ] = COMMIT_S,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score queries while they come, and tell of each client that probes, once while it does."""
    from probewatch.data.labels import read_allow
    from probewatch.score.limits import Limits
    from probewatch.score.stream import StreamScorer
    from probewatch.serve.reading import choose_detector, open_log
    from probewatch.serve.screen import Screen
    from probewatch.serve.show import counts_line

    bundle, logs = choose_detector(logs or [], live=True)
    if logs == ["-"]:
        logs = []
    if speed is not None and not logs:
        raise ConfigError("--speed is for logs that are replayed, and none was given; give a LOG or leave it out.")
    if as_json and alerts is None:
        raise ConfigError("--json prints one object on stdout, where the findings go; give --alerts FILE too.")
    screen = Screen(as_json=as_json, quiet=quiet)
    limits = Limits(
        gap_s=gap, idle_s=idle, max_sessions=max_sessions, tolerance_s=0.0 if logs else tolerance, quiet_s=quiet_after
    )
    allowed = read_allow(*allow or ())
    known = chosen_profiles(profiles, targets, key, screen)
    scorer = StreamScorer.open(bundle, state=state, threshold=threshold, allow=allowed, limits=limits, profiles=known)
    if done := int(scorer.counts()["events"]):
        screen.note(f"{state}: goes on after {done:,} events of earlier runs.")
    run = _Watch(scorer, screen, metrics, commit_every)
    try:
        run.open_sinks(alerts, webhook, dead_letter)
        with Signals() as signals:
            if logs:
                with open_log(logs, fields, gap, None, screen) as log:
                    screen.note(counts_line(asdict(log.counts)))
                    run.replay(log, speed, signals)
            else:
                run.follow(fields, signals)
            run.finish()
    finally:
        run.close()
    run.summarise(signals.caught)
    if signals.caught:
        raise typer.Exit(128 + signals.caught)


class _Watch:
    """One run of the verb: its scorer, sinks and metrics."""

    def __init__(self, scorer: StreamScorer, screen: Screen, metrics: str | None, commit_s: float) -> None:
        from probewatch.data.profile import with_profiles
        from probewatch.serve.metrics import Metrics

        self._scorer, self._screen = scorer, screen
        self._scales = with_profiles(scorer.bundle.scales, scorer.profiles)
        self._sinks: list[Sink] = []
        self._reader: LiveReader | None = None
        self._metrics: Metrics | None = Metrics(metrics) if metrics else None
        self._commit_s = commit_s
        self._committed = self._shown = 0.0
        self._seconds, self._timed, self._rejects = 0.0, 0, 0
        self._counts: Counts | None = None
        self._live = self._metrics_work = self._metrics_failed = False
        self._models: set[str] = set()  # of which it was told whether they have a profile

    def open_sinks(self, alerts: Path | None, webhook: str | None, dead_letter: Path) -> None:
        """Open the sinks and give them what a killed run did not."""
        from probewatch.serve.sinks import AlertFile, Output, Webhook

        known = self._scorer.journal.sinks() if self._scorer.journal else {}
        if alerts is None:
            self._sinks.append(Output(known.get("stdout", (0, 0))[0]))
        else:
            upto, mark = known.get(f"file:{alerts.resolve()}", (0, None))
            self._sinks.append(AlertFile(alerts, upto, mark))
        if webhook:
            upto = known.get("webhook", (0, 0))[0]
            self._sinks.append(Webhook(webhook, dead_letter, upto, told=self._screen.note))
        self._deliver()

    def follow(self, fields: Path | None, signals: Signals) -> None:
        """Score what comes on standard input until it ends."""
        from probewatch.data.fields import FieldMap
        from probewatch.data.live import LiveReader, follow_lines

        if sys.stdin is None:
            raise LogError("standard input is closed, expected JSON lines; give a LOG to replay.")
        self._live = True
        widths = {model: len(scale.centre) for model, scale in self._scales.items()}
        mapped = FieldMap.load(fields) if fields else None
        self._reader = LiveReader(
            mapped, widths, self._tell_reject,
            source="stdin", needs=self._scorer.bundle.needs, longest=self._scorer.held.longest,
        )  # fmt: skip
        consumed = Consumed(self._scorer.position)
        idle_since = time.monotonic()
        for lines in follow_lines(sys.stdin.fileno(), TICK_S):
            if signals.caught:
                break  # the lines just read are not in the position: they come again
            left = consumed.skip(lines, self._reader)
            if left.count:
                if consumed.continues and not self._reader.counts.read:
                    self._screen.note(
                        "Standard input begins otherwise than in the run before, so it is taken for what came after it:"
                        " lines that were scored then, as after a rotation, are scored again."
                    )
                events = self._reader.read(left)
                self._push(events)
                if not len(events) and left.content and not left.content.endswith(b"\n"):
                    consumed.leave_last()  # whoever writes it was in the middle
                self._scorer.position = consumed.position
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > self._scorer.tolerance_s:
                self._flush()
            self._tend()
            if signals.caught:
                break
        if not (signals.caught and self._scorer.journal):  # a state keeps what waits for earlier events
            self._flush()

    def replay(self, log: Log, speed: float | None, signals: Signals) -> None:
        """Score a log's events in order of time, from where an earlier run stopped."""
        self._counts = log.counts
        tell_other_lengths(log, self._scales, self._screen)
        done, pace = 0, Pace(speed)
        for events in log.events():
            position = self._scorer.position
            start = position.get("events", 0) if position.get("source") == log.sha256 else 0
            skipped = min(max(start - done, 0), len(events))
            done += skipped
            for piece in pace.cut(events.slice(skipped, len(events)), lambda: bool(signals.caught), self._tend):
                self._push(piece)
                done += len(piece)
                self._scorer.position = {"source": log.sha256, "events": done}
                self._tend()
            if signals.caught:
                return

    def finish(self) -> None:
        """Commit and deliver all; what the webhook has not taken stays in the state, where there is one."""
        from probewatch.serve.sinks import Webhook

        self._scorer.commit()
        self._deliver()
        for sink in self._sinks:
            if isinstance(sink, Webhook):
                sink.close(kept=self._scorer.journal is not None)
        self._scorer.delivered({sink.name: sink.progress for sink in self._sinks})
        self._show()

    def close(self) -> None:
        """Free everything."""
        for sink in self._sinks:
            if sink.name != "webhook":
                sink.close()
        if self._reader:
            self._reader.close()
        if self._metrics:
            self._metrics.close()
        self._scorer.close()

    def summarise(self, caught: int) -> None:
        """Say what the run came to."""
        counts = self._numbers()
        screen = self._screen
        screen.note(
            f"{counts['events']:,} events of {counts['client_days']:,.0f} client-days,"
            f" {counts['incidents']:,} incidents: {counts['alerts_per_client_day']:.4f} alerts per client-day;"
            f" {counts['sessions']:,} sessions held, {counts['evicted_idle'] + counts['evicted_crowded']:,} evicted;"
            f" {counts.get('rejects', 0):,} rejects, {counts['duplicates']:,} duplicates, {counts['late']:,} late."
        )
        if caught:
            kept = "all is committed" if self._scorer.journal else "there is no --state, so the next run begins anew"
            print(f"probewatch: stopped by {name_of(caught)}; {kept}.", file=sys.stderr)
        screen.json({name: value for name, value in counts.items() if name != "lag_s"})

    def _push(self, events: Events) -> None:
        self._tell_models(events)
        started = time.perf_counter()
        scores = self._scorer.push(events)
        self._note(started, len(scores), scores.news)

    def _flush(self) -> None:
        started = time.perf_counter()
        scores = self._scorer.flush()
        self._note(started, len(scores), scores.news)

    def _note(self, started: float, events: int, news: Any) -> None:
        from probewatch.score.findings import sentence

        self._seconds += time.perf_counter() - started
        self._timed += events
        if any(sink.name.startswith("file:") for sink in self._sinks):
            for one in news:
                self._screen.note(f"{one.activity.name.lower()}: {sentence(one.incident)}")

    def _tend(self) -> None:
        """What is due: commit, deliver, show the metrics."""
        now = time.monotonic()
        durable = self._scorer.journal is not None
        pause = min(ALERT_S, self._commit_s) if self._scorer.outbox else self._commit_s
        if now - self._committed >= (pause if durable else 0.0):
            self._scorer.commit()
            self._deliver()
            self._committed = time.monotonic()
        if now - self._shown >= SHOWN_S:
            self._show()
            self._shown = now

    def _deliver(self) -> None:
        entries = list(self._scorer.outbox)
        for sink in self._sinks:
            sink.deliver(entries)
        progress = {sink.name: sink.progress for sink in self._sinks}
        if entries or not self._committed:
            self._scorer.delivered(progress)

    def _show(self) -> None:
        """Renew the metrics; where they worked once, their failure is told once and stops nothing."""
        try:
            if self._metrics:
                self._metrics.show(self._numbers())
                self._metrics_work = True
        except OutputError as error:
            if not self._metrics_work:
                raise
            if not self._metrics_failed:
                self._screen.warn(str(error))
            self._metrics_failed = True

    def _numbers(self) -> dict[str, float]:
        numbers = self._scorer.counts()
        told = self._reader.counts if self._reader else self._counts
        if told:
            counts = asdict(told)
            numbers |= {name: counts[name] for name in ("read", "skipped", "rejects")}
        if self._live and self._scorer.clock_s:
            numbers["lag_s"] = max(time.time() - self._scorer.clock_s, 0.0)
        dead = [sink.dead for sink in self._sinks if hasattr(sink, "dead")]
        extra = {"dead_letters": dead[0]} if dead else {}
        return {**numbers, **extra, "seconds": self._seconds, "timed": self._timed}

    def _tell_models(self, events: Events) -> None:
        """Say once of each model, up to some thousands, that it has no profile, where the detector makes use of one."""
        if not self._scorer.bundle.wants_profiles or len(self._models) >= TOLD_MODELS:
            return
        fresh = set(events.model.unique().to_pylist()) - self._models
        self._models |= fresh
        lacking = sorted(name or "(none)" for name in fresh - self._scorer.profiles.keys())
        if lacking:
            self._screen.note(
                f"No profile of {listed(lacking)}: queries there are judged by what needs none (see --profiles)."
            )

    def _tell_reject(self, reject: Reject) -> None:
        self._rejects += 1
        if self._rejects <= SHOWN_REJECTS:
            self._screen.note(f"rejected: {reject}")
        elif self._rejects == SHOWN_REJECTS + 1:
            self._screen.note("rejected: more, which the summary and --metrics count.")
