"""Where alerts go: a file, standard output, a webhook. Nothing here answers the client that asked."""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from probewatch.errors import ConfigError, OutputError

ATTEMPTS = 5
FIRST_PAUSE_S = 1.0  # doubled after each attempt
TIMEOUT_S = 10.0
WAITING = 1000  # alerts that wait for a webhook; beyond, they go to the dead-letter file at once
LAST_WAIT_S = 15.0  # for a webhook, when the watch ends

WHITE = frozenset(map(chr, range(33))) | {"\x7f"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Take a redirect for a refusal: to follow it would turn the POST into a GET, which delivers nothing."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirect)

Entry = tuple[int, str]
"""Number and line of an alert."""


class Sink(Protocol):
    """A place that takes alerts in their order."""

    name: str

    @property
    def progress(self) -> tuple[int, int]:
        """Number of the last alert that needs nothing more, and a mark of the sink's own."""

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Take new alerts."""

    def close(self) -> None:
        """Finish what can be finished."""


class AlertFile:
    """A file of JSON lines that alerts are appended to, each once, whatever a killed run had written.

    Args:
        path: is made if it is not there.
        mark: its length when its progress was last noted; None for the length it has.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, upto: int = 0, mark: int | None = None) -> None:
        self.name = f"file:{path.resolve()}"
        self._path = path
        self._upto = upto
        self._known: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise ConfigError(f"{path}: no plain file, and findings are appended to one; choose another --alerts.")
            self._file = path.open("a+b")
            size = self._file.seek(0, os.SEEK_END)
            if mark is None:
                self._end_line(size)
            else:
                self._go_on(mark if mark <= size else 0)  # shorter: the file is another one
        except OSError as error:
            raise self._refused(error) from error

    def _end_line(self, size: int) -> None:
        """Begin on a line of its own, whatever another run left."""
        self._file.seek(max(size - 1, 0))
        if self._file.read() not in (b"", b"\n"):
            self._file.write(b"\n")

    def _go_on(self, start: int) -> None:
        """Know the lines behind ``start``, without the one that a killed run did not finish: it is written again."""
        self._file.seek(start)
        tail = self._file.read()
        whole = tail.rfind(b"\n") + 1
        self._file.truncate(start + whole)
        self._known = {uid for line in tail[:whole].splitlines() if (uid := _uid(line))}

    @property
    def progress(self) -> tuple[int, int]:
        """See :class:`Sink`; the mark is the file's length."""
        return self._upto, self._file.seek(0, os.SEEK_END)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Append what the file lacks, and see it onto the disk."""
        lines = [line for number, line in entries if number > self._upto]
        fresh = [line for line in lines if not self._known or _uid(line.encode()) not in self._known]
        try:
            if fresh:
                self._file.write("".join(fresh).encode())
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._upto = max([self._upto, *(number for number, _ in entries)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path}: alerts cannot be written ({error.strerror}); choose another --alerts.")


class Output:
    """Standard output; after a restart the last alerts may come again."""

    name = "stdout"

    def __init__(self, upto: int = 0) -> None:
        self._upto = upto

    @property
    def progress(self) -> tuple[int, int]:
        """See :class:`Sink`."""
        return self._upto, 0

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Print the lines."""
        try:
            sys.stdout.write("".join(line for number, line in entries if number > self._upto))
            sys.stdout.flush()
        except OSError as error:
            raise OutputError("standard output was closed; give --alerts FILE to write alerts to.") from error
        self._upto = max([self._upto, *(number for number, _ in entries)])

    def close(self) -> None:
        """Nothing is left to do."""


class Webhook:
    """Posts each alert to a URL from a thread of its own; what fails for good goes to the dead-letter file.

    An alert is posted at least once: after a restart the last ones may come again, with the same ``uid``.

    Raises:
        ConfigError: no http or https URL, or one with a name and password in it.
    """

    def __init__(
        self,
        url: str,
        dead_letter: Path,
        upto: int = 0,
        *,
        pause_s: float = FIRST_PAUSE_S,
        told: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or set(url) & WHITE:
            raise ConfigError("--webhook is no URL of http or https; give one, such as https://siem.example/alerts.")
        if parts.username is not None:
            raise ConfigError("--webhook has a name or password before the host, which is not sent; leave it out.")
        self.name = "webhook"
        self._host = parts.hostname
        self._url, self._dead_letter, self._pause_s, self._told = url, dead_letter, pause_s, told
        self._waiting: deque[Entry] = deque()
        self._taken = self._upto = upto
        self._changed = threading.Condition()
        self._ends = self._kept = False
        self.dead = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> tuple[int, int]:
        """See :class:`Sink`."""
        return self._upto, 0

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Queue the alerts; the oldest go to the dead-letter file where too many wait."""
        with self._changed:
            fresh = [entry for entry in entries if entry[0] > self._taken]
            self._waiting.extend(fresh)
            self._taken = max([self._taken, *(number for number, _ in fresh)])
            while len(self._waiting) > WAITING:
                self._bury(self._waiting.popleft(), "too many alerts wait")
            self._changed.notify()

    def close(self, *, kept: bool = False) -> None:
        """Wait a while for what is queued; what is then left goes to the dead-letter file, if it is not ``kept``."""
        with self._changed:
            self._ends, self._kept = True, kept
            self._changed.notify()
        self._thread.join(LAST_WAIT_S)
        with self._changed:
            while self._waiting and not kept:
                self._bury(self._waiting.popleft(), "the watch ended")
            self._waiting.clear()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ends:
                    self._changed.wait()
                if not self._waiting:
                    return
                entry = self._waiting[0]
            reason = self._post(entry[1])
            with self._changed:
                if reason and self._kept:
                    return
                if self._waiting and self._waiting[0] is entry:
                    self._waiting.popleft()
                    if reason:
                        self._bury(entry, reason)
                    self._upto = max(self._upto, entry[0])

    def _post(self, line: str) -> str:
        """Why it failed for good; empty if it did not."""
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                with self._changed:
                    self._changed.wait_for(lambda: self._ends, self._pause_s * 2 ** (attempt - 1))
            request = urllib.request.Request(
                self._url, line.encode(), {"Content-Type": "application/json", "User-Agent": "probewatch"}
            )
            try:
                with OPENER.open(request, timeout=TIMEOUT_S):
                    return ""
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}"
                if error.code < 500 and error.code not in (408, 425, 429):
                    return reason  # it would be refused again
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = type(getattr(error, "reason", error)).__name__
        return reason

    def _bury(self, entry: Entry, reason: str) -> None:
        self.dead += 1
        self._upto = max(self._upto, entry[0])
        try:
            with self._dead_letter.open("a", encoding="ascii") as file:
                form = {"time": time.time(), "reason": reason, "finding": json.loads(entry[1])}
                file.write(json.dumps(form) + "\n")
        except OSError as error:
            self._told(f"{self._dead_letter}: a dead letter cannot be written ({error.strerror}); the alert is lost.")
        else:
            self._told(f"webhook {self._host}: {reason}; the alert went to {self._dead_letter}.")


def _uid(line: bytes) -> str:
    try:
        return str(json.loads(line)["metadata"]["uid"])
    except (ValueError, KeyError, TypeError):
        return ""
