"""What steers a watch's input: signals that end it, lines that an earlier run had, and a replay's pace."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probewatch.data.events import Events
    from probewatch.data.live import Lines, LiveReader

HEAD = 16  # first lines by which an input is known again
PAUSE_S = 86_400.0
TICK_S = 0.25  # between looks at signals, waiting events and metrics when nothing comes


class Signals:
    """While it is entered, SIGTERM and Ctrl-C are noted instead of ending the process; a second one ends it.

    Attributes:
        caught: number of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = number


class Consumed:
    """How many lines of standard input are behind the state: those are passed over if it begins as it did then.

    Its first lines tell that. One that differs among them ends the passing over: of another log that begins alike, as
    each does whose first line is a header, only the lines that are the same are passed over.
    """

    def __init__(self, position: dict[str, Any]) -> None:
        self._known: list[str] = position.get("head", [])
        self._left = int(position.get("lines", 0)) if self._known else 0
        self._head: list[str] = []
        self._heads = True  # whether it is known which lines come next
        self._lines = 0
        self.continues = False

    @property
    def position(self) -> dict[str, Any]:
        """What to keep."""
        return {"head": self._head, "lines": self._lines}

    def leave_last(self) -> None:
        """Count the last line as not consumed: it comes again, whole."""
        self._lines -= 1
        del self._head[self._lines :]

    def skip(self, lines: Lines, reader: LiveReader) -> Lines:
        """The lines that are new."""
        from probewatch.data.live import Lines

        if not lines.count:
            return lines
        before = self._lines
        self._heads = self._heads and not lines.dropped  # one without its bytes may stand anywhere among these
        if self._heads and len(self._head) < HEAD:
            first = lines.content.split(b"\n", HEAD)[: min(lines.count, HEAD - len(self._head))]
            self._head += [blake2b(line, digest_size=8).hexdigest() for line in first]
            pairs = list(zip(self._head, self._known, strict=False))
            alike = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            if alike < len(pairs) and not self.continues:
                self.continues, self._left = True, max(min(self._left, alike - before), 0)
        self._lines += lines.count
        if not self._left:
            return lines
        passed = min(self._left, lines.count)
        self._left -= passed
        reader.skip(passed)
        if passed == lines.count:
            return Lines(b"", 0)
        rest = lines.content
        for _ in range(passed - lines.dropped):
            rest = rest[rest.index(b"\n") + 1 :]
        return Lines(rest, lines.count - passed)


class Pace:
    """Cuts a replay so that its time goes ``speed`` times as fast as the clock; None: as fast as it can.

    A pause longer than a day is passed over: one wrong time would else hold up all that follows.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[float, float] | None = None

    def cut(self, events: Events, stop: Callable[[], bool], wait: Callable[[], None]) -> Iterator[Events]:
        """The events in pieces, each when its time has come.

        Args:
            events: ordered by time, following those before.
            stop: whether to give no more.
            wait: called while nothing is due.
        """
        import numpy as np

        if self._speed is None:
            if len(events) and not stop():
                yield events
            return
        at = 0
        while at < len(events) and not stop():
            now = time.monotonic()
            self._began = self._began or (now, float(events.time_s[at]))
            reached = self._began[1] + (now - self._began[0]) * self._speed
            if events.time_s[at] - reached > PAUSE_S:
                reached = float(events.time_s[at])
                self._began = now, reached
            due = int(np.searchsorted(events.time_s, reached, side="right"))
            if due > at:
                yield events.slice(at, due)
                at = due
                continue
            wait()
            time.sleep(min((float(events.time_s[at]) - reached) / self._speed, TICK_S))
