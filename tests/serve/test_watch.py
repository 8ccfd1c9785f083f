"""The verb: what comes on standard input or in logs is scored, told once, and survives being killed."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from probewatch.bundle import Bundle
from probewatch.data.events import Events
from probewatch.data.live import Lines, LiveReader
from probewatch.data.logs import read_logs
from probewatch.score.batch import Scorer
from probewatch.score.verdicts import Verdicts
from probewatch.serve.cli import app
from probewatch.serve.steering import Consumed, Pace

COMMAND = [sys.executable, "-m", "probewatch", "watch"]


@pytest.fixture(scope="module")
def lines(log_files: tuple[Path, Path]) -> bytes:
    """The log in order of time, plain."""
    rows = gzip.decompress(log_files[0].read_bytes()).splitlines(keepends=True)
    return b"".join(sorted(rows, key=lambda row: json.loads(row)["timestamp"]))


@pytest.fixture(scope="module")
def verdicts(bundle: Bundle, log_files: tuple[Path, Path]) -> Verdicts:
    with read_logs([log_files[0]]) as log:
        return Verdicts.concat(list(Scorer(bundle).score(log.sessions(), why=False)))


def watch(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["watch", *(str(word) for word in words)])
    assert result.exit_code == code, result.output + str(result.exception)
    assert "Traceback" not in result.output
    return result


def piped(lines: bytes, *words: object, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([*COMMAND, *map(str, words)], input=lines, capture_output=True)
    assert done.returncode == code, done.stderr.decode()
    return done


def findings_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_replayed_log_tells_of_every_client_that_the_batch_path_does(
    bundle: Bundle, log_files: tuple[Path, Path], verdicts: Verdicts, tmp_path: Path
) -> None:
    shown = watch(bundle.folder, log_files[0], "--alerts", tmp_path / "a.jsonl", "--metrics", tmp_path / "m.prom")
    findings = findings_of((tmp_path / "a.jsonl").read_text())
    clients = {one["evidences"][0]["data"]["client"] for one in findings}
    assert clients == set(verdicts.client[verdicts.alert])
    created = [one for one in findings if one["activity_id"] == 1]
    assert all(one["evidences"][0]["data"]["why"] for one in created)
    assert "alerts per client-day" in shown.stderr
    metrics = (tmp_path / "m.prom").read_text()
    assert f"probewatch_incidents_total {len(created)}\n" in metrics
    assert f"probewatch_alerts_total {len(findings)}\n" in metrics
    again = watch(bundle.folder, log_files[0])
    assert [one["metadata"]["uid"] for one in findings_of(again.stdout)] == [one["metadata"]["uid"] for one in findings]


def test_standard_input_gives_the_alerts_of_a_replay(
    bundle: Bundle, log_files: tuple[Path, Path], lines: bytes, tmp_path: Path
) -> None:
    watch(bundle.folder, log_files[0], "--alerts", tmp_path / "replay.jsonl")
    done = piped(lines, bundle.folder, "--alerts", tmp_path / "live.jsonl", "--json")
    created = [
        {one["finding_info"]["uid"] for one in findings_of((tmp_path / name).read_text()) if one["activity_id"] == 1}
        for name in ("replay.jsonl", "live.jsonl")
    ]
    assert created[0] == created[1]
    summary = json.loads(done.stdout)
    assert summary["read"] == summary["events"] == lines.count(b"\n")


def test_without_a_bundle_the_packaged_detector_watches_and_every_line_is_accounted_for(
    lines: bytes, tmp_path: Path
) -> None:
    log = tmp_path / "queries.jsonl"
    log.write_bytes(lines + b"{broken\n[]\n")
    words = ("--alerts", tmp_path / "alerts.jsonl", "--json")
    done = watch(log, *words)
    assert done.stderr.count("No profile of") == 1
    told = json.loads(done.stdout)
    assert told["rejects"] == 2
    assert told["read"] == told["events"] + told["duplicates"] + told["skipped"] + told["rejects"]
    live = json.loads(piped(log.read_bytes(), *words).stdout)
    assert {name: live[name] for name in ("read", "events", "rejects")} == {
        name: told[name] for name in ("read", "events", "rejects")
    }


def test_rejects_are_told_one_by_one_and_then_once_for_all_more(bundle: Bundle, lines: bytes) -> None:
    told = piped(b'{"event_type": "QUERY"\n' * 30 + lines, bundle.folder).stderr.decode()
    assert told.count("rejected: stdin:") == 10
    assert told.count("rejected: more, which the summary and --metrics count.") == 1
    assert "30 rejects" in told


def test_input_that_is_fed_again_from_its_beginning_is_not_scored_twice(
    bundle: Bundle, lines: bytes, tmp_path: Path
) -> None:
    words = (bundle.folder, "--state", tmp_path / "s.db", "--alerts", tmp_path / "a.jsonl", "--json")
    half = lines[: lines.index(b"\n", len(lines) // 2) + 1]
    piped(half, *words)
    assert json.loads(piped(lines, *words).stdout)["events"] == lines.count(b"\n")
    before = (tmp_path / "a.jsonl").read_text()
    assert json.loads(piped(lines, *words).stdout)["events"] == lines.count(b"\n")
    assert (tmp_path / "a.jsonl").read_text() == before
    rest = b"".join(lines.splitlines(keepends=True)[-3:])
    assert json.loads(piped(rest, *words).stdout)["events"] == lines.count(b"\n") + 3  # a tail goes on


def test_a_last_line_that_was_still_being_written_comes_again(bundle: Bundle, lines: bytes, tmp_path: Path) -> None:
    words = (bundle.folder, "--state", tmp_path / "s.db", "--alerts", tmp_path / "a.jsonl", "--json")
    torn = lines[: lines.index(b"\n", len(lines) // 2) + 50]
    piped(torn, *words)
    assert json.loads(piped(lines, *words).stdout)["events"] == lines.count(b"\n")


def test_input_that_begins_otherwise_is_told_to_be_a_continuation(bundle: Bundle, lines: bytes, tmp_path: Path) -> None:
    words = (bundle.folder, "--state", tmp_path / "s.db", "--alerts", tmp_path / "a.jsonl")
    first, rest = lines[: lines.index(b"\n") + 1], lines[lines.index(b"\n") + 1 :]
    assert b"begins otherwise" not in piped(first, *words).stderr
    assert piped(rest, *words).stderr.count(b"begins otherwise than in the run before") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(gzip.compress(b"{}\n"), "stdin: is packed with gzip"), (b"client,time\n" * 20, "stdin: no line is JSON")],
    ids=["packed", "table"],
)
def test_input_that_is_no_json_lines_is_a_sentence(content: bytes, sentence: str) -> None:
    assert sentence in piped(content, code=2).stderr.decode()


def test_metrics_that_fail_later_stop_no_detection(
    bundle: Bundle, lines: bytes, verdicts: Verdicts, tmp_path: Path
) -> None:
    (tmp_path / "metrics").mkdir()
    command = [
        *COMMAND,
        str(bundle.folder),
        "--alerts",
        str(tmp_path / "a.jsonl"),
        "--metrics",
        str(tmp_path / "metrics/m"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin and running.stderr
        running.stdin.write(lines[: lines.index(b"\n") + 1])
        running.stdin.flush()
        while not (tmp_path / "metrics/m").exists():
            time.sleep(0.05)
        (tmp_path / "metrics/m").unlink()
        (tmp_path / "metrics").rmdir()
        running.stdin.write(lines[lines.index(b"\n") + 1 :])
        running.stdin.close()
        told = running.stderr.read().decode()
    assert running.returncode == 0, told
    assert told.count("cannot be written") == 1
    found = {one["evidences"][0]["data"]["client"] for one in findings_of((tmp_path / "a.jsonl").read_text())}
    assert found == set(verdicts.client[verdicts.alert])


def test_sigterm_commits_and_ends_with_a_sentence(bundle: Bundle, lines: bytes, tmp_path: Path) -> None:
    words = [str(bundle.folder), "--state", str(tmp_path / "s.db"), "--alerts", str(tmp_path / "a.jsonl"), "--json"]
    running = subprocess.Popen(
        [*COMMAND, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdin is not None
    running.stdin.write(lines)
    running.stdin.flush()
    until = time.monotonic() + 60
    while not (tmp_path / "a.jsonl").exists() or not (tmp_path / "a.jsonl").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    out, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert b"probewatch: stopped by SIGTERM; all is committed." in errors
    first = json.loads(out)
    done = piped(lines, *words)
    assert json.loads(done.stdout)["events"] == lines.count(b"\n") >= first["events"]


def kill(bundle: Bundle, lines: bytes, folder: Path, kills: int) -> dict[str, Any]:
    log = folder / "log.jsonl"
    log.write_bytes(lines)
    script = Path(__file__).with_name("killing.py")
    words = [str(script), str(bundle.folder), str(log), str(folder / "runs"), str(kills), "7"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_after_a_kill_anywhere_every_alert_is_there_once_and_no_event_is_lost(
    bundle: Bundle, lines: bytes, tmp_path: Path
) -> None:
    found = kill(bundle, lines, tmp_path, 8)
    assert found["kills"] >= 8 and found["findings"] > 5
    assert found["differences"] == []


@pytest.mark.slow
def test_after_a_hundred_kills_every_alert_is_there_once_and_no_event_is_lost(
    bundle: Bundle, lines: bytes, tmp_path: Path
) -> None:
    found = kill(bundle, lines, tmp_path, 100)
    assert found["kills"] >= 100
    assert found["differences"] == []


def test_a_replay_goes_so_many_times_faster_than_it_was(bundle: Bundle, lines: bytes, tmp_path: Path) -> None:
    rows = lines.splitlines(keepends=True)[:2]
    first, last = (json.loads(row)["timestamp"] for row in rows)
    (tmp_path / "two.jsonl").write_bytes(b"".join(rows))
    from datetime import datetime

    apart_s = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    started = time.monotonic()
    watch(bundle.folder, tmp_path / "two.jsonl", "--speed", apart_s / 0.5)
    assert time.monotonic() - started >= 0.5


def test_a_replay_passes_over_a_pause_of_more_than_a_day() -> None:
    events = Events.of(["a"] * 3, [0.0, 1.7e9, 1.7e9 + 1.0])  # the first of a clock that was not set
    pieces = Pace(100.0).cut(events, lambda: False, lambda: None)
    assert sum(map(len, pieces)) == 3


def test_hostile_names_reach_no_terminal_and_no_label(bundle: Bundle, lines: bytes, tmp_path: Path) -> None:
    name = json.dumps("\x1b]0;owned\x07[red]<b>\u202e")
    rows = [row.replace(b'"user-0"', name.encode()) for row in lines.splitlines(keepends=True)]
    words = (bundle.folder, "--alerts", tmp_path / "a.jsonl", "--metrics", tmp_path / "m.prom")
    done = piped(b"".join(rows), *words)
    assert rb"\x1b]0;owned\x07[red]<b>\u202e" in done.stderr
    for text in (done.stderr, done.stdout, (tmp_path / "a.jsonl").read_bytes()):
        assert not set(b"\x1b\x07") & set(text)
    assert "owned" not in (tmp_path / "m.prom").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--speed", "2"], "--speed is for logs that are replayed"),
        (["--json"], "give --alerts FILE too"),
        (["--idle", "5"], "idle_s is 5.0, expected gap_s"),
        (["--webhook", "ftp://x", "no.jsonl"], "no URL of http or https"),
    ],
)
def test_wrong_options_are_a_sentence(bundle: Bundle, words: list[str], sentence: str) -> None:
    assert sentence in watch(bundle.folder, *words, code=2).stderr


def test_another_log_with_the_same_header_is_scored_from_where_it_differs(
    bundle: Bundle, lines: bytes, tmp_path: Path
) -> None:
    words = (bundle.folder, "--state", tmp_path / "s.db", "--alerts", tmp_path / "a.jsonl", "--json")
    header = b'{"eventType": "log_opened"}\n'
    half = lines.index(b"\n", len(lines) // 2) + 1
    piped(header + lines[:half], *words)
    again = piped(header + lines[half:], *words)
    assert json.loads(again.stdout)["events"] == lines.count(b"\n")
    assert again.stderr.count(b"begins otherwise than in the run before") == 1
    assert b"goes on after" in again.stderr


@pytest.mark.parametrize("option", ["--metrics", "--alerts", "--dead-letter", "--state"])
def test_no_output_is_written_over_the_log(bundle: Bundle, lines: bytes, tmp_path: Path, option: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines)
    assert f"is both a log and {option}" in watch(bundle.folder, log, option, log, code=2).stderr
    assert log.read_bytes() == lines


def test_two_outputs_are_two_files(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for options in (("--alerts", "--metrics"), ("--alerts", "--state"), ("--metrics", "--state")):
        assert "is both" in watch(bundle.folder, options[0], path, options[1], path, code=2).stderr


def test_what_cannot_be_opened_is_a_sentence(bundle: Bundle) -> None:
    assert "no URL" in watch(bundle.folder, "--webhook", "http://[::1", code=2).stderr
    assert "no file and no port" in watch(bundle.folder, "--metrics", "/", code=2).stderr
    assert "more than memory holds" in watch(bundle.folder, "--max-sessions", 10**18, code=2).stderr


def test_a_line_too_long_among_the_first_is_known_again_however_it_comes(lines: bytes) -> None:
    rows = lines.splitlines(keepends=True)[:9]
    parts = [
        [Lines(b"".join(rows[:3]), 3), Lines(b"".join(rows[3:5]), 3, 1), Lines(b"".join(rows[5:]), 4)],
        [Lines(rows[0], 1), Lines(b"".join(rows[1:5]), 5, 1), Lines(b"".join(rows[5:]), 4)],
    ]
    first = Consumed({})
    reader = LiveReader(None, {}, lambda reject: None)
    for part in parts[0]:
        assert first.skip(part, reader) == part
    again = Consumed(first.position)
    assert sum(again.skip(part, reader).count for part in parts[1]) == 0
    reader.close()
