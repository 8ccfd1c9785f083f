"""The detector that comes with the package."""

import json
from importlib.resources import as_file, files
from pathlib import Path

from typer.testing import CliRunner

from probewatch.bundle import read_own
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
