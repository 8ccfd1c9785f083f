from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probewatch.errors import ConfigError, DataError
from probewatch.learn.entry import RUNGS, read_predictions, read_truth, score_entry

ROWS = [  # session, client, attack, family
    *((f"attack_{number}", f"bad_{number}", "membership", "rmia" if number % 2 else "lira") for number in range(8)),
    *((f"benign_{number}", f"good_{number}", "none", "shap" if number % 2 else "batch") for number in range(12)),
    ("copy", "thief", "extraction", "extraction"),
    ("rescore", "office", "none", "rescoring"),
]


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    told = {
        "only_in_test": {"attacks": ["rmia"], "uses": ["shap"]}, "only_in_further": {"attacks": [], "uses": []},
        "parts": {"train": {}, "test": {}},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    own = tmp_path / "test"
    own.mkdir()
    lines = [f"{session},{client},{client},{int(attack != 'none')},{attack},{family},model"
             for session, client, attack, family in ROWS]  # fmt: skip
    (own / "labels.csv").write_text("task_id,client,actor,is_malicious,attack,family,target\n" + "\n".join(lines))
    (own / "allow.txt").write_text("office\n")
    return tmp_path


def _entry(folder: Path, rows: list[str], head: str = "session,score,alert") -> Path:
    path = folder / "predictions.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def _perfect(alert: bool = True) -> list[str]:
    """In another order than the truth's."""
    found = [(session, int(attack == "membership")) for session, _, attack, _ in ROWS]
    return [f"{session},{score / 2}" + (f",{score}" if alert else "") for session, score in reversed(found)]


def test_the_truth_has_attacks_allowed_clients_and_what_is_new(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    assert truth.label.sum() == 8
    assert truth.session[truth.other].tolist() == ["copy"] and truth.session[truth.allowed].tolist() == ["rescore"]
    assert set(truth.family[truth.new]) == {"rmia", "shap"}


def test_an_entry_has_figures_over_all_and_by_what_is_new(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    found = score_entry(truth, *read_predictions(_entry(benchmark, _perfect()), truth))
    assert (found["roc_auc"], found["n_attacks"], found["n_benign"]) == (1.0, 8, 12)
    assert (found["tpr_at_threshold"], found["fpr_at_threshold"]) == (1.0, 0.0)
    assert found["other_attacks"]["n"] == 1 and found["allowed"] == {"n": 1, "rate": 0.0}
    assert {name: (row["n_attacks"], row["n_benign"]) for name, row in found["rungs"].items()} == dict.fromkeys(
        RUNGS, (4, 6)
    )


def test_rungs_rank_known_and_new_apart(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    score = np.where(truth.label == 1, 1.0, 0.0)
    score[truth.family == "rmia"] = -1.0  # new attacks are missed, and new uses are no trouble
    rungs = score_entry(truth, score)["rungs"]
    assert [row["roc_auc"] for row in rungs.values()] == [1.0, 0.0, 1.0, 0.0]


def test_without_alerts_nothing_is_said_of_a_threshold(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    path = _entry(benchmark, _perfect(alert=False), "session,score")
    found = score_entry(truth, *read_predictions(path, truth))
    assert found["roc_auc"] == 1.0 and "tpr_at_threshold" not in found and "families" not in found


def test_more_columns_are_passed_over_and_alerts_may_be_words(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    rows = [f"{session},x,0.5,{word},1" for (session, *_), word in zip(ROWS, ["True", "false"] * 11, strict=True)]
    score, alert = read_predictions(_entry(benchmark, rows, "session,client,score,alert,events"), truth)
    assert set(score) == {0.5} and alert is not None and alert.tolist() == [True, False] * 11


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[1:], "has no score for 1 of 22 sessions, as rescore"),
        (lambda rows: [*rows, "nobody,0.1,0"], "csv:24: 'nobody' is no session of this part"),
        (lambda rows: [*rows, rows[0]], "csv:24: 'rescore' has a second score"),
        (lambda rows: ["rescore,nan,0", *rows[1:]], "csv:2: score is 'nan', expected a finite number"),
        (lambda rows: ["rescore,,0", *rows[1:]], "csv:2: score is '', expected a finite number"),
        (lambda rows: ["rescore,0.1,maybe", *rows[1:]], "csv:2: alert is 'maybe', expected 1, 0, true or false"),
    ],
)
def test_a_wrong_entry_is_told_with_its_line(benchmark: Path, change, why: str) -> None:
    path = _entry(benchmark, change(_perfect()))
    with pytest.raises(DataError, match=why):
        read_predictions(path, read_truth(benchmark, "test"))


def test_a_file_without_scores_or_at_all_is_named(benchmark: Path) -> None:
    truth = read_truth(benchmark, "test")
    with pytest.raises(DataError, match="has no column score; expected session,score"):
        read_predictions(_entry(benchmark, ["a"], "session"), truth)
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_predictions(benchmark / "absent.csv", truth)


def test_a_folder_that_is_no_benchmark_and_a_part_it_has_not_are_named(benchmark: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no whole benchmark; write one with probewatch corpus --benchmark"):
        read_truth(tmp_path / "absent", "test")
    with pytest.raises(ConfigError, match="the part is 'valid', expected one of: train, test"):
        read_truth(benchmark, "valid")
