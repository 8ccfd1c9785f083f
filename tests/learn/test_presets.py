"""Configurations: every mistake named at once, in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from probewatch.errors import ConfigError
from probewatch.learn.budget import read_settings
from probewatch.learn.presets import PRESETS, Config


def test_the_article_preset_is_the_articles_system() -> None:
    article = PRESETS["article"]
    assert article.features == ("response_confidence", "time_delta_since_last_query", "distance_from_anchor_vector")
    assert (article.split, article.test_share, article.valid_share, article.split_seed) == ("stratified", 0.3, 0.2, 42)
    assert (article.steps, article.batch, article.hidden, article.layers, article.dropout) == (150, 16, 64, 1, 0.5)
    assert (article.learning_rate, article.epochs, article.patience, article.clip) == (1e-3, 100, 10, 1.0)
    assert (article.threshold, article.decision, article.folds, article.weight_decay) == (0.5, "last", 1, 0.0)
    assert not (article.every_step or article.balanced or article.bidirectional)


def test_a_toml_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('hidden = 32\nfeatures = ["log_odds", "log_gap"]\nlearning_rate = 1\nbalanced = false\n')
    config = read_settings(path, Config())[0]
    assert (config.hidden, config.features, config.balanced) == (32, ("log_odds", "log_gap"), False)
    assert config.learning_rate == 1.0
    assert config.batch == Config().batch


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('hiden = 32\nbatch = "many"\nepochs = 1.5\nbalanced = 1\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: The configuration is wrong") as told:
        read_settings(path, Config())[0]
    for part in ("'hiden' is no setting", "batch is 'many', expected a whole number", "epochs is 1.5", "balanced is 1"):
        assert part in str(told.value)


def test_values_out_of_range_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"dropout is 1\.0, expected from 0 to below 1; learning_rate is 0") as told:
        Config(dropout=1.0, learning_rate=0.0, features=("log_odds", "moon"))
    assert "moon" in str(told.value)


def test_a_bidirectional_network_cannot_decide_by_its_peak() -> None:
    with pytest.raises(ConfigError, match="bidirectional reads a session from its end"):
        Config(bidirectional=True)
    Config(bidirectional=True, every_step=False, decision="last")


@pytest.mark.parametrize("content", [b"= broken", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_broken_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="the configuration is not TOML"):
        read_settings(path, Config())[0]


def test_json_form_makes_the_same_configuration_again() -> None:
    for preset in PRESETS.values():
        assert Config().with_changes(preset.to_json()) == preset


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400])
@pytest.mark.parametrize("name", ["epochs", "learning_rate"])
def test_numbers_that_are_none_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is "):
        Config().with_changes({name: value})
