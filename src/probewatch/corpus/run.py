"""The sources of a plan, driven in lock-step, a wave at a time; what a wave gave is kept for a run that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.attacker import Attacker
from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES, Client, Use
from probewatch.corpus.evasion import EVASIONS
from probewatch.corpus.grid import Grid
from probewatch.corpus.plan import Run
from probewatch.corpus.pools import Pools
from probewatch.corpus.shadows import Kind, ShadowCache
from probewatch.corpus.sources import Guess, Source, run_together
from probewatch.corpus.target import Target
from probewatch.data.artefacts import replacing
from probewatch.errors import OutputError

COVERS = (
    "people", "batch", "health_check", "load_test", "what_if", "grid_sweep", "lime", "shap", "device", "retries"
)  # fmt: skip
"""Uses that attackers hide behind, with records of their own."""

PROBES = 8  # of the members and of the holdout, by whose answers a model is known again

Told = Callable[[int], None]  # queries done in this call


@dataclass(frozen=True)
class Subject:
    """One attacked model with all that the driver knows of it.

    Attributes:
        target: answers.
        pools: who has which records.
        grid: of its inputs.
        classes: (C,) values of its classes.
        candidates: (R, D) records that attackers ask about, in random order: members and half their own pool.
        labels: int64 (R,) their classes.
        member: (R,) bool, the truth.
        counted: (R,) bool, which are in the figures of attacks (:class:`~probewatch.corpus.pools.Pools`).
        own, own_labels: the other half, which attackers fit shadow models on.
        kind: of the shadow models that are like the target, which attackers are taken to know; None lets each believe
            in a kind of its own.
        described: what the manifest says of the model.
        logged: makes of (n, D) inputs what the log has for them.
    """

    target: Target
    pools: Pools
    grid: Grid
    classes: tuple[Any, ...]
    candidates: NDArray[np.float64]
    labels: NDArray[np.int64]
    member: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    own: NDArray[np.float64]
    own_labels: NDArray[np.int64]
    described: dict[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    logged: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.array

    @classmethod
    def of(
        cls,
        target: Target,
        pools: Pools,
        classes: Sequence[Any],
        seed: int,
        described: dict[str, Any],
        kind: Kind | None = None,
    ) -> Subject:
        """Divide the attackers' pool into candidates and their own, and mix the former with the members."""
        random = np.random.default_rng([seed, 0])
        order = random.permutation(len(pools.attackers))
        outside, own = np.array_split(order, 2)
        inputs = np.concatenate([pools.members.inputs, pools.attackers.inputs[outside]])
        labels = np.concatenate([pools.members.label, pools.attackers.label[outside]])
        mixed = random.permutation(len(inputs))
        counted = np.concatenate([pools.counted, np.ones(len(outside), np.bool_)])
        everything = np.concatenate([pool.inputs for pool in pools.named().values()])
        return cls(
            target, pools, Grid.learn(everything), tuple(classes), inputs[mixed], labels[mixed],
            mixed < len(pools.members), counted[mixed], pools.attackers.inputs[own], pools.attackers.label[own],
            described, kind,
        )  # fmt: skip

    def fingerprint(self) -> str:
        """A hash of the target's answers to a few fixed records, which another model hardly has.

        Raises:
            TargetError: the target gives no usable answer.
        """
        probes = np.concatenate([self.pools.members.inputs[:PROBES], self.pools.holdout.inputs[:PROBES]])
        return hashlib.sha256(np.ascontiguousarray(self.target.answer(probes)).data).hexdigest()


@dataclass(frozen=True)
class Asked:
    """What one run asked and was answered.

    Attributes:
        inputs: (n, D) in the order of asking.
        confidence: (n,) of the predicted class.
        predicted: int64 (n,) number of the class.
        guess: of a membership attack.
    """

    inputs: NDArray[np.float64]
    confidence: NDArray[np.float64]
    predicted: NDArray[np.int64]
    guess: Guess | None


def run_wave(
    runs: Sequence[Run], subject: Subject, seed: int, kept: Path, cache: ShadowCache, told: Told
) -> list[Asked]:
    """Drive these runs, all of one target, together; or read what an earlier call left in ``kept``.

    Raises:
        TargetError: the model gives no usable answer.
    """
    found = _read(kept, len(runs))
    if found is not None:
        subject.target.asked += sum(len(one.confidence) for one in found)
        told(sum(len(one.confidence) for one in found))
        return found
    blocks: list[list[tuple[Any, Any]]] = [[] for _ in runs]

    def seen(number: int, inputs: NDArray[np.float64], answers: NDArray[np.float64]) -> None:
        blocks[number].append((inputs, answers))
        told(len(inputs))

    sources = [source_of(run, subject, seed, cache) for run in runs]
    try:
        guesses = run_together(sources, subject.target.answer, seen=seen)
    finally:
        for source in sources:
            source.close()
    asked = [_asked(own, guess) for own, guess in zip(blocks, guesses, strict=True)]
    _write(kept, asked)
    return asked


def source_of(run: Run, subject: Subject, seed: int, cache: ShadowCache) -> Source:
    """The run's queries; they depend on the seed and the run's number alone."""
    random = np.random.default_rng([seed, 2, run.number])
    budget = sum(run.lengths)
    if run.attack != "membership":
        use = USES[run.family]
        return use.start(Client(_records(use, run, subject, random), subject.grid, budget), random)
    attacker = Attacker(
        subject.candidates, subject.labels, subject.own, subject.own_labels, subject.grid, budget,
        rows=_rows(subject.member, run.actor.members, budget, random), cache=cache, kind=subject.kind or run.actor.kind,
        shadow_size=len(subject.pools.members), shadow_seed=seed,
    )  # fmt: skip
    cover = USES[str(random.choice(COVERS))]

    def attack(queries: int) -> Source:
        return ATTACKS[run.family].start(replace(attacker, budget=queries), random)

    def harmless(queries: int) -> Source:
        return cover.start(Client(subject.own, subject.grid, queries), random)

    return EVASIONS[run.actor.evasion].start(attack, harmless, budget, random)


def _records(use: Use, run: Run, subject: Subject, random: np.random.Generator) -> NDArray[np.float64]:
    return subject.own if use.records == "own" else _with_members(subject, run.actor.members, random)


def _rows(member: NDArray[np.bool_], share: float, most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Candidates of which about that share are members, from the first on."""
    wanted = random.random(min(most, len(member))) < share
    inside, outside = random.permutation(np.flatnonzero(member)), random.permutation(np.flatnonzero(~member))
    wanted = wanted[: _fitting(wanted, len(inside), len(outside))]
    rows = np.empty(len(wanted), np.int64)
    rows[wanted], rows[~wanted] = inside[: int(wanted.sum())], outside[: int((~wanted).sum())]
    return rows


def _fitting(wanted: NDArray[np.bool_], inside: int, outside: int) -> int:
    """How many of the first there are enough candidates for."""
    fits = (np.cumsum(wanted) <= inside) & (np.cumsum(~wanted) <= outside)
    return len(wanted) if fits.all() else int(np.argmin(fits))


def _with_members(subject: Subject, share: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A client's records, of which that share was trained on."""
    members, customers = subject.pools.members.inputs, subject.pools.customers.inputs
    inside = min(len(members), round(len(customers) * share / (1.0 - share)))
    outside = min(len(customers), round(len(members) * (1.0 - share) / share)) if inside else len(customers)
    chosen = members[random.permutation(len(members))[:inside]]
    return np.concatenate([chosen, customers[random.permutation(len(customers))[:outside]]])


def _asked(blocks: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], guess: Guess | None) -> Asked:
    answers = np.concatenate([block for _, block in blocks])
    return Asked(np.concatenate([inputs for inputs, _ in blocks]), answers.max(axis=1), answers.argmax(axis=1), guess)


def _write(path: Path, asked: Sequence[Asked]) -> None:
    guesses = [one.guess for one in asked]
    known = [guess for guess in guesses if guess is not None]
    columns = {
        "inputs": np.concatenate([one.inputs for one in asked]),
        "confidence": np.concatenate([one.confidence for one in asked]),
        "predicted": np.concatenate([one.predicted for one in asked]),
        "lengths": np.array([len(one.confidence) for one in asked]),
        "guesses": np.array([-1 if guess is None else len(guess.record) for guess in guesses]),
        "record": np.concatenate([guess.record for guess in known] or [np.empty(0, np.int64)]),
        "score": np.concatenate([guess.score for guess in known] or [np.empty(0)]),
    }
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); free disk, and run it again.") from error


def _read(path: Path, runs: int) -> list[Asked] | None:
    if not path.exists():
        return None
    with np.load(path) as columns:
        kept = dict(columns)
    ends = np.cumsum(kept["lengths"])[:-1]
    parts = [np.split(kept[name], ends) for name in ("inputs", "confidence", "predicted")]
    counts = np.maximum(kept["guesses"], 0)
    cuts = np.cumsum(counts)[:-1]
    guesses = [
        Guess(record, score) if count >= 0 else None
        for count, record, score in zip(
            kept["guesses"], np.split(kept["record"], cuts), np.split(kept["score"], cuts), strict=True
        )
    ]
    if len(guesses) != runs:
        return None
    return [Asked(*one) for one in zip(*parts, guesses, strict=True)]
