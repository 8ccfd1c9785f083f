"""Alerts a day at a day's traffic are another way to say a rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probewatch.errors import ConfigError
from probewatch.learn.budget import daily_fpr, read_settings
from probewatch.learn.presets import Config
from probewatch.serve.reading import choose_config


def test_two_alerts_a_day_at_a_thousand_sessions_are_two_in_a_thousand() -> None:
    assert daily_fpr({"max_alerts_per_day": 2, "sessions_per_day": 1000}) == 0.002


@pytest.mark.parametrize(
    ("daily", "reason"),
    [
        ({"max_alerts_per_day": 2}, "sessions_per_day is missing, one is nothing without the other"),
        ({"sessions_per_day": "many"}, "max_alerts_per_day is missing, .*; sessions_per_day is 'many'"),
        ({"max_alerts_per_day": 0, "sessions_per_day": 10}, "max_alerts_per_day is 0"),
        ({"max_alerts_per_day": True, "sessions_per_day": float("inf")}, "is True, .*; sessions_per_day is inf"),
        ({"max_alerts_per_day": 10, "sessions_per_day": 10}, "10 at 10 sessions_per_day, expected fewer alerts"),
    ],
)
def test_what_is_no_budget_is_a_sentence(daily: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        daily_fpr(daily)


def test_a_file_may_say_either_and_the_command_line_comes_after_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("hidden = 8\nmax_alerts_per_day = 5\nsessions_per_day = 1000\n")
    config = choose_config("default", path, {})
    assert (config.hidden, config.max_fpr) == (8, 0.005)
    assert choose_config("default", path, {"max_fpr": 0.25}).max_fpr == 0.25
    assert choose_config("default", path, {"max_alerts_per_day": 10.0, "sessions_per_day": None}).max_fpr == 0.01
    with pytest.raises(ConfigError, match="both given"):
        choose_config("default", path, {"max_alerts_per_day": 1.0, "max_fpr": 0.1})


def test_a_file_with_two_budgets_or_another_mistake_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("max_fpr = 0.1\nsessions_per_day = 1000\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: max_fpr and sessions_per_day are both set"):
        read_settings(path, Config())
    path.write_text("hiden = 1\nsessions_per_day = 1000\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: .*'hiden' is no setting"):
        read_settings(path, Config())
    path.write_text("= broken")
    with pytest.raises(ConfigError, match="the configuration is not TOML"):
        read_settings(path, Config())
