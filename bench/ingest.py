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
from typing import Any

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


def read_plainly(path: str) -> dict[str, Any]:
    """The log by ``json.loads``, line by line, into the columns that read_logs makes."""
    text: dict[str, list[str]] = {"client": [], "session": [], "model": []}
    times, confidences, inputs = array("d"), array("d"), array("d")
    classes, widths, lines = array("q"), array("q"), array("q")
    rejects: list[tuple[int, str]] = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                event = json.loads(line)
                if event["eventType"] != "model_query":
                    continue
                context, details = event["context"], event["details"]
                client, session, model = context["userId"], context["taskId"], details["modelName"]
                stamp = datetime.fromisoformat(event["timestamp"]).timestamp()
                confidence = float(details["queryResponse"]["confidence"])
                if not 0 <= confidence <= 1:
                    raise ValueError(f"confidence is {confidence}")
                vector = [float(value) for value in details["queryInput"]["featureVector"]]
                if not all(map(math.isfinite, vector)):
                    raise ValueError("an input is not finite")
                answer = int(details["queryResponse"]["predictedClass"])
            except (ValueError, KeyError, TypeError) as error:
                rejects.append((number, str(error)))
                continue
            text["client"].append(client)
            text["session"].append(session)
            text["model"].append(model)
            times.append(stamp)
            confidences.append(confidence)
            classes.append(answer)
            inputs.extend(vector)
            widths.append(len(vector))
            lines.append(number)
    counted: dict[str, Counter[int]] = defaultdict(Counter)
    for model, width in zip(text["model"], widths, strict=True):
        counted[model][width] += 1
    usual = {model: counts.most_common(1)[0][0] for model, counts in counted.items()}
    kept = np.array([usual[model] == width for model, width in zip(text["model"], widths, strict=True)])
    rejects += [(lines[index], "unusual length") for index in np.flatnonzero(~kept).tolist()]
    columns: dict[str, Any] = {name: np.array(values, object)[kept] for name, values in text.items()}
    columns["inputs"] = np.frombuffer(inputs)[np.repeat(kept, np.frombuffer(widths, np.int64))]
    columns["input_offsets"] = np.concatenate([[0], np.cumsum(np.frombuffer(widths, np.int64)[kept])])
    columns["time_s"], columns["confidence"] = np.frombuffer(times)[kept], np.frombuffer(confidences)[kept]
    columns["predicted_class"] = np.frombuffer(classes, np.int64)[kept]
    return {**columns, "rejects": sorted(number for number, _ in rejects)}


def run_plainly(path: str) -> dict[str, Any]:
    started = time.perf_counter()
    columns = read_plainly(path)
    seconds = time.perf_counter() - started
    order = np.lexsort((columns["time_s"], columns["session"].astype(str)))
    widths = np.diff(columns["input_offsets"])
    assert (widths == INPUTS).all()
    inputs = columns["inputs"].reshape(-1, INPUTS)[order]
    digest = hashlib.sha256(inputs.tobytes() + columns["time_s"][order].tobytes()).hexdigest()
    return {"read_s": seconds, "events": len(order), "rejects": columns["rejects"], "digest": digest}


def run_ours(path: str) -> dict[str, Any]:
    from probewatch.data.logs import read_logs

    rejects = Path(f"{path}.rejects")
    started = time.perf_counter()
    with read_logs([path], rejects=rejects) as log:
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        events = sum(len(chunk.time_s) for chunk in log.sessions())
        sessions_s = time.perf_counter() - started
        lines = sorted(json.loads(line)["line"] for line in rejects.read_text("utf-8").splitlines())
        result = {"read_s": seconds, "sessions_s": sessions_s, "events": events, "rejects": lines, "peak_mb": peak_mb()}
        everything = log.all_sessions()
    names = np.repeat(everything.session.astype(str), everything.lengths)
    order = np.lexsort((everything.time_s, names))
    inputs = everything.inputs.reshape(-1, INPUTS)[order]
    digest = hashlib.sha256(inputs.tobytes() + everything.time_s[order].tobytes()).hexdigest()
    return {**result, "digest": digest}


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
    parser.add_argument("--folder", type=Path, help="where the generated log is written (default: a temporary folder)")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        found = run_ours(options.path) if options.side == "ours" else run_plainly(options.path)
        print(json.dumps({"peak_mb": peak_mb(), **found}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "events.jsonl"
        broken = write_log(path, options.events)
        size_mb = path.stat().st_size / 1e6
        plain = run_apart("plain", path)
        ours = run_apart("ours", path)
    assert plain["rejects"] == ours["rejects"] == broken, "the sides reject different lines"
    assert plain["events"] == ours["events"] == options.events - len(broken)
    assert plain["digest"] == ours["digest"], "the sides read different columns"
    print(f"{options.events} events with {INPUTS} inputs, {size_mb:.0f} MB, {len(broken)} broken lines, all reported")
    print(f"{'':24}{'seconds':>9}{'events/s':>12}{'peak MB':>9}")
    for name, seconds, peak in (
        ("json.loads line by line", plain["read_s"], plain["peak_mb"]),
        ("read_logs", ours["read_s"], ours["peak_mb"]),
        ("sorted into sessions", ours["sessions_s"], ours["peak_mb"]),
    ):
        print(f"{name:24}{seconds:9.2f}{options.events / seconds:12,.0f}{peak:9.0f}")
    print(f"ratio: {plain['read_s'] / ours['read_s']:.2f}")


if __name__ == "__main__":
    main()
