"""How a corpus is mixed: how many sessions of what, how long, when, and by how many clients."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from probewatch.corpus.attacks import ATTACKS, Attack
from probewatch.corpus.clients import USES, Use
from probewatch.corpus.clock import PACES
from probewatch.corpus.evasion import EVASIONS
from probewatch.data.rejects import is_finite
from probewatch.errors import ConfigError

Weights = Mapping[str, float]
HIDDEN = 0.3  # share of attackers who hide
QUERIES_A_SESSION = 300  # allowed on the average


def _even(names: Iterable[str]) -> Callable[[], Weights]:
    return lambda: dict.fromkeys(names, 1.0)


def _usual(families: Mapping[str, Attack | Use]) -> Callable[[], Weights]:
    return _even([name for name, family in families.items() if not family.further])


def _half_hidden() -> Weights:
    others = [name for name in EVASIONS if name != "none"]
    return {"none": 1.0 - HIDDEN, **dict.fromkeys(others, HIDDEN / len(others))}


@dataclass(frozen=True)
class Recipe:
    """Every choice that a corpus depends on, beside its target and records.

    Attributes:
        sessions: S, over all targets.
        seed: of every draw.
        days: of the log.
        membership, other, rescoring: shares of the sessions that are membership inference, another attack, and jobs
            that rescore training customers; the rest is benign.
        shortest, median, longest: queries of a session; half of them have no more than the median.
        members: lowest and highest share of members among an attacker's candidates, and in what rescorers ask for.
        returning: the same among the records of all other benign clients: a customer whose record was trained on
            comes back.
        most_tasks: sessions of one client.
        pools: shares of attackers, customers and holdout in the records that the model was not trained on.
        attacks, uses: weights by family; 0 leaves one out, as it does the further ones unless they are named.
        paces: weights by pace; attackers and benign clients draw from the same.
        evasions: weights by what hides an attack; ``none`` hides nothing.
    """

    sessions: int = 400
    seed: int = 0
    days: float = 7.0
    membership: float = 0.4
    other: float = 0.04
    rescoring: float = 0.03
    shortest: int = 20
    median: int = 90
    longest: int = 300
    members: tuple[float, float] = (0.25, 0.6)
    returning: tuple[float, float] = (0.0, 0.3)
    most_tasks: int = 8
    pools: tuple[float, float, float] = (0.4, 0.35, 0.25)
    attacks: Weights = field(default_factory=_usual(ATTACKS))
    uses: Weights = field(default_factory=_usual(USES))
    paces: Weights = field(default_factory=_even(PACES))
    evasions: Weights = field(default_factory=_half_hidden)

    def to_json(self) -> dict[str, Any]:
        """Every setting as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def budget(self) -> int:
        """Queries that a target may be asked where nobody says how many."""
        return QUERIES_A_SESSION * self.sessions

    def with_changes(self, settings: Mapping[str, Any]) -> Recipe:
        """A copy with some settings replaced; a table of weights names all that is not left out.

        >>> Recipe().with_changes({"sessions": 0, "uses": {"bacth": 1}})
        Traceback (most recent call last):
        ...
        probewatch.errors.ConfigError: sessions is 0, expected a whole number from 10; uses names 'bacth', ...

        Raises:
            ConfigError: unknown settings or wrong values; all are named.
        """
        known = {part.name: getattr(self, part.name) for part in fields(self)}
        mistakes = [f"no setting is called {name!r}, known: {', '.join(known)}" for name in settings.keys() - known]
        changes = {}
        for name in sorted(settings.keys() & known.keys()):
            try:
                changes[name] = _as_kind(name, settings[name], known[name])
            except (TypeError, ValueError):
                mistakes.append(f"{name} is {settings[name]!r}, expected {_kind_of(known[name])}")
        changed = replace(self, **changes)
        mistakes += _mistakes_of(changed)
        if mistakes:
            raise ConfigError(f"{'; '.join(sorted(mistakes))}.")
        return changed


def read_recipe(path: Path, base: Recipe) -> Recipe:
    """``base`` with the settings of a TOML file, named as in :class:`Recipe`.

    Raises:
        ConfigError: the file cannot be read or holds mistakes.
    """
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a recipe in TOML form: {error}.") from error
    try:
        return base.with_changes(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


NAMES: dict[str, Iterable[str]] = {"attacks": ATTACKS, "uses": USES, "paces": PACES, "evasions": EVASIONS}


def _as_kind(name: str, value: Any, like: Any) -> Any:
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            raise TypeError
        return {key: float(_number(weight)) for key, weight in value.items()}
    if isinstance(like, tuple):
        if isinstance(value, str) or len(value) != len(like):
            raise TypeError
        return tuple(float(_number(one)) for one in value)
    return type(like)(_number(value)) if not isinstance(like, int) else _whole(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not is_finite(value):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if _number(value) != int(value):
        raise ValueError
    return int(value)


def _kind_of(like: Any) -> str:
    if isinstance(like, Mapping):
        return "a table of weights by name"
    if isinstance(like, tuple):
        return f"{len(like)} numbers"
    return "a whole number" if isinstance(like, int) else "a number"


def _mistakes_of(recipe: Recipe) -> list[str]:
    shares = (recipe.membership, recipe.other, recipe.rescoring)
    low, high = recipe.members
    fewest, most = recipe.returning
    checks = [
        ("sessions", recipe.sessions >= 10, "a whole number from 10"),
        ("seed", 0 <= recipe.seed < 2**32, "a whole number from 0 to 4294967295"),
        ("days", 0.01 <= recipe.days <= 3650, "from 0.01 to 3650"),
        ("shortest", 1 <= recipe.shortest < recipe.median < recipe.longest, "shortest < median < longest, from 1"),
        ("membership", all(0 <= one <= 1 for one in shares) and sum(shares) <= 1, "shares that sum up to at most 1"),
        ("returning", 0 <= fewest <= most < 1, "two shares in ascending order, from 0 to below 1"),
        ("members", 0 < low <= high < 1, "two shares in ascending order, between 0 and 1"),
        ("most_tasks", recipe.most_tasks >= 1, "a whole number from 1"),
        (
            "pools",
            all(0 < one < 1 for one in recipe.pools) and math.isclose(sum(recipe.pools), 1.0, abs_tol=1e-6),
            "three shares that sum up to 1",
        ),
    ]
    mistakes = [f"{name} is {getattr(recipe, name)!r}, expected {told}" for name, holds, told in checks if not holds]
    for name, known in NAMES.items():
        weights: Weights = getattr(recipe, name)
        mistakes += [f"{name} names {one!r}, known: {', '.join(known)}" for one in sorted(weights.keys() - set(known))]
        if not any(weights.values()) or any(weight < 0 for weight in weights.values()):
            mistakes.append(
                f"{name} has weights {dict(weights)}, expected some above 0 and none below; the table"
                " names all that is in the mix"
            )
    return mistakes
