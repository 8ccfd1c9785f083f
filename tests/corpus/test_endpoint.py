from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probewatch.corpus.endpoint import Endpoint, Form, Limits
from probewatch.errors import ConfigError, TargetError

Reply = Callable[[Any, int], tuple[int, Any]]
QUICK = Limits(per_second=1e6, pause_s=0.001, timeout_s=5.0)


class Server:
    """A real small server: ``reply`` gets the request's JSON and its number, and gives status and JSON.

    In the place of JSON it may give what writes the whole answer, head and all.
    """

    def __init__(self, reply: Reply) -> None:
        self.seen: list[Any] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers.append(dict(self.headers.items()))
                outer.seen.append(body)
                status, answer = reply(body, len(outer.seen))
                if callable(answer):
                    self.close_connection = True
                    answer(self.wfile)
                    return
                text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/predict"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def connect() -> Iterator[Callable[..., Endpoint]]:
    opened = []

    def start(url: str, columns: list[str], classes: list[str], **settings: Any) -> Endpoint:
        opened.append(Endpoint(url, columns, classes, **settings))
        return opened[-1]

    yield start
    for endpoint in opened:
        endpoint.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    running = []

    def start(reply: Reply) -> Server:
        running.append(Server(reply))
        return running[-1]

    yield start
    for server in running:
        server.http.shutdown()
        server.http.server_close()


def _first_of_ten(body: Any, _: int) -> tuple[int, Any]:
    return 200, {"predictions": [[row[0] / 10, 1 - row[0] / 10] for row in body["instances"]]}


def test_answers_come_in_the_order_of_the_queries(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(_first_of_ten)
    endpoint = connect(server.url, ["a", "b"], ["0", "1"], limits=Limits(per_second=1e6, rows=3))
    inputs = np.column_stack([np.arange(10.0), np.zeros(10)])
    assert np.allclose(endpoint(inputs)[:, 0], np.arange(10) / 10)
    assert endpoint.requests == 4 and endpoint.retries == 0
    assert sorted(len(body["instances"]) for body in server.seen) == [1, 3, 3, 3]


def test_a_template_sends_named_words_one_query_a_request(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(lambda body, _: (200, {"out": [{"scores": {"no": 0.25, "yes": 0.75}}]}))
    form = Form({"model": "m", "data": {"one": "$record"}}, "out.0.scores", {"Authorization": "Bearer x"})
    endpoint = connect(
        server.url, ["job", "age"], ["no", "yes"], form=form, limits=QUICK,
        spelled=lambda inputs: [["nurse" if job else "clerk", int(age)] for job, age in inputs],
    )  # fmt: skip
    assert endpoint(np.array([[1.0, 41.0]])).tolist() == [[0.25, 0.75]]
    assert server.seen == [{"model": "m", "data": {"one": {"job": "nurse", "age": 41}}}]
    assert isinstance(server.seen[0]["data"]["one"]["age"], int)
    assert server.headers[0]["Authorization"] == "Bearer x"


def _documented() -> list[tuple[str, list[str]]]:
    """Each body of the documentation with what it says is sent."""
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    section = page.split("## How an endpoint is asked\n")[1].split("\n## ")[0]
    rows = [re.findall(r"`([^`]+)`", line) for line in section.splitlines() if line.startswith("| `") and "$" in line]
    return [(body, sent) for body, *sent in rows]


def test_every_placeholder_is_documented() -> None:
    assert [re.findall(r"\$\w+", body) for body, _ in _documented()] == [["$rows"], ["$records"], ["$row"], ["$record"]]


@pytest.mark.parametrize(("body", "sent"), _documented())
def test_the_documented_bodies_send_what_the_page_says(
    serve: Callable[[Reply], Server], connect: Any, body: str, sent: list[str]
) -> None:
    server = serve(lambda _, __: (200, [[0.5, 0.5]] * 2 if len(sent) == 1 else [0.5, 0.5]))
    endpoint = connect(
        server.url, ["age", "job"], ["no", "yes"], form=Form(json.loads(body), ""), limits=replace(QUICK, workers=1),
        spelled=lambda inputs: [[int(age), "nurse" if job else "clerk"] for age, job in inputs],
    )  # fmt: skip
    endpoint(np.array([[41.0, 1.0], [37.0, 0.0]]))
    assert server.seen == [json.loads(one) for one in sent]


def test_a_star_stands_for_every_query(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(lambda body, _: (200, [{"p": [0.5, 0.5]} for _ in body]))
    endpoint = connect(server.url, ["a"], ["0", "1"], form=Form("$rows", "*.p"), limits=QUICK)
    assert endpoint(np.zeros((2, 1))).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_passing_trouble_is_retried_counted_and_told(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(lambda body, number: (503, {"busy": True}) if number < 3 else _first_of_ten(body, number))
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=QUICK)
    assert endpoint(np.array([[3.0]])).tolist() == [[0.3, 0.7]]
    assert (endpoint.requests, endpoint.retries) == (3, 2)
    assert endpoint.trouble[0] == "attempt 1 of 6: status 503: '{\"busy\": true}'"


def test_a_time_out_is_retried(serve: Callable[[Reply], Server], connect: Any) -> None:
    def slow_once(body: Any, number: int) -> tuple[int, Any]:
        time.sleep(0.5 if number == 1 else 0.0)
        return _first_of_ten(body, number)

    server = serve(slow_once)
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=Limits(per_second=1e6, pause_s=0.001, timeout_s=0.2))
    assert endpoint(np.array([[3.0]])).tolist() == [[0.3, 0.7]]
    assert endpoint.retries == 1 and "TimeoutError" in endpoint.trouble[0]


def _drip_body(file: Any) -> None:
    file.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    _drip(file, b" ")


def _drip_head(file: Any) -> None:
    file.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(file, b"x")


def _drip(file: Any, byte: bytes) -> None:
    for _ in range(100):
        file.write(byte)
        time.sleep(0.05)


def _flood_without_length(file: Any) -> None:
    file.write(b"HTTP/1.1 200 OK\r\n\r\n")
    _flood(file, b"9" * 65536)


def _flood_in_chunks(file: Any) -> None:
    file.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    _flood(file, b"10000\r\n" + b"9" * 65536 + b"\r\n")


def _flood(file: Any, block: bytes) -> None:
    with suppress(OSError):  # whoever asked has hung up
        for _ in range(4096):
            file.write(block)


def _announce_much(file: Any) -> None:
    file.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n")


LATE = r"TimeoutError: .* not whole in time \(--timeout"
TOO_LONG = "AnswerTooLong: the answer passes 1,310,720 bytes"


@pytest.mark.parametrize(
    ("answer", "timeout_s", "why"),
    [
        (_drip_body, 0.3, LATE),
        (_drip_head, 0.3, LATE),
        (_flood_without_length, 30.0, TOO_LONG),
        (_flood_in_chunks, 30.0, TOO_LONG),
        (_announce_much, 30.0, TOO_LONG),
    ],
)
def test_an_answer_that_drips_or_has_no_end_is_given_up(
    serve: Callable[[Reply], Server], connect: Any, answer: Callable[[Any], None], timeout_s: float, why: str
) -> None:
    server = serve(lambda body, _: (200, answer))
    limits = Limits(per_second=1e6, pause_s=0.001, timeout_s=timeout_s, attempts=2)
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=limits)
    with pytest.raises(TargetError, match=f"failed 2 times, the last with {why}"):
        endpoint(np.zeros((1, 1)))
    assert (len(server.seen), endpoint.retries, endpoint.repeated) == (2, 2, 2)


def test_an_answer_that_breaks_off_is_asked_for_again(serve: Callable[[Reply], Server], connect: Any) -> None:
    whole = json.dumps({"predictions": [[0.5, 0.5]]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole)}\r\nConnection: close\r\n\r\n".encode()
    server = serve(lambda _, number: (200, lambda file: file.write(head + (whole[:9] if number == 1 else whole))))
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=QUICK)
    assert endpoint(np.zeros((1, 1))).tolist() == [[0.5, 0.5]]
    assert endpoint.retries == 1 and "IncompleteRead" in endpoint.trouble[0]


def test_an_endpoint_that_stays_down_stops_the_run(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(lambda body, _: (500, "no"))
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=Limits(per_second=1e6, pause_s=0.001, attempts=2))
    with pytest.raises(TargetError, match=r"failed 2 times, the last with status 500: '\"no\"'"):
        endpoint(np.zeros((1, 1)))
    server.http.shutdown()
    server.http.server_close()
    fresh = connect(server.url, ["a"], ["0", "1"], limits=Limits(per_second=1e6, pause_s=0.001, attempts=2))
    with pytest.raises(TargetError, match="Connection"):
        fresh(np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (400, {"error": "bad"}, "refuses a query with status 400"),
        (200, b"<html>", "answers what is not JSON: '<html>'"),
        (200, {"result": 1}, "the path 'predictions' leads to no probabilities"),
        (200, {"predictions": [[1.0, 0.0]]}, "answers 1 of 2 queries"),
        (200, {"predictions": [{"0": 1.0}, {"0": 1.0}]}, "KeyError: '1'"),
    ],
)
def test_a_wrong_answer_is_named_and_not_retried(
    serve: Callable[[Reply], Server], connect: Any, status: int, answer: Any, why: str
) -> None:
    server = serve(lambda body, _: (status, answer))
    with pytest.raises(TargetError, match=why):
        connect(server.url, ["a"], ["0", "1"], limits=QUICK)(np.zeros((2, 1)))
    assert len(server.seen) == 1


def test_the_rate_is_kept(serve: Callable[[Reply], Server], connect: Any) -> None:
    server = serve(_first_of_ten)
    endpoint = connect(server.url, ["a"], ["0", "1"], limits=Limits(per_second=100.0, rows=5))
    begins = time.monotonic()
    endpoint(np.zeros((30, 1)))
    assert time.monotonic() - begins >= 0.24  # 25 queries before the last request


def test_only_this_machine_is_attacked_unless_the_user_owns_the_endpoint() -> None:
    with pytest.raises(ConfigError, match=r"is not on this machine .*--i-own-this-endpoint"):
        Endpoint("http://192.0.2.7/predict", ["a"], ["0", "1"])
    with pytest.raises(ConfigError, match="is not on this machine"):
        Endpoint("http://0.0.0.0/predict", ["a"], ["0", "1"])
    Endpoint("http://192.0.2.7/predict", ["a"], ["0", "1"], owned=True)
    Endpoint("http://[::1]:8000/predict", ["a"], ["0", "1"])
    Endpoint("http://localhost:8000/predict", ["a"], ["0", "1"])


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"expected http.*has no \$row, .*must be above 0"):
        Endpoint("ftp://x", ["a"], ["0"], form=Form({"x": "$rows", "y": "$row"}), limits=Limits(per_second=0))


def test_a_server_on_one_address_of_localhost_is_found(
    serve: Callable[[Reply], Server], connect: Callable[..., Endpoint]
) -> None:
    server = serve(_first_of_ten)  # on 127.0.0.1 alone, where localhost may be ::1 too
    endpoint = connect(server.url.replace("127.0.0.1", "localhost"), ["a"], ["0", "1"], limits=QUICK)
    assert endpoint(np.array([[5.0]])).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("url", "settings", "sentence"),
    [
        ("http://127.0.0.1/é", {}, "blanks or letters beyond ASCII"),
        ("http://127.0.0.1/a b", {}, "blanks or letters beyond ASCII"),
        ("http://[::1", {}, "the endpoint is no address"),
        (f"http://{70 * 'a'}/", {}, "is not known"),
        ("http://127.0.0.1/", {"limits": Limits(timeout_s=-1.0)}, "timeout must be above 0 and finite"),
        ("http://127.0.0.1/", {"limits": Limits(timeout_s=0.0)}, "timeout must be above 0 and finite"),
        ("http://127.0.0.1/", {"form": Form(headers={"X-Key": "s3cret→"})}, "header 'X-Key' has characters"),
    ],
)
def test_what_http_cannot_send_is_refused_before_it_is_asked(url: str, settings: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Endpoint(url, ["a"], ["0", "1"], **settings)
    assert "s3cret" not in str(caught.value)


def test_no_sentence_shows_the_query_of_the_address(
    serve: Callable[[Reply], Server], connect: Callable[..., Endpoint]
) -> None:
    for status, answer in ((403, {}), (200, b"<html>"), (200, {"other": 1})):
        server = serve(lambda body, number, status=status, answer=answer: (status, answer))
        endpoint = connect(f"{server.url}?api_key=s3cret", ["a"], ["0", "1"], limits=QUICK)
        with pytest.raises(TargetError, match=r"127.0.0.1:\d+/predict") as caught:
            endpoint(np.array([[5.0]]))
        assert "s3cret" not in str(caught.value)
