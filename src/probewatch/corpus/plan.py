"""Who does what: the runs of a corpus, each a source's sessions by one client, or by several keys of one attacker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.clients import USES
from probewatch.corpus.recipe import Recipe, Weights
from probewatch.corpus.shadows import KINDS, Kind

KEYS = (2, 4)  # fewest and most keys of an attacker who has several
KEEP_ON = 0.5  # chance that a client comes again after a session


@dataclass(frozen=True)
class Actor:
    """Who is behind one or more clients, with one use of one model.

    Attributes:
        name: of the actor.
        clients: (K,) names of its keys.
        evasion: what hides its attack, or none.
        pace: of all its sessions.
        kind: of the shadow models that it believes in.
        members: share of members in what it asks about.
    """

    name: str
    clients: tuple[str, ...]
    evasion: str
    pace: str
    kind: Kind
    members: float


@dataclass(frozen=True)
class Run:
    """One source's queries: a session for each of its actor's K keys.

    Attributes:
        number: of the run, which seeds its draws.
        target: number of the target.
        attack: none, membership, extraction or evasion.
        family: of the attack or use.
        actor: whose it is.
        tasks: (K,) names of the sessions.
        lengths: (K,) queries that each session is meant to have.
    """

    number: int
    target: int
    attack: str
    family: str
    actor: Actor
    tasks: tuple[str, ...]
    lengths: tuple[int, ...]


def plan_runs(recipe: Recipe, targets: int) -> list[Run]:
    """The runs of a corpus of ``recipe.sessions`` sessions over so many targets.

    Lengths and paces are drawn for attackers and benign clients alike, whatever the family.
    """
    random = np.random.default_rng([recipe.seed, 1])
    names = _Names(random)
    runs: list[Run] = []
    for attack, family, sessions in _quotas(recipe):
        target = int(random.integers(targets))
        while sessions > 0:
            actor = _actor(recipe, attack, family, sessions, names, random)
            for _ in range(min(_visits(recipe, random), sessions // len(actor.clients))):
                tasks = tuple(names.draw("task", 10) for _ in actor.clients)
                lengths = tuple(draw_lengths(recipe, len(tasks), random).tolist())
                runs.append(Run(len(runs), target % targets, attack, family, actor, tasks, lengths))
                sessions -= len(tasks)
            target += 1
    return runs


def _actor(recipe: Recipe, attack: str, family: str, most: int, names: _Names, random: np.random.Generator) -> Actor:
    evasion = _draw(recipe.evasions, random) if attack == "membership" else "none"
    customer = attack != "membership" and USES[family].records == "customers"
    keys = 1
    if evasion == "keys":
        keys = min(int(random.integers(KEYS[0], KEYS[1] + 1)), most)
    return Actor(
        names.draw("actor", 8),
        tuple(names.draw("user", 8) for _ in range(keys)),
        evasion,
        _draw(recipe.paces, random),
        KINDS[random.integers(len(KINDS))],
        float(random.uniform(*(recipe.returning if customer else recipe.members))),
    )


def draw_lengths(recipe: Recipe, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(count,) lengths, log-normal about the median between the shortest and the longest."""
    spread = np.log(recipe.longest / recipe.median) / 1.5
    lengths = np.zeros(count)
    while (wrong := (lengths < recipe.shortest) | (lengths > recipe.longest)).any():
        lengths[wrong] = np.rint(recipe.median * np.exp(spread * random.normal(size=int(wrong.sum()))))
    return lengths.astype(np.int64)


def _quotas(recipe: Recipe) -> list[tuple[str, str, int]]:
    """(attack, family, sessions)."""
    rescoring = {name for name, use in USES.items() if use.records == "members"}
    others = {name for name, use in USES.items() if use.attack != "none"}
    benign = USES.keys() - rescoring - others
    quotas = [("membership", *one) for one in _shared_out(_round(recipe, recipe.membership), recipe.attacks)]
    kept = _round(recipe, recipe.membership)
    for names, share in ((others, recipe.other), (rescoring, recipe.rescoring), (benign, None)):
        total = recipe.sessions - kept if share is None else _round(recipe, share)
        found = _shared_out(total, {name: weight for name, weight in recipe.uses.items() if name in names})
        quotas += [(USES[family].attack, family, sessions) for family, sessions in found]
        kept += sum(sessions for _, sessions in found)
    return quotas


def _round(recipe: Recipe, share: float) -> int:
    return round(share * recipe.sessions)


def _shared_out(total: int, weights: Weights) -> list[tuple[str, int]]:
    """Whole numbers above 0 that sum up to the total, nearest to the weights (largest remainders first)."""
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    if not wanted or total <= 0:
        return []
    shares = np.array(list(wanted.values())) / sum(wanted.values()) * total
    whole = np.floor(shares + 1e-9).astype(np.int64)
    for place in np.argsort(whole - shares, kind="stable")[: total - int(whole.sum())]:
        whole[place] += 1
    return [(name, count) for name, count in zip(wanted, whole.tolist(), strict=True) if count]


def _visits(recipe: Recipe, random: np.random.Generator) -> int:
    return int(min(random.geometric(1.0 - KEEP_ON), recipe.most_tasks))


def _draw(weights: Weights, random: np.random.Generator) -> str:
    values = np.array(list(weights.values()))
    return str(random.choice(list(weights), p=values / values.sum()))


@dataclass
class _Names:
    """Draws names that no one else has. Has state: those given."""

    random: np.random.Generator
    given: set[str] = field(default_factory=set)

    def draw(self, kind: str, digits: int) -> str:
        while (name := f"{kind}_{int(self.random.integers(16**digits)):0{digits}x}") in self.given:
            pass
        self.given.add(name)
        return name
