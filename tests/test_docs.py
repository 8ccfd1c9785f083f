"""The documentation says what the program does."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import PRESETS, Config
from probewatch.learn.trial import evaluate_detector
from probewatch.score.verdicts import COLUMNS
from probewatch.serve.cli import app

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["cli.md", "families.md", "features.md"])
def test_a_generated_page_is_what_the_program_says(page: str) -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
    assert (ROOT / "docs" / page).read_text("utf-8") == pages[page](), "run: python docs/generate.py"


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in text
    assert "make test" in text


def _table(heading: str) -> list[list[str]]:
    section = (ROOT / "docs" / "formats.md").read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]


def test_every_setting_is_described_with_its_values() -> None:
    described = {row[0].strip("`"): row[1:3] for row in _table("Settings")}
    presets = [PRESETS[name].to_json() for name in ("default", "article")]
    assert list(described) == list(presets[0])
    for name, cells in described.items():
        for cell, preset in zip(cells, presets, strict=True):
            value = preset[name]
            assert cell == (f"{len(value)} of them" if name == "features" else f"`{json.dumps(value)}`")


def test_every_column_of_a_verdict_is_described() -> None:
    assert re.findall(r"`(\w+)`", " ".join(row[0] for row in _table("Verdicts"))) == list(COLUMNS)


def _names(rows: list[list[str]]) -> list[str]:
    return re.findall(r"`([\w.]+)`", " ".join(row[0] for row in rows))


@pytest.fixture(scope="module")
def reports(labelled: Labelled, quick: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The reports of a training with rivals, and of an evaluation."""
    folder = tmp_path_factory.mktemp("reports")
    few = replace(quick, features=("log_odds", "log_gap", "member_ratio"), epochs=1)
    bundle, _ = train_detector(labelled, few, folder / "train")
    source = {"detector": "bundle", "logs": ["log.jsonl"]}
    evaluate_detector(bundle, labelled, folder / "evaluate", source=source)
    return [folder / name / "report" for name in ("train", "evaluate")]


def test_every_column_of_predictions_is_described(reports: list[Path]) -> None:
    written = [(report / "predictions.csv").read_text("utf-8").splitlines()[0].split(",") for report in reports]
    assert sorted(_names(_table("Predictions"))) == sorted(set(written[0]) | set(written[1]))


def test_every_key_of_the_metrics_is_described(reports: list[Path]) -> None:
    rows, seen = _table("Metrics"), set()
    told = {name: set(re.findall(r"`([\w.]+)`", " ".join(row))) for row in rows for name in _names([row])}
    for report in reports:
        metrics = json.loads((report / "metrics.json").read_text("utf-8"))
        seen |= set(metrics)
        for key, value in metrics.items():
            assert _inner(key, value) <= told.get(key, set()), key
        for key in ("rivals", "views"):
            assert all(set(one) <= set(told) for one in metrics.get(key, {}).values())
    assert sorted(seen) == sorted(told)


def _inner(key: str, value: Any) -> set[str]:
    """The names in a value, less those that figures, families, rivals and views have themselves."""
    if not isinstance(value, dict) or key in ("intervals", "rivals", "views"):
        return set()
    own = set() if key == "families" else set(value)
    return own.union(*(_inner(name, one) for name, one in value.items()))


def test_every_key_that_score_prints_is_described(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"client": "a", "time": 1, "confidence": 0.5}\n')
    fields = tmp_path / "map.toml"
    fields.write_text('[fields]\nclient = "client"\ntime = "time"\nconfidence = "confidence"\n')
    ran = CliRunner().invoke(app, ["score", str(log), "--map", str(fields), "--json", "--quiet"])
    described = (ROOT / "docs" / "formats.md").read_text("utf-8").split("## What `score --json` prints\n")[1]
    assert set(json.loads(ran.stdout)) <= set(re.findall(r"`(\w+)`", described.split("\n## ")[0]))
