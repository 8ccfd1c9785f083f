"""Alerts reach a file once, and a webhook or the dead-letter file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from probewatch.errors import ConfigError, OutputError
from probewatch.serve.sinks import ATTEMPTS, WAITING, AlertFile, Webhook


def line_of(number: int) -> tuple[int, str]:
    return number, json.dumps({"metadata": {"uid": f"u{number}"}}) + "\n"


def uids(path: Path) -> list[str]:
    return [json.loads(line)["metadata"]["uid"] for line in path.read_text().splitlines()]


def test_alerts_are_appended_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "alerts.jsonl"
    first = AlertFile(path)
    first.deliver([line_of(1), line_of(2)])
    first.deliver([line_of(1), line_of(2), line_of(3)])
    upto, mark = first.progress
    first.close()
    assert (upto, mark) == (3, path.stat().st_size)
    again = AlertFile(path)
    again.deliver([line_of(1)])  # another run without a state begins anew
    again.close()
    assert uids(path) == ["u1", "u2", "u3", "u1"]


@pytest.mark.parametrize("torn", ["", '{"metadata": {"u', '{"metadata": {"uid": "u3"}}'])
def test_what_a_killed_run_had_written_after_its_last_note_is_not_written_again(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "alerts.jsonl"
    noted = "".join(line for _, line in [line_of(1)])
    path.write_text(noted + line_of(2)[1] + torn)
    file = AlertFile(path, upto=1, mark=len(noted))
    file.deliver([line_of(2), line_of(3), line_of(4)])
    file.close()
    assert uids(path) == ["u1", "u2", "u3", "u4"]


def test_a_file_that_was_replaced_by_a_shorter_one_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text(line_of(5)[1])
    file = AlertFile(path, upto=4, mark=10_000)
    file.deliver([line_of(5), line_of(6)])
    file.close()
    assert uids(path) == ["u5", "u6"]


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="alerts cannot be written"):
        AlertFile(tmp_path / "file" / "alerts.jsonl")


@pytest.mark.parametrize("name", [".", "/dev/full"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no plain file, and findings are appended to one; choose another --alerts"):
        AlertFile(tmp_path / name)


def test_a_run_without_a_state_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"half": ')
    file = AlertFile(path)
    file.deliver([line_of(1)])
    file.close()
    assert path.read_text() == '{"half": \n' + line_of(1)[1]


class Receiver(HTTPServer):
    """Answers each post with the next status, and keeps what came."""

    def __init__(self, statuses: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses = statuses
        self.bodies: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/alerts"


class _Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if not status:  # what is no answer
            self.wfile.write(b"garbage\r\n\r\n")
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.bodies.append("GET")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver([])
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_every_alert_in_order_and_is_asked_again_after_a_failure(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses[:] = [503, 429, 200]
    hook = Webhook(receiver.url, tmp_path / "dead.jsonl", pause_s=0.001)
    hook.deliver([line_of(1), line_of(2)])
    hook.close()
    assert receiver.bodies == [line_of(1)[1]] * 3 + [line_of(2)[1]]
    assert hook.progress == (2, 0) and hook.dead == 0
    assert not (tmp_path / "dead.jsonl").exists()


@pytest.mark.parametrize(("statuses", "posts"), [([400], 1), ([302], 1), ([500] * ATTEMPTS, ATTEMPTS)])
def test_what_fails_for_good_goes_to_the_dead_letter_file(
    receiver: Receiver, tmp_path: Path, statuses: list[int], posts: int
) -> None:
    receiver.statuses[:] = list(statuses)
    told: list[str] = []
    hook = Webhook(receiver.url, tmp_path / "dead.jsonl", pause_s=0.001, told=told.append)
    hook.deliver([line_of(1), line_of(2)])
    hook.close()
    assert len(receiver.bodies) == posts + 1
    (dead,) = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert dead["finding"]["metadata"]["uid"] == "u1" and dead["reason"] == f"status {statuses[0]}"
    assert hook.progress == (2, 0) and hook.dead == 1
    assert "dead.jsonl" in told[0] and "/alerts" not in told[0]  # a URL may hold a secret


def test_a_webhook_that_nobody_answers_keeps_a_bounded_number_waiting(tmp_path: Path) -> None:
    hook = Webhook("http://127.0.0.1:9/alerts", tmp_path / "dead.jsonl", pause_s=0.001)
    hook.deliver([line_of(number) for number in range(1, WAITING + 50)])
    hook.close()
    dead = [
        json.loads(line)["finding"]["metadata"]["uid"] for line in (tmp_path / "dead.jsonl").read_text().splitlines()
    ]
    assert sorted(set(dead), key=lambda uid: int(uid[1:])) == [f"u{number}" for number in range(1, WAITING + 50)]
    assert hook.progress[0] == WAITING + 49


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///etc/secret", "no URL of http or https"),
        ("http://host/with secret", "no URL of http or https"),
        ("http://user:secret@host/", "a name or password before the host"),
    ],
)
def test_a_webhook_that_cannot_be_posted_to_is_refused_without_showing_it(
    tmp_path: Path, url: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Webhook(url, tmp_path / "dead.jsonl")
    assert "secret" not in str(caught.value)


def test_what_answers_in_no_http_is_asked_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses[:] = [0, 200]
    hook = Webhook(receiver.url, tmp_path / "dead.jsonl", pause_s=0.001)
    hook.deliver([line_of(1)])
    hook.close()
    assert receiver.bodies == [line_of(1)[1]] * 2 and hook.progress == (1, 0)


def test_at_the_end_a_watch_with_a_state_keeps_what_the_webhook_did_not_take(tmp_path: Path) -> None:
    hook = Webhook("http://127.0.0.1:9/alerts", tmp_path / "dead.jsonl", pause_s=10.0)
    hook.deliver([line_of(1), line_of(2)])
    hook.close(kept=True)
    assert hook.progress == (0, 0) and hook.dead == 0
    assert not (tmp_path / "dead.jsonl").exists()
