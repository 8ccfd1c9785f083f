"""The documentation says what the program does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from probewatch.learn.presets import PRESETS
from probewatch.score.verdicts import COLUMNS

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
