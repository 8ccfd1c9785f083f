"""The house's rules: what imports what, and what nothing may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import probewatch

ROOT = Path(probewatch.__file__).parent
LEVELS = {"errors": 0, "data": 1, "corpus": 2, "bundle": 2, "network": 3, "learn": 4, "score": 4, "serve": 5}
"""A room may import rooms of lower levels and itself."""

MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in LEVELS)


def _imports(path: Path) -> set[str]:
    """Full names of all that a module imports, at its top and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_before_it_in_the_flow(path: Path) -> None:
    own = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "probewatch" and len(parts) > 1 and parts[1] in LEVELS and parts[1] != own:
            assert LEVELS[parts[1]] < LEVELS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_learning_imports_torch_and_nothing_pickles(path: Path) -> None:
    tops = {name.split(".")[0] for name in _imports(path)}
    assert not tops & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    if _room(path) != "learn":
        assert "torch" not in tops


def test_importing_the_package_and_its_command_line_loads_nothing_heavy() -> None:
    code = "import sys, probewatch, probewatch.serve.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "numba", "duckdb", "pyarrow", "onnxruntime", "sklearn", "matplotlib", "numpy"}
    assert not heavy & set(loaded)


def test_a_scoring_host_needs_no_torch() -> None:
    code = "import sys, probewatch.score.batch, probewatch.data.logs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "onnx", "matplotlib"} & set(loaded)


FEATURES_FLOW = ("columns", "compiled", "scales", "state", "sketches", "hashes", "step", "profile", "features")


@pytest.mark.parametrize("name", FEATURES_FLOW)
def test_what_features_are_made_of_stands_in_one_order(name: str) -> None:
    used = {parts[2] for one in _imports(ROOT / "data" / f"{name}.py") if len(parts := one.split(".")) > 2}
    later = FEATURES_FLOW[FEATURES_FLOW.index(name) :]
    assert not used & set(later)


def test_no_room_is_called_by_what_says_nothing() -> None:
    names = {path.stem for path in ROOT.rglob("*.py")}
    assert not names & {"utils", "util", "common", "base", "manager", "helpers", "misc"}
