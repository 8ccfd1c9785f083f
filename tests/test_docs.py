"""The documentation says what the program does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from probewatch.learn.presets import PRESETS
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


def test_every_key_that_score_prints_is_described(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"client": "a", "time": 1, "confidence": 0.5}\n')
    fields = tmp_path / "map.toml"
    fields.write_text('[fields]\nclient = "client"\ntime = "time"\nconfidence = "confidence"\n')
    ran = CliRunner().invoke(app, ["score", str(log), "--map", str(fields), "--json", "--quiet"])
    described = (ROOT / "docs" / "formats.md").read_text("utf-8").split("## What `score --json` prints\n")[1]
    assert set(json.loads(ran.stdout)) <= set(re.findall(r"`(\w+)`", described.split("\n## ")[0]))
