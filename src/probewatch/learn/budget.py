"""The budget of false alarms said as alerts a day."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probewatch.data.rejects import is_finite
from probewatch.data.wording import listed
from probewatch.errors import ConfigError
from probewatch.learn.presets import Config, read_table

DAILY = ("max_alerts_per_day", "sessions_per_day")
"""Two settings of the command line and of a TOML file that stand for one of a run, ``max_fpr``."""


def daily_fpr(daily: Mapping[str, Any]) -> float:
    """The share of sessions that may alert, from the false alarms that a day may bring at its traffic.

    >>> daily_fpr({"max_alerts_per_day": 5, "sessions_per_day": 2000})
    0.0025

    Args:
        daily: both of :data:`DAILY`, numbers above 0.

    Raises:
        ConfigError: one is missing or no such number, or the alerts are not fewer than the sessions.
    """
    wrong = [
        f"{name} is {daily[name]!r}, expected a number above 0"
        if daily.get(name) is not None
        else f"{name} is missing, one is nothing without the other"
        for name in DAILY
        if not _counts(daily, name)
    ]
    if wrong:
        raise ConfigError(f"The budget of false alarms is wrong: {'; '.join(wrong)}.")
    alerts, sessions = (float(daily[name]) for name in DAILY)
    if alerts >= sessions:
        raise ConfigError(
            f"max_alerts_per_day is {alerts:g} at {sessions:g} sessions_per_day, expected fewer alerts than sessions."
        )
    return alerts / sessions


def read_settings(path: Path | str, base: Config) -> tuple[Config, dict[str, Any]]:
    """``base`` with the settings of a TOML file, and those of :data:`DAILY` that it holds.

    Raises:
        ConfigError: the file cannot be read or holds mistakes.
    """
    settings = read_table(path)
    daily = {name: settings.pop(name) for name in DAILY if name in settings}
    if daily and "max_fpr" in settings:
        raise ConfigError(f"{path}: max_fpr and {listed(daily)} are both set, expected one budget of false alarms.")
    try:
        return base.with_changes(settings), daily
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _counts(daily: Mapping[str, Any], name: str) -> bool:
    value = daily.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value) and value > 0
