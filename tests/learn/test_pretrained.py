"""The trees that come with the package fit the features that there are, or stay away."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from probewatch.data.columns import ARTICLE, DEFAULT
from probewatch.data.ragged import Ragged
from probewatch.learn import pretrained
from probewatch.learn.pretrained import pretrained_trees, write_trees
from probewatch.learn.trees import Trees, grow_habits


def test_they_ask_for_the_same_features_in_any_order() -> None:
    trees, turned = pretrained_trees(DEFAULT), pretrained_trees(DEFAULT[::-1])
    assert trees is not None and turned is not None
    asks = trees.feature >= 0
    assert [DEFAULT[at] for at in trees.feature[asks]] == [DEFAULT[::-1][at] for at in turned.feature[asks]]
    np.testing.assert_array_equal(trees.feature < 0, turned.feature < 0)


def test_they_stay_away_where_a_feature_is_missing() -> None:
    assert pretrained_trees(ARTICLE) is None
    assert pretrained_trees([name for name in DEFAULT if name != "log_odds"]) is None


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    views = Ragged(random.normal(size=(4000, 3)).astype(np.float32), np.arange(0, 4001, 10))
    label = (views.values[::10, 2] > 0).astype(np.int8)
    grown = grow_habits([views], [], label, np.arange(400), 0)
    write_trees(tmp_path / "probewatch.safetensors", grown, DEFAULT[:3])
    monkeypatch.setattr(pretrained, "files", lambda _: tmp_path)
    monkeypatch.setattr(pretrained, "FILE", "probewatch.safetensors")
    pretrained._read.cache_clear()
    found = pretrained_trees(DEFAULT)
    pretrained._read.cache_clear()
    assert isinstance(found, Trees)
    for field in fields(Trees):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(grown, field.name))
