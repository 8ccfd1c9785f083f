"""What bounds a stream: sessions held, and the times after which something ends."""

from __future__ import annotations

from dataclasses import dataclass

from probewatch.errors import ConfigError

LEAST_SESSIONS = 4096  # four micro-batches: the sessions of one never make room for each other


@dataclass(frozen=True)
class Limits:
    """Bounds of a stream.

    Attributes:
        gap_s: where the log names no session, a client's longer pause on a model starts a new one.
        idle_s: sessions without an event for longer are forgotten; at least ``gap_s``.
        max_sessions: held at most (1 GiB if each takes 4 KiB); beyond, the least recently used one makes room.
        tolerance_s: events are put in order of time if none is further behind the latest; they are scored
            when no earlier one can come. 0: as they come.
        quiet_s: an incident without a query over the threshold for longer is resolved.
        threads: cores used.

    Raises:
        ConfigError: some are wrong; all are named.
    """

    gap_s: float = 1800.0
    idle_s: float = 86_400.0
    max_sessions: int = 262_144
    tolerance_s: float = 0.0
    quiet_s: float = 1800.0
    threads: int = 2

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} is {getattr(self, name)}, expected 0 or more seconds"
            for name in ("gap_s", "tolerance_s", "quiet_s")
            if not getattr(self, name) >= 0
        ]
        if not self.idle_s >= self.gap_s:
            mistakes.append(f"idle_s is {self.idle_s}, expected gap_s, {self.gap_s}, or more: it ends what pauses")
        if self.max_sessions < LEAST_SESSIONS:
            mistakes.append(f"max_sessions is {self.max_sessions}, expected {LEAST_SESSIONS} or more")
        if self.threads < 1:
            mistakes.append(f"threads is {self.threads}, expected 1 or more")
        if mistakes:
            raise ConfigError(f"the stream cannot be set up: {'; '.join(mistakes)}.")
