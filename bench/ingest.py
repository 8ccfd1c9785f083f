"""How fast a log is read, against ``json.loads`` line by line into the same columns.

    python bench/ingest.py [--events 1000000] [--folder DIR]

Both sides get the same generated file, check the same things, give the same columns and name the same rejected
lines; the bench stops if they do not. Each runs in a process of its own, whose peak memory is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

INPUTS = 30
BROKEN_EVERY = 100
CLIENTS = 2000
MODELS = 4
START = datetime(2026, 3, 1, tzinfo=UTC)
VECTORS = 20_000


def write_log(path: Path, events: int, seed: int = 0) -> list[int]:
    """Write raw events, one line in a hundred broken in one of ten ways; the numbers of the broken lines."""
    rng = np.random.default_rng(seed)
    vectors = [json.dumps(row) for row in rng.normal(size=(VECTORS, INPUTS)).tolist()]
    clients, which = rng.integers(CLIENTS, size=events), rng.integers(VECTORS, size=events)
    confidence = np.round(0.5 + rng.random(events) / 2, 6)
    broken = []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for index in range(events):
            client = int(clients[index])
            stamp = (START + timedelta(microseconds=index * 250_000)).isoformat()
            line = (
                f'{{"timestamp": "{stamp}", "eventType": "model_query", "context": {{"userId": "user_{client:06d}", '
                f'"jobId": "job_{client % 50:03d}", "taskId": "task_{client:06d}_{index // 200_000}", '
                f'"sourceIp": "203.0.113.{client % 250}"}}, "details": {{"modelName": "model_{client % MODELS}", '
                f'"queryInput": {{"featureVector": {vectors[which[index]]}}}, '
                f'"queryResponse": {{"confidence": {confidence[index]}, "predictedClass": {client % 3}}}}}}}'
            )
            if index % BROKEN_EVERY == 50:
                line = break_line(line, index // BROKEN_EVERY)
                broken.append(index + 1)
            file.write(line + "\n")
    return broken


def break_line(line: str, kind: int) -> str:
    """The line, made unusable in one of ten ways."""
    event = json.loads(line)
    if kind % 10 < 5:
        return [line[: len(line) // 2], line[:-1], "upstream timed out", "null", "{"][kind % 10]
    if kind % 10 == 5:
        event["details"]["queryResponse"]["confidence"] = 1.7
    elif kind % 10 == 6:
        event["details"]["queryInput"]["featureVector"].pop()
    elif kind % 10 == 7:
        event["details"]["queryInput"]["featureVector"][3] = math.nan
    elif kind % 10 == 8:
        event["timestamp"] = "yesterday"
    else:
        event["context"] = {}
    return json.dumps(event)


class Query(NamedTuple):
    """One query as the plain reader takes it from a line."""

    client: str
    session: str
    model: str
    time_s: float
    confidence: float
    answer: int
    vector: list[float]


def query_of(event: Any) -> Query | None:
    """The query in a raw event, with the checks that read_logs makes; None for events of other types."""
    if not isinstance(event, dict):
        raise ValueError(f"the line is {event!r}, expected an object")
    if event.get("eventType", "model_query") != "model_query":
        return None
    context, details = event.get("context") or {}, event.get("details") or {}
    client, session = context.get("userId"), context.get("taskId")
    if not (client or session):
        raise ValueError("client and session are missing")
    time_s = seconds_of(event.get("timestamp"))
    answer = details.get("queryResponse") or {}
    confidence = answer.get("confidence")
    confidence = math.nan if confidence is None else float(confidence)
    if not (0 <= confidence <= 1 or "confidence" not in answer):
        raise ValueError(f"confidence is {confidence}, expected 0 to 1")
    vector = [float(value) for value in (details.get("queryInput") or {}).get("featureVector") or ()]
    if not all(map(math.isfinite, vector)):
        raise ValueError("an input is not finite")
    predicted = answer.get("predictedClass")
    return Query(
        client=str(client or session),
        session=str(session or ""),
        model=str(details.get("modelName") or ""),
        time_s=time_s,
        confidence=confidence,
        answer=-1 if predicted is None else int(predicted),
        vector=vector,
    )


def seconds_of(stamp: Any) -> float:
    """Seconds since 1970 of ISO 8601 or of a number."""
    if isinstance(stamp, str):
        moment = datetime.fromisoformat(stamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(stamp)


def read_plainly(path: str) -> dict[str, Any]:
    """The log by ``json.loads``, line by line, into the columns that read_logs makes."""
    clients, sessions, models = [], [], []
    times, confidences, inputs = array("d"), array("d"), array("d")
    answers, widths, lines = array("q"), array("q"), array("q")
    rejects: list[tuple[int, str]] = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                query = query_of(json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                rejects.append((number, str(error)))
                continue
            if query is None:
                continue
            clients.append(query.client)
            sessions.append(query.session)
            models.append(query.model)
            times.append(query.time_s)
            confidences.append(query.confidence)
            answers.append(query.answer)
            inputs.extend(query.vector)
            widths.append(len(query.vector))
            lines.append(number)
    counted: dict[str, Counter[int]] = defaultdict(Counter)
    for model, width in zip(models, widths, strict=True):
        counted[model][width] += 1
    usual = {model: counts.most_common(1)[0][0] for model, counts in counted.items()}
    kept = np.array([usual[model] == width for model, width in zip(models, widths, strict=True)])
    rejects += [(lines[index], "unusual length") for index in np.flatnonzero(~kept).tolist()]
    return {
        "client": np.array(clients, object)[kept],
        "session": np.array(sessions, object)[kept],
        "model": np.array(models, object)[kept],
        "time_s": np.frombuffer(times)[kept],
        "confidence": np.frombuffer(confidences)[kept],
        "predicted_class": np.frombuffer(answers, np.int64)[kept],
        "inputs": np.frombuffer(inputs)[np.repeat(kept, np.frombuffer(widths, np.int64))],
        "input_offsets": np.concatenate([[0], np.cumsum(np.frombuffer(widths, np.int64)[kept])]),
        "rejects": sorted(number for number, _ in rejects),
    }


def run_plainly(path: str) -> dict[str, Any]:
    started, used = time.perf_counter(), time.process_time()
    columns = read_plainly(path)
    figures = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - used, "peak_mb": peak_mb()}
    order = np.lexsort((columns["time_s"], columns["session"].astype(str)))
    return {**figures, **outcome(columns["time_s"][order], columns["inputs"].reshape(-1, INPUTS)[order], columns)}


def run_ours(path: str) -> dict[str, Any]:
    from probewatch.data.logs import read_logs

    rejects = Path(f"{path}.rejects")
    started, used = time.perf_counter(), time.process_time()
    with read_logs([path], rejects=rejects) as log:
        figures = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - used}
        started = time.perf_counter()
        events = sum(len(chunk.time_s) for chunk in log.sessions())
        figures |= {"sessions_s": time.perf_counter() - started, "peak_mb": peak_mb()}
        assert events == log.counts.events
        everything = log.all_sessions()
    lines = sorted(json.loads(line)["line"] for line in rejects.read_text("utf-8").splitlines())
    order = np.lexsort((everything.time_s, np.repeat(everything.session.astype(str), everything.lengths)))
    inputs = everything.inputs.reshape(-1, INPUTS)[order]
    return {**figures, **outcome(everything.time_s[order], inputs, {"rejects": lines})}


def outcome(times: Any, inputs: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """What both sides must agree on; the rows are in the order of their sessions and times."""
    digest = hashlib.sha256(inputs.tobytes() + times.tobytes()).hexdigest()
    return {"events": len(times), "digest": digest, "rejects": columns["rejects"]}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run_apart(side: str, path: Path) -> dict[str, Any]:
    """One side's figures, from a process of its own."""
    command = [sys.executable, __file__, "--side", side, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=2, help="runs of each side, in turn; the fastest counts")
    parser.add_argument("--folder", type=Path, help="where the generated log is written (default: a temporary folder)")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_ours(options.path) if options.side == "ours" else run_plainly(options.path)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "events.jsonl"
        broken = write_log(path, options.events)
        size_mb = path.stat().st_size / 1e6
        runs = [(run_apart("plain", path), run_apart("ours", path)) for _ in range(options.runs)]
    for run in (side for pair in runs for side in pair):
        assert run["rejects"] == broken, "a side does not reject the broken lines"
        assert run["events"] == options.events - len(broken)
        assert run["digest"] == runs[0][0]["digest"], "the sides read different columns"
    plain = min((plain for plain, _ in runs), key=lambda run: run["seconds"])
    ours = min((ours for _, ours in runs), key=lambda run: run["seconds"])
    print(f"{options.events} events with {INPUTS} inputs, {size_mb:.0f} MB, {len(broken)} broken lines, all reported")
    print(f"{'':24}{'seconds':>9}{'CPU s':>9}{'events/s':>12}{'peak MB':>9}")
    for name, run in (("json.loads line by line", plain), ("read_logs", ours)):
        seconds, cpu, peak = run["seconds"], run["cpu"], run["peak_mb"]
        print(f"{name:24}{seconds:9.2f}{cpu:9.2f}{options.events / seconds:12,.0f}{peak:9.0f}")
    print(f"{'then sorted to sessions':24}{ours['sessions_s']:9.2f}{'':9}{options.events / ours['sessions_s']:12,.0f}")
    print(f"ratio: {plain['seconds'] / ours['seconds']:.2f}")


if __name__ == "__main__":
    main()
