"""Splits and scaling cannot leak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, offsets_of
from probewatch.errors import DataError
from probewatch.learn.dataset import Scaler, folds_by_client, split_sessions
from probewatch.learn.presets import Config

CONFIG = Config()


def _sessions(clients: list[int], starts: list[float] | None = None) -> Sessions:
    """Sessions of two queries, one second apart."""
    count = len(clients)
    begins = np.array(starts if starts is not None else range(count), float)
    names = np.array([f"c{client}" for client in clients], object)
    return Sessions(
        session=np.array([f"s{index}" for index in range(count)], object), client=names,
        model=np.full(count, "m", object), offsets=offsets_of(np.full(count, 2)),
        time_s=np.column_stack([begins, begins + 1]).ravel(), confidence=np.full(2 * count, 0.5),
        predicted_class=np.zeros(2 * count, np.int64), inputs=np.zeros(0),
        input_offsets=np.zeros(2 * count + 1, np.int64),
        label=np.zeros(count, np.int8), before=np.zeros(count, np.int64), ends=np.ones(count, bool),
    )  # fmt: skip


def _all(count: int) -> Any:
    return np.ones(count, bool)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(0, 2**31), st.sampled_from(["client", "stratified", "time"]))
def test_no_session_is_in_two_parts(clients: int, seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(clients), random.integers(0, clients, 3 * clients)])
    label = (owner % 2).astype(np.int8)
    sessions = _sessions(owner.tolist(), random.uniform(0, 1e6, len(owner)).tolist())
    try:
        split = split_sessions(sessions, label, _all(len(owner)), replace(CONFIG, split=kind, split_seed=seed))
    except DataError:
        return
    parts = [split.train, split.valid, split.test]
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined)
    if kind == "client":
        sets = [set(owner[part]) for part in parts]
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    if kind == "time":
        ends = sessions.time_s[1::2]
        begins = sessions.time_s[::2]
        assert ends[split.train].max() <= begins[split.valid].min()
        assert ends[np.concatenate([split.train, split.valid])].max() <= begins[split.test].min()


def test_the_stratified_split_is_the_articles() -> None:
    label = (np.arange(200) % 5 < 2).astype(np.int8)
    split = split_sessions(_sessions(list(range(200))), label, _all(200), replace(CONFIG, split="stratified"))
    rest, test = train_test_split(np.arange(200), test_size=0.3, random_state=42, stratify=label)
    train, valid = train_test_split(rest, test_size=0.2, random_state=42, stratify=label[rest])
    assert [len(split.train), len(split.valid), len(split.test)] == [112, 28, 60]
    for got, wanted in ((split.train, train), (split.valid, valid), (split.test, test)):
        assert got.tolist() == wanted.tolist()


def test_what_is_not_eligible_goes_nowhere() -> None:
    label = (np.arange(80) % 2).astype(np.int8)
    eligible = np.arange(80) >= 20
    split = split_sessions(_sessions(list(range(80))), label, eligible, CONFIG)
    assert min(part.min() for part in (split.train, split.valid, split.test)) >= 20
    assert (split.names(80)[:20] == "left out").all()
    assert set(split.names(80)[20:]) == {"train", "valid", "test"}


@pytest.mark.parametrize("kind", ["client", "stratified", "time"])
def test_one_class_is_a_sentence(kind: str) -> None:
    with pytest.raises(DataError, match=r"has 0 attack sessions, expected at least 2; give --labels"):
        split_sessions(_sessions(list(range(9))), np.zeros(9, np.int8), _all(9), replace(CONFIG, split=kind))


def test_three_clients_are_a_sentence() -> None:
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], np.int8)
    with pytest.raises(DataError, match="the log has 1 attacking client, expected at least 2"):
        split_sessions(_sessions([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), label, _all(10), CONFIG)


def test_each_fold_holds_other_clients_and_all_are_held_once() -> None:
    owner = np.repeat(np.arange(20), 3)
    label = (owner % 4 == 0).astype(np.int8)
    indices = np.arange(5, 60)
    folds = folds_by_client(_sessions(owner.tolist()), label, indices, 5, 0)
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == indices.tolist()
    for rest, held in folds:
        assert not set(owner[rest]) & set(owner[held])
        assert len(np.unique(label[held])) == 2


def test_folds_of_one_attacker_are_a_sentence() -> None:
    label = np.array([1, 1, 0, 0], np.int8)
    with pytest.raises(DataError, match="fewer than 2 clients of one class"):
        folds_by_client(_sessions([0, 0, 1, 2]), label, np.arange(4), 5, 0)


def test_the_scaler_is_scikit_learns_over_the_steps_it_was_given() -> None:
    random = np.random.default_rng(0)
    train = Ragged.from_list([random.normal(3, 2, (steps, 4)) for steps in (3, 9, 1)])
    other = Ragged.from_list([random.normal(-50, 9, (5, 4))])
    scaler = Scaler.fit(train)
    reference = StandardScaler().fit(train.values)
    np.testing.assert_allclose(scaler.transform(other).values, reference.transform(other.values), rtol=1e-5)


def test_missing_features_become_zero_and_a_flag_of_their_group() -> None:
    train = Ragged.from_list([[[1.0, 2.0, 5.0], [3.0, 6.0, 5.0]]])
    scaler = Scaler.fit(train, groups=["inputs", "inputs", "time"])
    gaps = Ragged.from_list([[[np.nan, 4.0, 5.0], [np.nan, np.nan, 5.0], [2.0, 4.0, 7.0]]])
    assert scaler.transform(gaps).values.tolist() == [[0, 0, 0, 0.5], [0, 0, 0, 1.0], [0, 0, 2, 0]]


def test_a_feature_that_no_training_session_has_is_harmless() -> None:
    train = Ragged.from_list([[[1.0, np.nan], [3.0, np.nan]]])
    scaled = Scaler.fit(train, groups=["time", "inputs"]).transform(train).values
    assert np.isfinite(scaled).all()


def test_the_limit_cuts_wild_values() -> None:
    scaler = Scaler.fit(Ragged.from_list([[[0.0], [2.0]]]), limit=3.0)
    assert scaler.transform(Ragged.from_list([[[1e9], [-1e9]]])).values.tolist() == [[3.0], [-3.0]]
