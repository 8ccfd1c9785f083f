from __future__ import annotations

import csv
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.benchmark import (
    FURTHER_ATTACKS,
    FURTHER_USES,
    NEW_ATTACKS,
    NEW_USES,
    PARTS,
    RULES,
    TEST,
    TRAIN,
    make_benchmark,
)
from probewatch.corpus.clients import USES
from probewatch.corpus.datasets import DATASETS, load_dataset
from probewatch.corpus.learners import LEARNERS
from probewatch.errors import ConfigError
from probewatch.serve.cli import app

SESSIONS = 125


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("benchmark")
    words = ["corpus", "--benchmark", "--out", str(out), "--sessions", str(SESSIONS), "--json"]
    return out, CliRunner().invoke(app, words)


@pytest.fixture(scope="module")
def folder(built: tuple[Path, Result]) -> Path:
    assert built[1].exit_code == 0, built[1].output
    return built[0]


@pytest.fixture(scope="module")
def labels(folder: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for part in PARTS:
        with (folder / part.name / "labels.csv").open(newline="") as file:
            found[part.name] = list(csv.DictReader(file))
    return found


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_plan_is_as_wide_as_it_claims() -> None:
    models = [*TRAIN.models, *TEST.models]
    assert len({data for data, *_ in models}) >= 4
    assert {LEARNERS[learner].kind for _, learner, _ in models} == {"logistic", "trees", "mlp"}
    for part in PARTS:
        assert len(part.models) >= 6
        assert {DATASETS[data].shape for data, *_ in part.models} >= {"mixed", "pixels"}
    assert sum(weight > 0 for weight in TRAIN.attacks.values()) == 9


def test_the_test_part_has_other_data_and_families_and_uses_that_training_never_saw(
    labels: dict[str, list[dict[str, str]]],
) -> None:
    targets = {name: {row["target"].split("-")[0] for row in rows} for name, rows in labels.items()}
    assert not targets["train"] & targets["test"]
    families = {name: {row["family"] for row in rows} for name, rows in labels.items()}
    assert not families["train"] & {*NEW_ATTACKS, *NEW_USES}
    assert families["test"] >= {*NEW_ATTACKS, "grid_sweep", "shap", "retries"}
    assert families["test"] & families["train"]
    assert not (families["train"] | families["test"]) & families["further"]
    assert families["further"] <= {*FURTHER_ATTACKS, *FURTHER_USES}


def test_a_part_is_a_labelled_log_with_its_targets(folder: Path, labels: dict[str, list[dict[str, str]]]) -> None:
    assert sum(map(len, labels.values())) == SESSIONS
    for part in PARTS:
        own = folder / part.name
        with gzip.open(own / "events.jsonl.gz", "rt") as file:
            models = {json.loads(line)["details"]["modelName"] for line in file}
        assert models == {row["target"] for row in labels[part.name]}
        for data, learner, members in part.models:
            with gzip.open(own / "targets" / f"{data}-{learner}" / "train.jsonl.gz", "rt") as file:
                assert sum(1 for _ in file) == members
            assert (own / "targets" / f"{data}-{learner}" / "holdout.jsonl.gz").is_file()
        assert (own / "allow.txt").is_file() and (own / "manifest.json").is_file()


def test_the_command_prints_the_manifest(built: tuple[Path, Result], folder: Path, manifest: dict[str, Any]) -> None:
    assert json.loads(built[1].stdout) == manifest


def test_the_manifest_has_rules_versions_and_what_is_new(folder: Path, manifest: dict[str, Any]) -> None:
    assert manifest["sessions"] == SESSIONS and manifest["seed"] == 0 and manifest["rules"]
    assert manifest["versions"]["statsmodels"] and manifest["versions"]["scikit-learn"]
    assert manifest["only_in_further"] == {"attacks": list(FURTHER_ATTACKS), "uses": list(FURTHER_USES)}
    assert manifest["only_in_test"]["data"] == sorted({data for data, *_ in TEST.models})
    for name, part in manifest["parts"].items():
        assert set(part["give_aways"]) >= {"roc_auc", "goal", "holds"}
        for file, sha256 in part["files"].items():
            assert hashlib.sha256((folder / name / file).read_bytes()).hexdigest() == sha256


def test_the_same_seed_gives_the_same_bytes_and_parts_that_are_done_are_kept(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    before = _hashes(folder)
    (folder / "test" / "labels.csv").write_text("broken")
    make_benchmark(folder, sessions=SESSIONS, told=lambda what, *_: told.append(what))
    assert _hashes(folder) == before
    assert {what.split(":")[0] for what in told} == {"test"}


def test_the_page_has_every_model_and_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text("utf-8")
    for part in PARTS:
        for data, learner, members in part.models:
            row = next(line for line in page.splitlines() if f"| {part.name} | `{data}-{learner}` |" in line)
            assert row.endswith(f" {members} |") and DATASETS[data].text in row and LEARNERS[learner].text in row
    assert all(rule in page for rule in RULES)
    assert all(f"`{family}`" in page for family in (*NEW_ATTACKS, *NEW_USES, *FURTHER_ATTACKS, *FURTHER_USES))


def test_too_few_sessions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--sessions is 20, expected at least 125"):
        make_benchmark(tmp_path, sessions=20)


@pytest.mark.parametrize("name", [*DATASETS, *(f"drawn-{number}" for number in range(12))])
def test_a_data_set_is_always_the_same_and_has_no_doubles(name: str) -> None:
    first, again = load_dataset(name), load_dataset(name)
    assert np.array_equal(first.inputs, again.inputs) and np.array_equal(first.label, again.label)
    assert np.isfinite(first.inputs).all()
    assert len(np.unique(first.inputs, axis=0)) == len(first)
    assert np.bincount(first.label).min() > 40


def test_drawn_data_sets_are_of_many_kinds() -> None:
    drawn = [load_dataset(f"drawn-{number}").inputs for number in range(30)]
    whole = np.array([np.mean(inputs == np.rint(inputs)) for inputs in drawn])
    assert np.any(whole == 1.0) and np.any(whole < 0.3) and np.any((whole > 0.4) & (whole < 0.9))
    assert len({inputs.shape[1] for inputs in drawn}) > 10
    assert any(inputs.shape[1] in (36, 64, 100) and inputs.max() in (16, 255) for inputs in drawn)  # pictures


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(ConfigError, match="the data set is 'mnist', expected one of: cancer"):
        load_dataset("mnist")


def test_the_further_part_has_every_further_family() -> None:
    assert {name for name, one in (ATTACKS | USES).items() if one.further} == {*FURTHER_ATTACKS, *FURTHER_USES}
