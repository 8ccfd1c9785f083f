"""A watch's numbers in Prometheus' text format, in a file or on a port; no client's name is in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from probewatch.data.artefacts import replace_file
from probewatch.errors import ConfigError, OutputError

NAMES = {  # ours -> kind, name and labels, what it says
    "read": ("counter", "lines_total", "lines read"),
    "events": ("counter", "events_total", "events scored"),
    "rejects": ("counter", "rejects_total", "lines that are no valid query"),
    "skipped": ("counter", "skipped_total", "lines of other kinds of event"),
    "duplicates": ("counter", "duplicates_total", "events whose request id was known"),
    "late": ("counter", "late_total", "events older than the last of their session"),
    "lag_s": ("gauge", "lag_seconds", "from the time of the latest event to now"),
    "waiting": ("gauge", "waiting_events", "events that wait for earlier ones"),
    "sessions": ("gauge", "sessions", "sessions held"),
    "evicted_idle": ("counter", 'evictions_total{reason="idle"}', "sessions forgotten"),
    "evicted_crowded": ("counter", 'evictions_total{reason="crowded"}', "sessions forgotten"),
    "incidents": ("counter", "incidents_total", "incidents opened"),
    "open_incidents": ("gauge", "open_incidents", "incidents that last"),
    "alerts": ("counter", "alerts_total", "findings told to the sinks"),
    "dead_letters": ("counter", "dead_letters_total", "findings that the webhook did not take"),
    "client_days": ("gauge", "client_days", "days on which a client asked, summed over clients, about"),
    "alerts_per_client_day": ("gauge", "alerts_per_client_day", "incidents opened per client-day"),
    "seconds": ("counter", "score_seconds_sum", "seconds spent on scoring"),
    "timed": ("counter", "score_seconds_count", "events scored in them"),
}


def to_text(numbers: Mapping[str, float]) -> str:
    """The numbers that :data:`NAMES` knows, in version 0.0.4 of the format.

    >>> print(to_text({"events": 3}), end="")
    # HELP probewatch_events_total events scored
    # TYPE probewatch_events_total counter
    probewatch_events_total 3
    """
    lines: list[str] = []
    for key, (kind, name, text) in NAMES.items():
        if key not in numbers:
            continue
        family = f"probewatch_{name.split('{')[0]}"
        if f"# TYPE {family} {kind}" not in lines:
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]
        lines.append(f"probewatch_{name} {numbers[key]:.12g}")
    return "\n".join(lines) + "\n"


class Metrics:
    """Where the numbers are shown: a file that is replaced, or ``/metrics`` on a port of this host only.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(self, target: str) -> None:
        self._text = to_text({})
        self._path = None if target.isdecimal() else Path(target)
        if self._path and not self._path.name:
            raise ConfigError(f"--metrics {target}: is no file and no port; give one of them.")
        self._server: ThreadingHTTPServer | None = None
        if self._path is None:
            try:
                self._server = _Server(("127.0.0.1", int(target)), _handler(lambda: self._text))
            except (OSError, OverflowError) as error:
                raise ConfigError(f"--metrics {target}: the port cannot be used ({error}); choose another.") from error
            threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def port(self) -> int:
        """The port, 0 for a file."""
        return int(self._server.server_address[1]) if self._server else 0

    def show(self, numbers: Mapping[str, float]) -> None:
        """Replace what is shown.

        Raises:
            OutputError: the file cannot be written.
        """
        self._text = to_text(numbers)
        if self._path:
            try:
                replace_file(self._path, self._text.encode("ascii"))
            except OSError as error:
                raise OutputError(
                    f"--metrics {self._path}: cannot be written ({error.strerror}); choose another file."
                ) from error

    def close(self) -> None:
        """Stop answering."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a reader who went away."""


def _handler(text: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.split("?")[0] == "/metrics"
            body = text().encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: standard error is for the watch."""

    return Handler
