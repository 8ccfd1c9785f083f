"""Leave one out: nothing of what is left out is learned from, and the same seeds give the same table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probewatch.errors import ConfigError, DataError
from probewatch.learn.contest import OURS
from probewatch.learn.labelled import Labelled
from probewatch.learn.leave_out import leave_out, train_without
from probewatch.learn.leave_out_page import render_leave_out, verdict, write_leave_out
from probewatch.learn.networks import prepare
from probewatch.learn.presets import Config
from probewatch.learn.unseen import Thing, data_sets, divide, sessions_of, things_of

pytestmark = pytest.mark.usefixtures("one_thread")
EVERYONE = {OURS, "boosting", "logistic", "count_per_hour", "prada", "near_duplicates"}


@pytest.fixture(scope="module")
def data(labelled: Labelled) -> Labelled:
    """The shared log with two families of each kind, two data sets, and a client that serves two uses."""
    number = np.array([int(client.removeprefix("user-")) for client in labelled.sessions.client])
    task = np.array([name.rsplit("-", 1)[1] for name in labelled.sessions.session])
    names = {(1, 0): "slow", (1, 1): "fast", (0, 0): "people", (0, 1): "batch"}
    pairs = zip(labelled.label, number % 2, strict=True)
    family = np.array([names[int(label), int(odd)] for label, odd in pairs], object)
    family[(number == 1) & (task == "0")] = "people"  # its other sessions are of the use "batch"
    target = np.where(number % 4 < 2, "credit-forest", "wine-network").astype(object)
    return replace(labelled, family=family, target=target)


@pytest.fixture(scope="module")
def tiny(quick: Config) -> Config:
    """Settings under which a whole table takes seconds."""
    return replace(quick, features=("log_odds", "log_gap", "nearest_distance"), epochs=1)


@pytest.fixture(scope="module")
def form(data: Labelled, tiny: Config) -> dict[str, Any]:
    """The table of families, one seed."""
    return leave_out(data, tiny, "family", seeds=1)


def test_attack_families_then_benign_uses_or_data_sets_are_left_out_in_turn(data: Labelled) -> None:
    families = [("attack", "fast"), ("attack", "slow"), ("benign", "batch"), ("benign", "people")]
    assert things_of(data, "family") == families
    assert things_of(data, "dataset") == [("dataset", "credit"), ("dataset", "wine")]
    assert things_of(data, "none") == [("none", "")]


def test_the_data_set_is_that_of_the_target_or_else_of_the_model(data: Labelled) -> None:
    some = np.where(np.arange(len(data.label)) < 5, "", data.target).astype(object)
    assert set(data_sets(replace(data, target=some))[:5]) == {"credit"}
    assert set(data_sets(replace(data, target=None))) == {"credit"}, "the model's name in the log"


def test_allow_listed_sessions_are_neither_left_out_nor_learned_from(data: Labelled, tiny: Config) -> None:
    listed = replace(data, allowed=data.sessions.client == "user-2")
    thing = Thing("benign", "people")
    parts = divide(listed, thing, tiny)
    used = np.concatenate([parts.left, parts.split.train, parts.split.valid, parts.split.test])
    assert not np.any(listed.allowed[used])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["family", "dataset", "none"])
def test_nothing_of_what_is_left_out_and_nobody_who_is_tested_is_learned_from(
    data: Labelled, tiny: Config, kind: Any, seed: int
) -> None:
    config = replace(tiny, split_seed=seed)
    for thing in things_of(data, kind):
        parts = divide(data, thing, config)
        ground = prepare(data, parts.split, config)
        used = set(ground.learned.tolist()) | set(ground.seen.tolist())
        used |= {index for fold in ground.folds for part in fold for index in part.tolist()}
        assert not used & set(sessions_of(data, thing).tolist())
        tested = set(data.sessions.client[parts.split.test])
        assert not tested & set(data.sessions.client[sorted(used)])
        assert set(parts.left) <= set(parts.split.test)


def test_an_unseen_attack_is_tested_beside_benign_sessions_of_held_out_clients_alone(
    data: Labelled, tiny: Config
) -> None:
    parts = divide(data, Thing("attack", "slow"), tiny)
    beside = np.setdiff1d(parts.split.test, parts.left)
    assert len(beside) > 0
    assert not np.any(data.label[beside])


def test_what_is_not_tested_on_is_learned_from(data: Labelled, tiny: Config) -> None:
    parts = divide(data, Thing("dataset", "wine"), tiny)
    others = np.flatnonzero(data_sets(data) == "credit")
    assert np.array_equal(np.sort(np.concatenate([parts.split.train, parts.split.valid])), others)
    assert np.array_equal(parts.split.test, parts.left)


def test_what_the_left_out_sessions_hold_changes_no_threshold(data: Labelled, tiny: Config) -> None:
    thing = Thing("benign", "people")
    before = train_without(data, (thing, tiny))
    left = np.isin(np.repeat(np.arange(len(data.sessions)), data.sessions.lengths), sessions_of(data, thing))
    wide = np.repeat(left, np.diff(data.sessions.input_offsets))
    sessions = replace(
        data.sessions,
        inputs=np.where(wide, 1e3 * data.sessions.inputs, data.sessions.inputs),
        confidence=np.where(left, 0.999, data.sessions.confidence),
    )
    after = train_without(replace(data, sessions=sessions), (thing, tiny))
    assert after.figures["tpr_at_threshold"] == before.figures["tpr_at_threshold"]
    assert after.figures["fpr_at_threshold"] != before.figures["fpr_at_threshold"]


def test_every_family_has_the_figures_of_every_detector(form: dict[str, Any], data: Labelled) -> None:
    tables = {(table["kind"], table["measure"]): table for table in form["tables"]}
    assert list(tables) == [("attack", "tpr_at_fpr"), ("benign", "fpr_at_threshold"), ("benign", "tpr_at_threshold")]
    for table in tables.values():
        for row in table["rows"]:
            assert set(row["detectors"]) == EVERYONE
            assert row["sessions"] == np.sum(data.family == row["name"])
            for one in row["detectors"].values():
                assert 0 <= one["low"] <= one["mean"] <= one["high"] <= 1
                assert len(one["seeds"]) == form["seeds"]


def test_mean_and_worst_are_those_of_the_rows(form: dict[str, Any]) -> None:
    for table in form["tables"]:
        for name in EVERYONE:
            means = {row["name"]: row["detectors"][name]["mean"] for row in table["rows"]}
            assert table["mean"][name]["mean"] == pytest.approx(np.mean(list(means.values())))
            extreme = max if table["low_is_best"] else min
            assert table["worst"][name]["mean"] == extreme(means.values())
            assert means[table["worst"][name]["name"]] == table["worst"][name]["mean"]


def test_the_table_depends_on_the_seeds_and_not_on_the_number_of_workers(data: Labelled, tiny: Config) -> None:
    told: list[tuple[int, int, str]] = []
    alone = leave_out(data, tiny, "dataset", seeds=2)
    spread = leave_out(data, tiny, "dataset", seeds=2, workers=2, told=lambda *one: told.append(one))
    assert json.dumps(alone) == json.dumps(spread)
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in told} == {4}
    ours = alone["tables"][0]["rows"][0]["detectors"][OURS]["seeds"]
    assert ours[0] != ours[1]


def test_what_cannot_be_left_out_is_skipped_with_its_reason(data: Labelled, tiny: Config) -> None:
    bare = replace(data, family=np.where(data.label == 1, "slow", data.family).astype(object))
    form = leave_out(bare, tiny, "family", seeds=1)
    assert [(one["kind"], one["name"]) for one in form["skipped"]] == [("attack", "slow")]
    assert "attack session" in form["skipped"][0]["why"]
    assert "slow could not be left out" in render_leave_out(form)


def test_labels_without_families_or_with_one_data_set_are_refused(labelled: Labelled, tiny: Config) -> None:
    with pytest.raises(DataError, match="no labelled session has a family"):
        things_of(replace(labelled, family=np.full(len(labelled.label), "", object)), "family")
    with pytest.raises(DataError, match="has 1 data set, expected at least 2"):
        things_of(labelled, "dataset")
    with pytest.raises(DataError, match="nothing could be left out, the first, people"):
        leave_out(replace(labelled, label=np.zeros_like(labelled.label)), tiny, "family", seeds=1)
    with pytest.raises(ConfigError, match="--seeds is 0 and --workers 1"):
        leave_out(labelled, tiny, "family", seeds=0)


def test_the_files_are_the_same_bytes_and_the_page_loads_nothing(form: dict[str, Any], tmp_path: Path) -> None:
    write_leave_out(tmp_path / "a", form)
    write_leave_out(tmp_path / "b", json.loads((tmp_path / "a" / "leave_out.json").read_text()))
    for name in ("leave_out.json", "leave_out.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a" / "leave_out.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "TPR of attack families that training never saw" in page


def test_a_rival_that_does_better_is_named_with_what_its_threshold_catches() -> None:
    def make_figures(ours: float, prada: float) -> dict[str, Any]:
        return {OURS: {"mean": ours}, "prada": {"mean": prada}}

    costs = {"kind": "benign", "measure": "fpr_at_threshold", "low_is_best": True, "mean": make_figures(0.1, 0.0)}
    catches = {"kind": "benign", "measure": "tpr_at_threshold", "low_is_best": False, "mean": make_figures(0.9, 0.25)}
    told = {"tables": [costs, catches]}
    said = "Better than Probewatch on average: PRADA (TPR 0.250), against Probewatch's TPR of 0.900."
    assert verdict(told, costs) == said
    assert verdict(told, catches) == "No rival does better than Probewatch on average."
