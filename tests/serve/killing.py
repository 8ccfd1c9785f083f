"""Kill a watch at random points and let it go on, again and again: ``python killing.py BUNDLE LOG FOLDER KILLS SEED``.

Prints one JSON object: kills, trials, and whatever differs from an unbroken run. The watch runs in forked children of
this process, which has loaded its code, so that a start costs little; a feeder writes the log to its standard input
from the beginning each time, a few lines at a time. Findings go to a file, where each must be once, and to a webhook of
this process, where each must be at least once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from probewatch.bundle import read_bundle
from probewatch.score.limits import Limits
from probewatch.score.stream import StreamScorer
from probewatch.serve.cli import app

LINES = 40  # written at a time
POSTED: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)  # path of the webhook -> findings


class Hook(BaseHTTPRequestHandler):
    """Takes findings."""

    def do_POST(self) -> None:
        one = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        POSTED[self.path][key_of(one)] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def key_of(finding: dict[str, Any]) -> tuple[str, int]:
    return finding["finding_info"]["uid"], finding["activity_id"]


def feed(lines: list[bytes]) -> tuple[int, int]:
    """(process, descriptor): a child that writes the lines to a pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):
            for at in range(0, len(lines), LINES):
                os.write(writer, b"".join(lines[at : at + LINES]))
                time.sleep(0.001)
        os._exit(0)
    os.close(writer)
    return child, reader


def start(bundle: Path, lines: list[bytes], folder: Path, port: int) -> tuple[int, int]:
    """(watch, feeder), both running."""
    feeder, reader = feed(lines)
    child = os.fork()
    if child == 0:
        os.dup2(reader, 0)
        os.dup2(os.open(folder / "summary.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(folder / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        code = 1
        try:
            app(
                ["watch", str(bundle), "--state", str(folder / "state.db"), "--alerts", str(folder / "alerts.jsonl"),
                 "--webhook", f"http://127.0.0.1:{port}/{folder.name}", "--dead-letter", str(folder / "dead.jsonl"),
                 "--commit-every", "0", "--json", "--quiet", "--tolerance", "5"],
            )  # fmt: skip
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(reader)
    return child, feeder


def finished(child: int, limit_s: float) -> int | None:
    """The child's status if it ends within the limit."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    return None


def end(feeder: int) -> None:
    os.kill(feeder, signal.SIGKILL)
    os.waitpid(feeder, 0)


def told(folder: Path) -> tuple[Counter[tuple[str, int]], dict[str, float], int]:
    """Findings and how often each is there, the score of each incident's first, events scored."""
    findings = [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]
    keys = Counter(map(key_of, findings))
    first = {
        one["finding_info"]["uid"]: one["evidences"][0]["data"]["peak_score"]
        for one in findings
        if one["activity_id"] == 1
    }
    return keys, first, json.loads((folder / "summary.json").read_text())["events"]


def main() -> None:
    bundle, log, root = (Path(argument) for argument in sys.argv[1:4])
    kills, seed = int(sys.argv[4]), int(sys.argv[5])
    lines = log.read_bytes().splitlines(keepends=True)
    with StreamScorer.open(bundle, limits=Limits(threads=1)) as warm:  # loads the compiled code
        warm.push({"client": ["a"], "time_s": [1.0]})
    assert read_bundle(bundle).manifest["streams"]

    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    port = hook.server_port

    def trial(name: str) -> Path:
        folder = root / name
        folder.mkdir(parents=True)
        return folder

    whole = trial("unbroken")
    began = time.monotonic()
    child, feeder = start(bundle, lines, whole, port)
    _, status = os.waitpid(child, 0)
    end(feeder)
    took_s = time.monotonic() - began
    expected: Any = told(whole)
    differences: list[str] = [f"unbroken: status {status}"] if status else []
    draw = random.Random(seed)
    killed = trials = 0
    while killed < kills or trials == 0:
        folder = trial(f"trial-{trials}")
        trials += 1
        while True:
            child, feeder = start(bundle, lines, folder, port)
            limit_s = draw.uniform(0.0, 0.6 * took_s) if killed < kills else 120.0
            status_or_none = finished(child, limit_s)
            if status_or_none is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed += 1
            end(feeder)
            if status_or_none is not None:
                break
        found = told(folder)
        if status_or_none:
            differences.append(f"{folder.name}: status {status_or_none}")
        if found[0] != expected[0]:
            differences.append(f"{folder.name}: lacks {expected[0] - found[0]}, has too often {found[0] - expected[0]}")
        if set(POSTED[f"/{folder.name}"]) != set(expected[0]) or (folder / "dead.jsonl").exists():
            lacking = set(expected[0]) - set(POSTED[f"/{folder.name}"])
            differences.append(f"{folder.name}: the webhook lacks {lacking}, or has letters that are dead")
        if found[2] != expected[2]:
            differences.append(f"{folder.name}: {found[2]} events, expected {expected[2]}")
        worst = max((abs(found[1][uid] - score) for uid, score in expected[1].items() if uid in found[1]), default=0.0)
        if worst > 1e-5:
            differences.append(f"{folder.name}: a score differs by {worst}")
    form = {"kills": killed, "trials": trials, "findings": expected[0].total(), "events": expected[2]}
    print(json.dumps({**form, "seconds": round(took_s, 2), "differences": differences}))


if __name__ == "__main__":
    main()
