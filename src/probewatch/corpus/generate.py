"""From targets and a recipe to a labelled log with its truth: the folder that ``probewatch corpus`` writes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.clock import PACES, session_times
from probewatch.corpus.evasion import by_keys
from probewatch.corpus.events import Session, write_events, write_records
from probewatch.corpus.manifest import Owned, earlier, findings, parameters, rescorers
from probewatch.corpus.plan import Run, plan_runs
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import Asked, Subject, run_wave
from probewatch.corpus.shadows import ShadowCache
from probewatch.corpus.target import Target
from probewatch.data.artefacts import dump_json, replace_file, replacing
from probewatch.data.wording import counted
from probewatch.errors import ConfigError

PACE = ("queries_per_second", "query_budget")  # of a run: with others the same one goes on
START = np.datetime64("2026-03-02T00:00:00")  # a Monday
WAVE = 128  # runs in lock-step; a killed run does at most so many again
ROWS = 4096  # the owner's records a call
LABELS = ("task_id", "client", "actor", "is_malicious", "attack", "family", "target")

Told = Callable[[str, int, int], None]
"""Is told what is under way, and how much of how much is done."""


def make_corpus(
    subjects: Sequence[Subject],
    recipe: Recipe,
    folder: Path,
    *,
    parquet: bool = False,
    salt: str = "",
    told: Told | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Attack and use the targets, and write the log, its labels, the targets' records and a manifest.

    The same targets and recipe give the same bytes. A killed run goes on where it was, if called again with the same
    arguments; files appear when all is done, the manifest last.

    Args:
        subjects: the targets, of different names.
        recipe: every choice.
        folder: for ``events.jsonl.gz`` (or ``events.parquet``), ``labels.csv``, ``allow.txt``,
            ``targets/NAME/train.jsonl.gz`` and ``holdout.jsonl.gz``, and ``manifest.json``.
        salt: with another one the same seed gives other clients, who ask at other times: corpora that are to be read as
            one log must not repeat one another.
        note: is told what becomes of an earlier corpus, and of an earlier run that was stopped.

    Returns:
        the manifest.

    Raises:
        ConfigError: the folder cannot be written or holds something else, or names repeat or are no folder's.
        TargetError: a target gives no usable answer.
    """
    names = [one.target.name for one in subjects]
    if len(set(names)) < len(names):
        raise ConfigError(f"targets are named {names}, expected different names.")
    odd = [name for name in names if not name.strip(".") or set(name) & set("/\\\0")]
    if odd:
        raise ConfigError(
            f"a target is named {odd[0]!r}, which names no folder of its own; leave out / and \\ (--name)."
        )
    say = told or (lambda what, done, total: None)
    before = earlier(folder, "recipe")
    key = parameters(subjects, recipe, f"{START}Z", WAVE)
    tell = note or (lambda text: None)
    if before:
        tell(f"{folder}: an earlier corpus is there; this one replaces it when it is done.")
    partial = _partial(folder, key, tell)
    recipe = replace(recipe, seed=_salted(recipe.seed, salt)) if salt else recipe
    runs = plan_runs(recipe, len(subjects))
    _recall_trouble(subjects, partial)
    try:
        owners = _ask_owners(subjects, partial)
        asked = _ask_all(runs, subjects, recipe, partial, say)
    finally:
        _keep_trouble(subjects, partial)
        for one in subjects:
            one.target.close()
    sessions = _sessions(runs, asked, subjects, recipe)
    say("writing", 0, 0)
    ready = partial / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    _write_all(ready, sessions, owners, subjects, parquet)
    (ready / "allow.txt").write_text("".join(f"{name}\n" for name in rescorers(sessions)), "utf-8")
    manifest = {
        **key,
        **findings(runs, asked, sessions, owners, subjects),
        "files": {str(path.relative_to(ready)): _sha256(path) for path in _files(ready)},
    }
    (ready / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    _move_all(ready, folder, before.get("files", {}))
    shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _salted(seed: int, salt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {salt}".encode("utf-8", "surrogatepass")).digest()[:4], "little")


def _partial(folder: Path, key: dict[str, Any], note: Callable[[str], None]) -> Path:
    """The folder of what is done so far; emptied unless it is this very run's."""
    partial = folder / ".partial"
    models = {
        name: {what: value for what, value in one.items() if what not in PACE} for name, one in key["models"].items()
    }
    told, run = partial / "run.json", json.dumps({**key, "models": models})
    if told.is_file() and told.read_text("utf-8") == run:
        waves = len(list(partial.glob("wave-*.npz")))
        note(f"{folder}: goes on where a run was stopped, with {counted(waves, 'part')} done.")
    elif partial.exists():
        shutil.rmtree(partial, ignore_errors=True)
        note(f"{folder}: a stopped run of another model, recipe or version was there; this one begins anew.")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        told.write_text(run, "utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: the corpus cannot be written there: {error.strerror}.") from error
    return partial


def _keep_trouble(subjects: Sequence[Subject], partial: Path) -> None:
    told = {one.target.name: one.target.trouble() for one in subjects}
    if any(told.values()):
        replace_file(partial / "trouble.json", dump_json(told))


def _recall_trouble(subjects: Sequence[Subject], partial: Path) -> None:
    with suppress(FileNotFoundError):
        told = json.loads((partial / "trouble.json").read_bytes())
        for one in subjects:
            one.target.go_on(told[one.target.name])


def _ask_all(runs: Sequence[Run], subjects: Sequence[Subject], recipe: Recipe, partial: Path, say: Told) -> list[Asked]:
    """What each run asked, in the order of the plan."""
    total, done = sum(sum(run.lengths) for run in runs), 0

    def count(queries: int) -> None:
        nonlocal done
        done += queries
        say("asking", min(done, total), total)

    cache = ShadowCache()
    asked: dict[int, Asked] = {}
    for number, wave in enumerate(_waves(runs, len(subjects))):
        kept = partial / f"wave-{number:04d}.npz"
        found = run_wave(wave, subjects[wave[0].target], recipe.seed, kept, cache, count)
        _keep_trouble(subjects, partial)
        asked |= {run.number: one for run, one in zip(wave, found, strict=True)}
    return [asked[run.number] for run in runs]


def _waves(runs: Sequence[Run], targets: int) -> Iterator[list[Run]]:
    for target in range(targets):
        own = [run for run in runs if run.target == target]
        for begin in range(0, len(own), WAVE):
            yield own[begin : begin + WAVE]


def _sessions(
    runs: Sequence[Run], asked: Sequence[Asked], subjects: Sequence[Subject], recipe: Recipe
) -> list[Session]:
    """The runs' queries, dealt to their keys and given times; in the order of the plan."""
    free_s: dict[str, float] = {}
    sessions = []
    for run, one in zip(runs, asked, strict=True):
        random = np.random.default_rng([recipe.seed, 3, run.number])
        for task, client, dealt in zip(run.tasks, run.actor.clients, _deal(run, one, recipe.seed), strict=True):
            if not len(dealt):
                continue
            pace = PACES[run.actor.pace]
            time_s = session_times(pace, len(dealt), recipe.days, random, after_s=free_s.get(client, 0.0))
            free_s[client] = float(time_s[-1])
            sessions.append(
                Session(
                    task, client, run.actor.name, f"job_{random.integers(10_000):04d}", _address(client),
                    subjects[run.target].target.name, run.attack, run.family, run.actor.evasion,
                    time_s, one.inputs[dealt], one.confidence[dealt], one.predicted[dealt],
                )
            )  # fmt: skip
    return sessions


def _deal(run: Run, asked: Asked, seed: int) -> list[NDArray[np.int64]]:
    """Which queries go to which key."""
    queries, keys = len(asked.confidence), len(run.tasks)
    key = by_keys(queries, min(keys, queries), np.random.default_rng([seed, 6, run.number]))
    return [np.flatnonzero(key == number) for number in range(keys)]


def _address(client: str) -> str:
    """An address for documentation (RFC 5737)."""
    code = hashlib.sha256(client.encode()).digest()
    return f"{('192.0.2', '198.51.100', '203.0.113')[code[0] % 3]}.{code[1]}"


def _ask_owners(subjects: Sequence[Subject], folder: Path) -> list[tuple[Owned, Owned]]:
    """For each target its owner's training and holdout records, with the target's answers."""
    told = []
    for one in subjects:
        kept = folder / f"owner-{hashlib.sha256(one.target.name.encode()).hexdigest()[:16]}.npz"
        train, holdout = one.pools.members.inputs, one.pools.holdout.inputs
        if kept.exists():
            with np.load(kept) as columns:
                answers = columns["train"], columns["holdout"]
            one.target.asked += len(train) + len(holdout)
        else:
            answers = _answers(one.target, train), _answers(one.target, holdout)
            with replacing(kept) as partial, partial.open("wb") as file:
                np.savez(file, train=answers[0], holdout=answers[1])
        told.append(((train, answers[0]), (holdout, answers[1])))
    return told


def _answers(target: Target, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([target.answer(inputs[begin : begin + ROWS]) for begin in range(0, len(inputs), ROWS)])


def _write_all(
    ready: Path,
    sessions: Sequence[Session],
    owners: Sequence[tuple[Owned, Owned]],
    subjects: Sequence[Subject],
    parquet: bool,
) -> None:
    ready.mkdir(parents=True)
    classes = {one.target.name: one.classes for one in subjects}
    logged = {one.target.name: one.logged for one in subjects}
    asked = [replace(session, inputs=logged[session.target](session.inputs)) for session in sessions]
    write_events(ready / ("events.parquet" if parquet else "events.jsonl.gz"), asked, START, classes)
    for one, (train, holdout) in zip(subjects, owners, strict=True):
        own = ready / "targets" / one.target.name
        own.mkdir(parents=True)
        write_records(own / "train.jsonl.gz", one.logged(train[0]), train[1], one.classes)
        write_records(own / "holdout.jsonl.gz", one.logged(holdout[0]), holdout[1], one.classes)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LABELS)
    for session in sorted(sessions, key=lambda session: session.time_s[0]):
        bad = int(session.attack != "none")
        writer.writerow(
            [session.task, session.client, session.actor, bad, session.attack, session.family, session.target]
        )
    (ready / "labels.csv").write_text(text.getvalue(), "utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _move_all(ready: Path, folder: Path, before: Iterable[str]) -> None:
    """Bring finished files to their places, each at once, the manifest last; what an earlier corpus had more goes."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for name in before:
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if inside and not (ready / name).exists():
            (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # others of the same target stand in it
                (folder / name).parent.rmdir()
    for path in sorted(_files(ready), key=lambda path: path.name == "manifest.json"):
        place = folder / path.relative_to(ready)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
