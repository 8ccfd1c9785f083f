"""The detector that comes with the package."""

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from probewatch.bundle import read_bundle, read_own
from probewatch.data.logs import read_logs
from probewatch.score.batch import Scorer
from probewatch.serve.cli import app


def test_it_loads_and_is_small() -> None:
    bundle = read_own()
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 2_000_000
    assert bundle.manifest["streams"]
    assert "On what it never saw" in (bundle.folder / "README.md").read_text("utf-8")


def test_a_log_is_scored_without_any_training(tmp_path: Path) -> None:
    with as_file(files("probewatch") / "sample") as sample:
        log, targets = sample / "new.jsonl.gz", sample / "targets"
        out = tmp_path / "verdicts.csv"
        ran = CliRunner().invoke(app, ["score", str(log), "--targets", str(targets), "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert 0 < told["alerts"] < told["sessions"]
    assert out.exists()


def test_a_folder_alone_lacks_a_log(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["score", str(tmp_path)])
    assert ran.exit_code == 2
    assert "expected a LOG" in " ".join(ran.output.split())


def test_it_knows_no_model_by_name() -> None:
    own = read_own()
    trained_on = read_bundle(own.folder).scales
    with as_file(files("probewatch") / "sample") as sample, read_logs([sample / "new.jsonl.gz"]) as log:
        (sessions,) = log.sessions()
    names = dict(zip(np.unique(sessions.model), trained_on, strict=False))
    namesake = replace(sessions, model=np.array([names[model] for model in sessions.model], object))
    (theirs,), (namesakes,) = (Scorer(own).score([one], why=False) for one in (sessions, namesake))
    np.testing.assert_array_equal(namesakes.score, theirs.score)
