"""How attackers hide: any attack, composed with harmless queries, another order, or several keys.

Pacing is another way to hide, and a matter of the clock: attackers and benign clients draw from the same paces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.sources import Answers, Guess, Inputs, Source

COVER_SHARE = (0.2, 0.7)  # of the queries
WARM_UP_SHARE = (0.1, 0.5)  # of the queries
GROUP = (4, 64)  # queries that are shuffled among each other

Start = Callable[[int], Source]
"""Gives a source for a budget of queries."""


def with_cover(attack: Source, cover: Source, share: float, random: np.random.Generator) -> Source:
    """The attack's queries with the cover's among them, at this share while both last; then what is left of the cover.

    Args:
        share: of the cover among the queries, from 0 to below 1.
        random: is advanced by this source as it runs.
    """
    beside = _Cover(cover)
    guess: Guess | None = None
    inputs = _first(attack)
    while inputs is not None:
        between = random.geometric(1.0 - share, len(inputs)) - 1  # cover queries before each of the attack's
        mixed, own = beside.mix(inputs, between)
        answers = yield mixed
        beside.learn(answers[~own])
        inputs, guess = _next(attack, answers[own])
    while len(rest := beside.take(beside.left)):
        beside.learn((yield rest))
    return guess


def with_warm_up(attack: Source, harmless: Source) -> Source:
    """The harmless queries, to the last, and then the attack's."""
    yield from harmless
    guess = yield from attack
    return guess


def shuffled(attack: Source, group: int, random: np.random.Generator) -> Source:
    """The attack's queries, shuffled within groups of so many, as far as it asks that many at once."""
    guess: Guess | None = None
    inputs = _first(attack)
    while inputs is not None:
        groups = np.arange(len(inputs)) // group
        order = np.lexsort((random.random(len(inputs)), groups))
        asked = yield inputs[order]
        answers = np.empty_like(asked)
        answers[order] = asked
        inputs, guess = _next(attack, answers)
    return guess


def by_keys(queries: int, keys: int, random: np.random.Generator) -> NDArray[np.int64]:
    """int64 (queries,) which of an attacker's keys sends each query: in turn, at random, or one after the other.

    >>> sorted(set(by_keys(100, 3, np.random.default_rng(0)).tolist()))
    [0, 1, 2]

    Args:
        queries: at least as many as keys.
        keys: from 1. Each sends at least one query.
    """
    way = random.integers(3)
    if way == 0:
        return np.arange(queries) % keys
    if way == 1:
        return np.arange(queries) * keys // queries
    drawn = random.integers(keys, size=queries)
    drawn[random.choice(queries, keys, replace=False)] = np.arange(keys)
    return drawn


@dataclass(frozen=True)
class Evasion:
    """One way to hide an attack.

    Args:
        start: ``(attack, harmless, budget, random)`` gives the hidden attack's source: it makes as many queries as the
            attack alone would have with that budget, so its length gives nothing away.
        text: what it does, in a sentence.
    """

    start: Callable[[Start, Start, int, np.random.Generator], Source]
    text: str


def _plain(attack: Start, _: Start, budget: int, random: np.random.Generator) -> Source:
    return attack(budget)


def _shuffle(attack: Start, _: Start, budget: int, random: np.random.Generator) -> Source:
    return shuffled(attack(budget), int(np.exp(random.uniform(*np.log(GROUP)))), random)


def _cover(attack: Start, harmless: Start, budget: int, random: np.random.Generator) -> Source:
    share = random.uniform(*COVER_SHARE)
    beside = int(budget * share)
    if not beside:
        return attack(budget)
    return with_cover(attack(budget - beside), harmless(beside), share, random)


def _warm_up(attack: Start, harmless: Start, budget: int, random: np.random.Generator) -> Source:
    before = int(budget * random.uniform(*WARM_UP_SHARE))
    return with_warm_up(attack(budget - before), harmless(before)) if before else attack(budget)


EVASIONS: dict[str, Evasion] = {
    "none": Evasion(_plain, "hides nothing"),
    "shuffled": Evasion(_shuffle, "asks in another order, so that copies of a candidate are apart"),
    "cover": Evasion(_cover, "mixes harmless queries among the attack's"),
    "warm_up": Evasion(_warm_up, "begins with harmless queries"),
    "keys": Evasion(_plain, "spreads its queries over several keys (:func:`by_keys`)"),
}
"""By name."""


class _Cover:
    """A source whose queries are taken a few at a time. Has state: what is asked and answered of its current block."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.block = _first(source)
        self.asked = 0
        self.answers: list[Answers] = []

    @property
    def left(self) -> int:
        """Queries of the current block that are not asked yet; 0 at the source's end."""
        return 0 if self.block is None else len(self.block) - self.asked

    def take(self, count: int) -> Inputs:
        """At most so many of the current block's queries."""
        taken = np.empty((0, 0)) if self.block is None else self.block[self.asked : self.asked + count]
        self.asked += len(taken)
        return taken

    def learn(self, answers: Answers) -> None:
        """The answers to what was taken last."""
        if len(answers):
            self.answers.append(answers)
        if self.block is not None and not self.left:
            self.block, _ = _next(self.source, np.concatenate(self.answers))
            self.asked, self.answers = 0, []

    def mix(self, inputs: Inputs, between: NDArray[np.int64]) -> tuple[Inputs, NDArray[np.bool_]]:
        """(n, D) the inputs with queries of the current block before them, and bool (n,) which are the inputs."""
        between = np.diff(np.minimum(np.cumsum(between), self.left), prepend=0)
        taken = self.take(int(between.sum()))
        own = np.zeros(len(inputs) + len(taken), np.bool_)
        own[np.cumsum(between) + np.arange(len(inputs))] = True
        mixed = np.empty((len(own), inputs.shape[1]))
        mixed[own] = inputs
        if len(taken):
            mixed[~own] = taken
        return mixed, own


def _first(source: Source) -> Inputs | None:
    try:
        return next(source)
    except StopIteration:
        return None


def _next(source: Source, answers: Answers) -> tuple[Inputs | None, Guess | None]:
    try:
        return source.send(answers), None
    except StopIteration as end:
        return None, end.value
