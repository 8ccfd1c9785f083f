from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES
from probewatch.corpus.plan import draw_lengths, plan_runs
from probewatch.corpus.recipe import Recipe, read_recipe
from probewatch.errors import ConfigError


def test_a_file_replaces_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("sessions = 50\nmembers = [0.2, 0.5]\n[uses]\nbatch = 2\n")
    recipe = read_recipe(tmp_path / "r.toml", Recipe(seed=4))
    assert (recipe.sessions, recipe.seed, recipe.members, dict(recipe.uses)) == (50, 4, (0.2, 0.5), {"batch": 2.0})


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        'session = 5\nsessions = 1\ndays = "x"\nshortest = 90\npools = [1, 2, 3]\nmembers = [0.6, 0.5]\n'
        "[uses]\nbacth = 1\n[attacks]\nthreshold_confidence = -1\n"
    )
    with pytest.raises(ConfigError) as told:
        read_recipe(tmp_path / "r.toml", Recipe())
    for word in ("r.toml", "'session'", "sessions is 1", "days is 'x'", "shortest is 90", "pools is", "members is",
                 "'bacth'", "attacks has weights"):  # fmt: skip
        assert word in str(told.value)


def test_what_is_no_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[[")
    with pytest.raises(ConfigError, match="not a recipe in TOML form"):
        read_recipe(tmp_path / "r.toml", Recipe())


def test_the_plan_has_the_sessions_and_shares_of_the_recipe() -> None:
    recipe = Recipe(sessions=300, seed=2)
    runs = plan_runs(recipe, 3)
    tasks = [task for run in runs for task in run.tasks]
    assert len(tasks) == len(set(tasks)) == 300
    assert sum(len(run.tasks) for run in runs if run.attack == "membership") == 120
    assert {run.family for run in runs} == {name for name, one in (ATTACKS | USES).items() if not one.further}
    assert {run.target for run in runs} == {0, 1, 2}
    assert plan_runs(recipe, 3) == runs and plan_runs(Recipe(sessions=300, seed=3), 3) != runs


def test_a_client_keeps_to_one_use_of_one_model() -> None:
    uses: dict[str, set[tuple[object, ...]]] = {}
    for run in plan_runs(Recipe(sessions=400, seed=1), 2):
        for client in run.actor.clients:
            uses.setdefault(client, set()).add((run.target, run.family, run.actor))
    assert all(len(found) == 1 for found in uses.values())
    assert len(uses) < 400


def test_a_further_family_is_in_a_mix_that_names_it() -> None:
    recipe = Recipe(sessions=60).with_changes(
        {"uses": {"averaging": 1.0, "batch": 1.0}, "attacks": {"label_walk": 1.0}}
    )
    assert {run.family for run in plan_runs(recipe, 1)} == {"averaging", "batch", "label_walk"}


def test_a_weight_of_zero_leaves_a_family_out() -> None:
    recipe = Recipe(sessions=60).with_changes({"uses": {"batch": 1.0}})
    assert {run.family for run in plan_runs(recipe, 1) if run.attack == "none"} == {"batch"}


def test_lengths_lie_between_the_shortest_and_the_longest_about_the_median() -> None:
    recipe = Recipe(shortest=20, median=90, longest=300)
    lengths = draw_lengths(recipe, 4000, np.random.default_rng(0))
    assert lengths.min() >= 20 and lengths.max() <= 300 and 80 <= np.median(lengths) <= 100


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"attacks": 5}, "attacks is 5, expected a table of weights by name"),
        ({"sessions": float("inf")}, "sessions is inf, expected a whole number"),
        ({"paces": {"script": float("nan")}}, "expected a table of weights by name"),
        ({"paces": {"script": 10**400}}, "expected a table of weights by name"),
        ({"days": 10**400}, "expected a number"),
    ],
)
def test_settings_that_are_no_such_thing_are_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Recipe().with_changes(settings)
