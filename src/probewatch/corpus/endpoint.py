"""An HTTP endpoint that predicts: JSON in, JSON out, at a limited rate, with retries that are counted."""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.bounded import answer_by, read_at_most
from probewatch.errors import ConfigError, TargetError

ONE = ("$row", "$record")  # placeholders of one query a request
MANY = ("$rows", "$records")  # of several
UNKNOWN_CALLER = (401, 403, 407)
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may cure
KEPT_TROUBLE = 1000  # sentences about failed attempts that are kept
SHOWN_REPLY = 200  # characters of a reply that an error shows
LONGEST_WAIT_S = 300.0  # that an endpoint may ask for between attempts
CONNECT_S = 1.0  # for a connection to an address of this machine
ANSWER_BYTES, QUERY_BYTES = 1 << 20, 1 << 18  # that an answer may have, and more of it for each query


@dataclass(frozen=True)
class Form:
    """How an endpoint is asked and where its answer lies.

    Attributes:
        body: JSON whose string ``"$rows"`` becomes a list of rows, ``"$records"`` a list of objects by column;
            ``"$row"`` and ``"$record"`` send one query a request.
        path: dotted way to the probabilities, a number for a place in a list, ``*`` for every query of a
            request: ``predictions`` or ``results.*.probabilities``.
        headers: sent along, as an authorisation; kept out of every file.
    """

    body: Any = field(default_factory=lambda: {"instances": "$rows"})
    path: str = "predictions"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How hard an endpoint may be asked.

    Attributes:
        per_second: queries a second at most, above 0.
        workers: requests at once.
        rows: queries a request at most, where the form sends several.
        timeout_s: of one request, to the last byte of its answer.
        attempts: for one request, before the run stops.
        pause_s: before the second attempt; it doubles with each.
    """

    per_second: float = 200.0
    workers: int = 4
    rows: int = 64
    timeout_s: float = 30.0
    attempts: int = 6
    pause_s: float = 0.25


class Endpoint:
    """Predicts by asking an endpoint; counts of requests and of trouble are its state.

    Args:
        url: ``http://…`` or ``https://…``. Redirects and proxies are not followed.
        columns: (D,) names, for ``$record``.
        spelled: (n, D) inputs to the rows that are sent; without, each number is sent as it is.
        classes: names of the classes, where an answer is an object by class.
        owned: the user says that the endpoint is theirs; without, it must be on this machine.

    Raises:
        ConfigError: the address, form or limits are wrong; all mistakes are named.
    """

    def __init__(
        self,
        url: str,
        columns: Sequence[str],
        classes: Sequence[str],
        *,
        spelled: Callable[[NDArray[np.float64]], list[list[Any]]] | None = None,
        form: Form | None = None,
        limits: Limits | None = None,
        owned: bool = False,
    ) -> None:
        self.requests = 0
        self.retries = self.repeated = 0  # failed requests, and the queries in them
        self.trouble: list[str] = []
        self._form = form or Form()
        self._limits = limits or Limits()
        self._url = _checked(url, self._form, self._limits)
        self.shown = without_secrets(self._url)
        self._address = None if owned else _loopback(self._url)
        self._columns, self._classes = tuple(columns), tuple(classes)
        self._spelled = spelled or np.ndarray.tolist
        self._single = _placeholder(self._form.body) in ONE
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._idle: list[http.client.HTTPConnection] = []
        self._workers: ThreadPoolExecutor | None = None

    def __call__(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, D) inputs to their (n, C) answers, in order, whatever order they came in.

        Raises:
            TargetError: every attempt failed, the endpoint refuses, or the path leads to no probabilities.
        """
        size = 1 if self._single else self._limits.rows
        parts = [inputs[begin : begin + size] for begin in range(0, len(inputs), size)]
        self._workers = self._workers or ThreadPoolExecutor(self._limits.workers)
        answers = list(self._workers.map(self._ask, parts))
        return np.concatenate([self._read(answer, len(part)) for answer, part in zip(answers, parts, strict=True)])

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)
            self._workers = None
        while self._idle:
            self._idle.pop().close()

    def _ask(self, inputs: NDArray[np.float64]) -> Any:
        body = json.dumps(_filled(self._form.body, self._values(inputs))).encode()
        pause_s = self._limits.pause_s
        for attempt in range(1, self._limits.attempts + 1):
            self._wait(len(inputs))
            try:
                status, reply, wait_s = self._post(body, ANSWER_BYTES + QUERY_BYTES * len(inputs))
                problem = f"status {status}: {_start(reply)}"
                if 200 <= status < 300:
                    return self._parse(reply)
                if status not in PASSING:
                    asked = "--header (a key?)" if status in UNKNOWN_CALLER else "--body (the form of a request)"
                    raise TargetError(f"{self.shown} refuses a query with {problem}; see {asked}.")
            except (OSError, http.client.HTTPException) as error:
                problem, wait_s = f"{type(error).__name__}: {error}", 0.0
            self._note(f"attempt {attempt} of {self._limits.attempts}: {problem}", len(inputs))
            if attempt < self._limits.attempts:
                time.sleep(max(pause_s, wait_s))
                pause_s *= 2.0
        raise TargetError(
            f"{self.shown} failed {self._limits.attempts} times, the last with {problem};"
            " see that it is up, then run the same command again: it goes on where it stopped."
        )

    def _parse(self, reply: bytes) -> Any:
        try:
            return json.loads(reply)
        except (ValueError, RecursionError) as error:
            raise TargetError(f"{self.shown} answers what is not JSON: {_start(reply)}.") from error

    def _values(self, inputs: NDArray[np.float64]) -> Any:
        rows: list[Any] = self._spelled(inputs)
        if _placeholder(self._form.body) in ("$record", "$records"):
            rows = [dict(zip(self._columns, row, strict=True)) for row in rows]
        return rows[0] if self._single else rows

    def _post(self, body: bytes, most: int) -> tuple[int, bytes, float]:
        """Status, reply of at most so many bytes, and the seconds that the endpoint asks to wait."""
        ends_s = time.monotonic() + self._limits.timeout_s
        connection = self._connection()
        way = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        headers = {"Host": self._url.netloc.rpartition("@")[2], "Content-Type": "application/json"}
        try:
            connection.request("POST", way, body, {**headers, **self._form.headers})
            with self._lock:
                self.requests += 1
            response = answer_by(connection, ends_s)
            status, asked = response.status, response.getheader("Retry-After", "")
            reply = read_at_most(response, most)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return status, reply, min(float(asked), LONGEST_WAIT_S) if asked.isascii() and asked.isdigit() else 0.0

    def _connection(self) -> http.client.HTTPConnection:
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            if idle.sock is not None:
                idle.sock.settimeout(self._limits.timeout_s)  # the last answer has left it what it did not need
            return idle
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        host = self._address if self._address and not secure else self._url.hostname
        return kind(str(host), self._url.port, timeout=self._limits.timeout_s)

    def _wait(self, rows: int) -> None:
        """Sleep until the rate allows so many queries more."""
        with self._lock:
            begins = max(time.monotonic(), self._free_at)
            self._free_at = begins + rows / self._limits.per_second
        time.sleep(max(0.0, begins - time.monotonic()))

    def _note(self, sentence: str, queries: int) -> None:
        with self._lock:
            self.retries += 1
            self.repeated += queries
            if len(self.trouble) < KEPT_TROUBLE:
                self.trouble.append(sentence)

    def _read(self, answer: Any, rows: int) -> NDArray[np.float64]:
        try:
            found = _follow(answer, self._form.path.split(".") if self._form.path else [])
            table = [self._by_class(row) for row in ([found] if self._single else found)]
            values = np.array(table, np.float64)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TargetError(
                f"{self.shown}: the path {self._form.path!r} leads to no probabilities in"
                f" {_start(json.dumps(answer).encode())} ({type(error).__name__}: {error}); give --response-path."
            ) from error
        if len(values) != rows:
            raise TargetError(f"{self.shown} answers {len(values)} of {rows} queries.")
        return values

    def _by_class(self, row: Any) -> Any:
        return [row[name] for name in self._classes] if isinstance(row, Mapping) else row


def _checked(url: str, form: Form, limits: Limits) -> SplitResult:
    mistakes = []
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"the endpoint is no address ({error}), expected http://HOST[:PORT]/PATH.") from error
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
        mistakes.append(f"the endpoint is {without_secrets(parts)!r}, expected http://HOST[:PORT]/PATH")
    elif not url.isascii() or any(character <= " " for character in url):
        mistakes.append("the endpoint's address has blanks or letters beyond ASCII, expected them as %20 and the like")
    for name, value in form.headers.items():
        if not name.isascii() or any(not " " <= character <= "\xff" for character in name + value):
            mistakes.append(f"the header {name!r} has characters that HTTP has not, expected Latin-1")
    if _placeholder(form.body) is None:
        mistakes.append(f"the body {json.dumps(form.body)} has no {', '.join(ONE + MANY)}, expected one of them once")
    counts = (limits.per_second, limits.workers, limits.rows, limits.attempts, limits.timeout_s)
    if not all(0 < count < math.inf for count in counts):
        mistakes.append(f"rate, workers, rows, attempts and timeout must be above 0 and finite, they are {limits}")
    if mistakes:
        raise ConfigError(f"{'; '.join(mistakes)}.")
    return parts


def _loopback(url: SplitResult) -> str:
    """The host's address, which must be of this machine."""
    try:
        found = socket.getaddrinfo(url.hostname, _port(url), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the endpoint's host {url.hostname!r} is not known: {error}.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise ConfigError(
            f"the endpoint {without_secrets(url)} is not on this machine ({addresses[0]});"
            " attack only what is yours, and say so with --i-own-this-endpoint."
        )
    for address in addresses:  # a server may listen on one of localhost's alone
        try:
            socket.create_connection((address, _port(url)), CONNECT_S).close()
        except OSError:
            continue
        return address
    return addresses[0]


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def without_secrets(url: SplitResult) -> str:
    """An address as it may be shown and kept: without a name, a password or a query."""
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()


def hidden(body: Any) -> Any:
    """A body as it may be kept: its names and placeholder, every other value a dot.

    >>> hidden({"key": "s3cret", "rows": "$rows"})
    {'key': '·', 'rows': '$rows'}
    """
    if isinstance(body, Mapping):
        return {name: hidden(part) for name, part in body.items()}
    if isinstance(body, list):
        return [hidden(part) for part in body]
    return body if body in ONE + MANY else "·"


def _placeholder(body: Any) -> str | None:
    """The one placeholder of a body; None where there is none or more than one."""
    found = [text for text in _strings(body) if text in ONE + MANY]
    return found[0] if len(found) == 1 else None


def _strings(body: Any) -> list[str]:
    if isinstance(body, str):
        return [body]
    parts = body.values() if isinstance(body, Mapping) else body if isinstance(body, list) else ()
    return [text for part in parts for text in _strings(part)]


def _filled(body: Any, values: Any) -> Any:
    if isinstance(body, str):
        return values if body in ONE + MANY else body
    if isinstance(body, Mapping):
        return {name: _filled(part, values) for name, part in body.items()}
    return [_filled(part, values) for part in body] if isinstance(body, list) else body


def _follow(answer: Any, parts: Sequence[str]) -> Any:
    for place, part in enumerate(parts):
        if part == "*":
            return [_follow(one, parts[place + 1 :]) for one in answer]
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


def _start(reply: bytes) -> str:
    text = reply.decode("utf-8", "replace")
    return repr(text[:SHOWN_REPLY] + ("…" if len(text) > SHOWN_REPLY else ""))
