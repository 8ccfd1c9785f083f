"""From labelled sessions to a bundle: nothing leaks, the same seed gives the same bytes, a kill breaks nothing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probewatch.bundle import MANIFEST, Bundle, read_bundle
from probewatch.data.profile import Records, build_profile
from probewatch.data.records import Sessions
from probewatch.errors import ConfigError, DataError, OutputError
from probewatch.learn.detector import _mean_history, train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.resume import digest_labels
from probewatch.learn.trial import evaluate_detector

FEW = ("log_odds", "log_gap", "nearest_distance", "changed_share")  # so that boosting is quick


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report" / "metrics.json").read_text()))


def test_the_mean_loss_has_a_stopped_network_at_its_best_epoch() -> None:
    def history(*losses: float) -> list[dict[str, float]]:
        return [{"epoch": at, "train_loss": loss, "valid_loss": loss} for at, loss in enumerate(losses, 1)]

    mean = _mean_history([history(4.0, 1.0, 2.0), history(3.0, 3.0, 2.0, 1.0, 1.0)])
    assert [row["epoch"] for row in mean] == [1, 2, 3, 4, 5]
    assert [row["valid_loss"] for row in mean] == [3.5, 2.0, 2.0, 1.0, 1.0]


def test_training_finds_the_probing_and_leaves_a_whole_bundle(bundle: Bundle) -> None:
    metrics = _metrics(bundle.folder)
    assert metrics["roc_auc"] > 0.9
    assert metrics["n"] == bundle.manifest["data"]["test"]
    assert not (bundle.folder / ".partial").exists()
    assert (bundle.folder / "report" / "index.html").exists()
    assert (bundle.folder / "README.md").read_text().startswith("---\nlibrary_name: probewatch")


def test_metrics_have_the_promised_keys(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    _, metrics = train_detector(labelled, replace(quick, features=FEW), tmp_path)
    keys = {
        "n", "loss", "accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "tpr_at_fpr_0.01",
        "tpr_at_fpr_0.001", "threshold", "tpr_at_threshold", "fpr_at_threshold", "confusion_matrix",
    }  # fmt: skip
    assert keys | {"families", "delay", "intervals", "allowed", "rivals"} <= set(metrics)
    assert 0.5 < metrics["finished"]["roc_auc"] <= 1.0
    assert set(metrics["rivals"]) == {"boosting", "logistic", "count_per_hour", "prada", "near_duplicates"}
    for rival in metrics["rivals"].values():
        assert keys <= set(rival)
    assert set(metrics["delay"]) == {"median", "p90"}
    assert all(set(family) >= {"n", "rate"} for family in metrics["families"].values())
    assert metrics["loss"] is not None


def test_the_same_seed_gives_the_same_bytes(labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path) -> None:
    train_detector(labelled, quick, tmp_path, rivals=False)
    assert _files(tmp_path) == _files(bundle.folder)


def test_another_seed_gives_other_weights(labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path) -> None:
    other, _ = train_detector(labelled, replace(quick, seed=1), tmp_path, rivals=False)
    assert other.graph != bundle.graph


def test_a_killed_run_keeps_the_old_bundle_and_resumes_to_the_same_bytes(
    labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path
) -> None:
    train_detector(labelled, replace(quick, epochs=1), tmp_path, rivals=False)
    old = (tmp_path / MANIFEST).read_bytes()
    seen = 0

    def stop(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 6:  # in the middle of the second network
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector(labelled, quick, tmp_path, rivals=False, told=stop)
    assert (tmp_path / MANIFEST).read_bytes() == old
    read_bundle(tmp_path)
    epochs = []
    train_detector(labelled, quick, tmp_path, rivals=False, resume=True, told=lambda *told: epochs.append(told))
    assert len(epochs) == 2, "only what was missing is trained"
    assert _files(tmp_path) == _files(bundle.folder)


def test_a_checkpoint_of_another_run_is_not_resumed(
    labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector(labelled, replace(quick, seed=9), tmp_path, rivals=False, told=stop)
    train_detector(labelled, quick, tmp_path, rivals=False, resume=True)
    assert _files(tmp_path) == _files(bundle.folder)


def _stop_after(epochs: int) -> Any:
    seen: list[Any] = []

    def stop(*told: Any) -> None:
        seen.append(told)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return stop


def test_resuming_says_from_where_or_why_not(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    notes: list[str] = []
    train = partial(train_detector, labelled, rivals=False, resume=True, note=notes.append)
    for config, epochs in ((quick, 3), (quick, 3), (replace(quick, seed=9), 2)):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path, told=_stop_after(epochs))
    elsewhere = replace(labelled.sessions, confidence=labelled.sessions.confidence / 2)
    for data in (replace(labelled, sha256="other"), replace(labelled, sha256="other", sessions=elsewhere)):
        with pytest.raises(KeyboardInterrupt):
            train_detector(data, quick, tmp_path, resume=True, note=notes.append, told=_stop_after(1))
    assert notes == [
        f"Nothing to resume, so training starts anew: no stopped run is in {tmp_path}.",
        "Resuming the stopped run after epoch 3 of network 1.",
        "Nothing to resume, so training starts anew: the stopped run had other settings (seed).",
        "Nothing to resume, so training starts anew: the stopped run had another log.",
        "Nothing to resume, so training starts anew: the stopped run read the log in another way (--map, --gap).",
    ]


def test_a_run_with_other_profiles_is_another_run(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    known = [
        replace(labelled, profiles={"credit": build_profile(_records(random), _records(random), bytes(16), "credit")})
        for _ in range(2)
    ]
    config = replace(quick, features=(*FEW, "member_ratio"), epochs=2)
    notes: list[str] = []
    train = partial(train_detector, config=config, folder=tmp_path, rivals=False, resume=True, note=notes.append)
    for data in (known[0], known[1], labelled):
        with pytest.raises(KeyboardInterrupt):
            train(data, told=_stop_after(1))
    train(labelled)
    with pytest.raises(KeyboardInterrupt):
        train(known[1], told=_stop_after(1))
    anew = "Nothing to resume, so training starts anew: "
    assert notes[1:] == [
        f"{anew}the stopped run had other profiles.",
        f"{anew}the stopped run had other profiles.",
        "Resuming the stopped run after epoch 1 of network 1.",
        f"{anew}no stopped run is in {tmp_path}.",
    ]


def _records(random: np.random.Generator) -> Records:
    return Records(random.normal(size=(60, 6)), random.uniform(0.5, 1.0, 60))


def test_resuming_a_finished_run_trains_nothing(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    _, metrics = train_detector(labelled, quick, tmp_path, rivals=False)
    before = _files(tmp_path)
    notes: list[str] = []
    bundle, again = train_detector(
        labelled, quick, tmp_path, rivals=False, resume=True, told=_stop_after(1), note=notes.append
    )
    assert notes == [f"{tmp_path}: this very run has ended; nothing is left to train."]
    assert _files(tmp_path) == before
    assert (bundle.threshold, again["roc_auc"]) == (metrics["threshold"], metrics["roc_auc"])
    with pytest.raises(ConfigError, match="its threshold was chosen with another max_fpr; train it anew without"):
        train_detector(labelled, replace(quick, max_fpr=0.2), tmp_path, rivals=False, resume=True)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("column", ["label", "allowed", "other", "family", "actor", "target"])
def test_a_run_whose_labels_tell_something_else_is_another_run(labelled: Labelled, column: str) -> None:
    known = np.zeros(len(labelled.label), object)
    known[:] = ""
    told = replace(labelled, actor=known, target=known, other=np.zeros(len(known), bool))
    assert digest_labels(told) == digest_labels(labelled), "what is not given is empty"
    changed = np.array(getattr(told, column))
    changed[0] = "another" if changed.dtype == object else 1 - changed[0]
    assert digest_labels(replace(told, **{column: changed})) != digest_labels(told)
    swapped = np.array(known)
    swapped[0] = "another"
    assert digest_labels(replace(told, family=swapped)) != digest_labels(replace(told, family=known, target=swapped))


def test_resuming_a_finished_run_whose_families_were_renamed_makes_the_report_anew(
    labelled: Labelled, quick: Config, tmp_path: Path
) -> None:
    config = replace(quick, features=FEW, epochs=1)
    train_detector(labelled, config, tmp_path, rivals=False)
    renamed = replace(labelled, family=np.array([f"my {name}" for name in labelled.family], object))
    notes: list[str] = []
    _, metrics = train_detector(renamed, config, tmp_path, rivals=False, resume=True, note=notes.append)
    assert set(metrics["families"]) <= {f"my {name}" for name in labelled.family}
    assert notes == [f"Nothing to resume, so training starts anew: no stopped run is in {tmp_path}."]


def test_another_budget_on_resuming_changes_the_threshold_alone(
    labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_detector(labelled, quick, tmp_path, rivals=False, told=_stop_after(6))
    epochs: list[Any] = []
    changed, _ = train_detector(
        labelled, replace(quick, max_fpr=0.5), tmp_path, rivals=False, resume=True, told=lambda *one: epochs.append(one)
    )
    assert len(epochs) == 2, "only what was missing is trained"
    own, theirs = (one.folder / one.manifest["files"]["weights"] for one in (changed, bundle))
    assert own.read_bytes() == theirs.read_bytes()  # the graph also shifts poorer views by their thresholds
    assert changed.threshold < bundle.threshold


def test_a_folder_of_other_things_is_refused_and_left_alone(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(OutputError, match="it holds other things than a detector"):
            train_detector(labelled, quick, tmp_path, rivals=False, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_report_or_bundle_on_a_full_disk_is_a_sentence(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / ".README.md.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"bundle: the bundle cannot be written there \(No space left"):
        train_detector(labelled, quick, folder, rivals=False)
    assert [path.name for path in folder.rglob("*.partial")] == [".partial"], "the checkpoints stay for --resume"
    notes: list[str] = []
    train_detector(labelled, quick, folder, rivals=False, resume=True, note=notes.append, told=_stop_after(1))
    assert notes == ["Resuming the stopped run after epoch 4 of network 2; 1 before it is trained."]


def _shuffled_test_labels(data: Labelled, bundle: Bundle) -> Labelled:
    label = data.label.copy()
    held = bundle.holds_out(data.sessions)
    random = np.random.default_rng(0)
    confidence = data.sessions.confidence.copy()
    inside = np.repeat(held, data.sessions.lengths)
    confidence[inside] = random.uniform(0.5, 1.0, int(inside.sum()))
    return replace(data, sessions=replace(data.sessions, confidence=confidence), label=label)


def test_the_content_of_test_sessions_reaches_nothing_that_is_learned(
    labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path
) -> None:
    other, _ = train_detector(_shuffled_test_labels(labelled, bundle), quick, tmp_path, rivals=False)
    assert other.graph == bundle.graph
    assert other.threshold == bundle.threshold
    assert {name: scale.to_json() for name, scale in other.scales.items()} == {
        name: scale.to_json() for name, scale in bundle.scales.items()
    }
    assert other.manifest["baseline"] == bundle.manifest["baseline"]


def test_families_reach_nothing_that_is_learned(
    labelled: Labelled, quick: Config, bundle: Bundle, tmp_path: Path
) -> None:
    renamed = replace(labelled, family=np.array([f"f{index}" for index in range(len(labelled.label))], object))
    other, _ = train_detector(renamed, quick, tmp_path, rivals=False)
    assert other.graph == bundle.graph
    assert other.threshold == bundle.threshold


def test_other_attacks_are_left_out_and_have_their_own_row(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    other = np.isin(labelled.sessions.client.astype(str), ["user-0", "user-3"])
    family = np.where(other, "extraction", labelled.family)
    data = replace(labelled, other=other, label=np.where(other, -1, labelled.label).astype(np.int8), family=family)
    bundle, metrics = train_detector(data, replace(quick, features=FEW), tmp_path)
    parts = bundle.manifest["data"]
    assert parts["train"] + parts["valid"] + parts["test"] == (~other).sum()
    row = metrics["other_attacks"]
    assert row["n"] == row["families"]["extraction"]["n"] == 6 and 0 <= row["rate"] <= 1
    assert "extraction" not in metrics["families"] and metrics["n"] == parts["test"]
    assert "Alerts on other attacks" in (tmp_path / "report" / "index.html").read_text()


def test_the_clients_of_one_actor_stay_together(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    number = np.array([int(str(name).partition("-")[2]) for name in labelled.sessions.client])
    actor = np.array([f"actor-{one // 6}-{one % 3 == 0}" if one % 2 else "" for one in number], object)
    train_detector(replace(labelled, actor=actor), quick, tmp_path, rivals=False)
    with (tmp_path / "report" / "predictions.csv").open(newline="") as file:
        split = {row["session"]: row["split"] == "test" for row in csv.DictReader(file)}
    held: dict[str, set[bool]] = {}
    for session, client, name in zip(labelled.sessions.session, labelled.sessions.client, actor, strict=True):
        held.setdefault(name or client, set()).add(split[session])
    assert all(len(found) == 1 for found in held.values()) and len(held) < 24


def test_allowed_clients_are_left_out_and_have_their_own_row(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    allowed = np.isin(labelled.sessions.client.astype(str), ["user-1", "user-2"])
    data = replace(labelled, allowed=allowed)
    bundle, metrics = train_detector(data, quick, tmp_path, rivals=False)
    assert bundle.manifest["data"]["allowed"] == allowed.sum() == 6
    parts = bundle.manifest["data"]
    assert parts["train"] + parts["valid"] + parts["test"] == (~allowed).sum()
    assert metrics["allowed"]["n"] == 6
    assert metrics["n"] == parts["test"]


def test_on_its_own_log_only_the_test_sessions_count(labelled: Labelled, bundle: Bundle, tmp_path: Path) -> None:
    metrics = evaluate_detector(bundle, labelled, tmp_path)
    own = _metrics(bundle.folder)
    assert metrics["n"] == own["n"]
    assert metrics["roc_auc"] == own["roc_auc"]
    assert "only the sessions of its test split count" in metrics["notes"][0]


def test_its_own_log_is_known_in_another_form_too(labelled: Labelled, bundle: Bundle, tmp_path: Path) -> None:
    metrics = evaluate_detector(bundle, replace(labelled, sha256="unpacked"), tmp_path)
    assert metrics["n"] == _metrics(bundle.folder)["n"]


def test_on_another_log_all_labelled_sessions_count(labelled: Labelled, bundle: Bundle, tmp_path: Path) -> None:
    later = replace(labelled.sessions, time_s=labelled.sessions.time_s + 1.0)
    metrics = evaluate_detector(bundle, replace(labelled, sessions=later, sha256="another"), tmp_path)
    assert metrics["n"] == len(labelled.label)


def test_clients_and_models_that_training_met_or_did_not_are_told(
    labelled: Labelled, bundle: Bundle, tmp_path: Path
) -> None:
    own = evaluate_detector(bundle, labelled, tmp_path)
    assert own["overlap"]["known_clients"] == 0, "its test split holds other clients than its training"
    assert len(own["notes"]) == 1
    later = replace(labelled.sessions, time_s=labelled.sessions.time_s + 1.0)
    same = evaluate_detector(bundle, replace(labelled, sessions=later, sha256="another"), tmp_path)
    held = own["overlap"]["clients"]
    assert same["overlap"] == {
        "clients": 24,
        "known_clients": 24 - held,
        "models": 1,
        "new_models": [],
        "unscaled_models": [],
    }
    assert same["notes"] == [
        f"{24 - held} of 24 clients were in the detector's training; it may do better on them than on others."
    ]
    named = replace(
        labelled.sessions,
        client=np.array([f"new-{name}" for name in labelled.sessions.client], object),
        model=np.where(labelled.label == 1, "wine", "credit").astype(object),
    )
    new = evaluate_detector(bundle, replace(labelled, sessions=named, sha256="another"), tmp_path)
    assert new["overlap"] == {
        "clients": 24,
        "known_clients": 0,
        "models": 2,
        "new_models": ["wine"],
        "unscaled_models": ["wine"],
    }
    assert "1 of 2 models was not in the detector's training (wine)" in new["notes"][0]


def test_a_log_without_labels_cannot_be_evaluated(labelled: Labelled, bundle: Bundle, tmp_path: Path) -> None:
    unknown = replace(labelled, label=np.full(len(labelled.label), -1, np.int8))
    with pytest.raises(DataError, match="no labelled session to evaluate on; give --labels"):
        evaluate_detector(bundle, unknown, tmp_path)
    with pytest.raises(DataError, match="has 0 attack sessions"):
        train_detector(unknown, PRESETS["default"], tmp_path)


def test_a_budget_that_the_sample_cannot_support_is_refused(labelled: Labelled, quick: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.001"):
        train_detector(labelled, replace(quick, max_fpr=0.001), tmp_path, rivals=False)


def test_the_article_preset_refuses_a_log_without_inputs(labelled: Labelled, tmp_path: Path) -> None:
    sessions: Sessions = replace(
        labelled.sessions, inputs=np.zeros(0), input_offsets=np.zeros(len(labelled.sessions.time_s) + 1, np.int64)
    )
    with pytest.raises(DataError, match=r"lack what is needed for distance_from_anchor_vector"):
        train_detector(replace(labelled, sessions=sessions), PRESETS["article"], tmp_path)


def test_a_log_with_the_fewest_sessions_that_a_split_takes_is_trained_and_its_rivals_told(
    labelled: Labelled, quick: Config, tmp_path: Path
) -> None:
    config = replace(quick, epochs=1, split="stratified", test_share=0.2, valid_share=0.2)
    metrics = train_detector(_twelve_of_each(labelled), config, tmp_path)[1]
    assert all(0 <= one["fpr_at_threshold"] <= 1 for one in metrics["rivals"].values())


def test_one_network_without_benign_sessions_for_any_budget_is_refused_before_it_is_trained(
    labelled: Labelled, quick: Config, tmp_path: Path
) -> None:
    config = replace(quick, folds=1, split="stratified", test_share=0.2, valid_share=0.2, features=FEW)
    with pytest.raises(DataError, match=r"at least 4 benign sessions to measure it on, found [23]"):
        train_detector(_twelve_of_each(labelled), config, tmp_path, told=_stop_after(1))


def _twelve_of_each(data: Labelled) -> Labelled:
    label = np.full(len(data.label), -1, np.int8)
    for kind in (0, 1):
        of_kind = np.random.default_rng(0).permutation(np.flatnonzero(data.label == kind))[:12]
        label[of_kind] = kind
    return replace(data, label=label)
