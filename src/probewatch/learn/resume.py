"""A run that was stopped: what is left of it, and whether another may go on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from probewatch.bundle import Bundle, is_bundle, read_bundle
from probewatch.data.wording import listed
from probewatch.errors import BundleError, ConfigError, OutputError
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import Config

PARTIAL = ".partial"
AFTER_TRAINING = frozenset({"max_fpr", "threshold"})
"""Settings that the networks do not depend on: with others, a stopped run goes on as it was."""

OTHERWISE = {
    "sha256": "had another log",
    "queries": "read the log in another way (--map, --gap)",
    "labels": "had other labels or another allow-list",
    "profiles": "had other profiles",
}
"""What it means where :func:`identity` differs."""


def digest_labels(data: Labelled) -> str:
    """A hash of all that labels and allow-list tell of the sessions: of networks, figures and report alike.

    A column that is not given is the same as one that is empty.
    """
    columns = data.label, data.allowed, data.elsewhere, data.by_actor.client, data.family, data.target
    told = [[] if column is None or not np.any(column) else column.tolist() for column in columns]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def digest_queries(data: Labelled) -> str:
    """A hash of the sessions as they were read: a log read with another mapping or gap has others."""
    sessions, seen = data.sessions, hashlib.sha256()
    for names in (sessions.session, sessions.client, sessions.model):
        seen.update("\0".join(names).encode("utf-8", "surrogatepass"))
    numbers = sessions.time_s, sessions.confidence, sessions.predicted_class, sessions.inputs, sessions.digest
    for column in (sessions.offsets, sessions.input_offsets, *numbers, *sessions.given.values()):
        seen.update(column.tobytes())
    return seen.hexdigest()


def digest_profiles(data: Labelled) -> str:
    """A hash of what is known of the models; empty if nothing is. Hashes made with another key are other ones."""
    forms = {model: profile.to_json() for model, profile in data.profiles.items()}
    return hashlib.sha256(json.dumps(forms, sort_keys=True).encode()).hexdigest() if forms else ""


def identity(data: Labelled) -> dict[str, str]:
    """What tells whether two runs learn from the same."""
    return {
        "sha256": data.sha256,
        "queries": digest_queries(data),
        "labels": digest_labels(data),
        "profiles": digest_profiles(data),
    }


def find_finished(folder: Path, data: Labelled, config: Config) -> tuple[Bundle, dict[str, Any]] | None:
    """The bundle in ``folder`` and its metrics if this very run has already made it.

    Raises:
        ConfigError: it has, but for the threshold, which cannot be chosen anew without the stopped networks.
    """
    if not is_bundle(folder) or (folder / PARTIAL).exists():
        return None
    try:
        bundle = read_bundle(folder)
        metrics = json.loads((folder / "report" / "metrics.json").read_bytes())
    except (BundleError, OSError, ValueError):
        return None
    if not identity(data).items() <= bundle.manifest["data"].items():
        return None
    changed = _changed(bundle.manifest["config"], config.to_json())
    if changed and set(changed) <= AFTER_TRAINING:
        raise ConfigError(
            f"{folder}: this detector is finished, and its threshold was chosen with another {' and '.join(changed)};"
            " train it anew without --resume, or give `probewatch score` a --threshold."
        )
    return None if changed else (bundle, metrics)


def open_checkpoints(
    folder: Path, data: Labelled, config: Config, *, resume: bool, note: Callable[[str], None]
) -> Path:
    """The folder of the checkpoints, emptied unless they are this very run's and it is to be resumed.

    Args:
        note: is told whether the run goes on, and from where, or why it starts anew.

    Raises:
        OutputError: the folder cannot be written, or holds other things.
    """
    partial = folder / PARTIAL
    told = partial / "run.json"
    settings = {name: value for name, value in config.to_json().items() if name not in AFTER_TRAINING}
    run = {"data": identity(data), "config": settings}
    holds = folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
    if holds and not partial.exists() and not is_bundle(folder):
        raise OutputError(f"{folder}: it holds other things than a detector; name a new folder.")
    hindrance = _hindrance(told, run) if resume else ""
    if resume:
        note(f"Nothing to resume, so training starts anew: {hindrance}." if hindrance else _progress(partial))
    try:
        if hindrance or not resume:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps(run), "utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: the bundle cannot be written there ({error.strerror}); free disk, or name another folder."
        ) from error
    return partial


def _hindrance(told: Path, run: dict[str, Any]) -> str:
    """Why a run cannot go on from what is left; empty if it can."""
    try:
        left = json.loads(told.read_text("utf-8"))
        data, settings = dict(left["data"]), dict(left["config"])
    except FileNotFoundError:
        return f"no stopped run is in {told.parent.parent}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{told} cannot be read"
    for what, sentence in OTHERWISE.items():
        if data.get(what) != run["data"][what]:
            return f"the stopped run {sentence}"
    changed = _changed(settings, run["config"])
    return f"the stopped run had other settings ({listed(changed)})" if changed else ""


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _progress(partial: Path) -> str:
    """Where a stopped run goes on: its networks are trained one after the other."""
    networks = len(list(partial.glob("network-*.safetensors")))
    try:
        with safe_open(partial / f"network-{networks - 1}.safetensors", "np") as file:
            epochs = len(json.loads(file.metadata()["history"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return "Resuming the stopped run before the first epoch's end."
    before = f"; {networks - 1} before it {'is' if networks == 2 else 'are'} trained" if networks > 1 else ""
    return f"Resuming the stopped run after epoch {epochs} of network {networks}{before}."
