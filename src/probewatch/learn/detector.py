"""From labelled sessions to a bundle: split, scale, train, calibrate, test once, save."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from probewatch.bundle import Bundle, client_key, session_keys, write_bundle
from probewatch.data.ragged import Ragged
from probewatch.errors import ConfigError
from probewatch.learn.card import describe_network, write_card
from probewatch.learn.dataset import Split, split_sessions
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.networks import Told, conclude, fit_folds, prepare
from probewatch.learn.presets import Config
from probewatch.learn.report import write_report
from probewatch.learn.resume import find_finished, identity, open_checkpoints
from probewatch.learn.threshold import attained
from probewatch.learn.train import Epoch
from probewatch.learn.trial import measure, measure_rivals
from probewatch.learn.views import WHOLE


def train_detector(
    data: Labelled,
    config: Config,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    rivals: bool = True,
    told: Told | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> tuple[Bundle, dict[str, Any]]:
    """Train on labelled sessions, test once on those held out, and write bundle and report to ``folder``.

    Args:
        data: sessions; unlabelled and allow-listed ones are not learned from.
        config: every choice.
        folder: of the bundle; an earlier one there is replaced when all is done.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with a stopped run of the same data and configuration; if it has ended, return what it made.
        rivals: run what could be used instead on the same split.
        told: called after every epoch.
        note: called with a sentence that says where a run is resumed, or why not.

    Returns:
        the bundle, and the metrics of its report.

    Raises:
        DataError: too little data, or not what the features need.
        ConfigError: no CUDA where it was asked for, or the finished detector cannot get another threshold.
        OutputError: the folder cannot be written.
        TrainingError: a loss that is not finite.
    """
    where = _device(device)
    if resume and (finished := find_finished(folder, data, config)):
        note(f"{folder}: this very run has ended; nothing is left to train.")
        return finished
    split = split_sessions(data.by_actor, data.label, (data.label >= 0) & ~data.allowed, config)
    ground = prepare(data, split, config)
    sequences, seen, scales, budget = ground.views[WHOLE], ground.seen, ground.scales, ground.budget
    partial = open_checkpoints(folder, data, config, resume=resume, note=note)
    trained = fit_folds(ground, data.label, config, where, partial, told)
    graph, threshold, held = conclude(ground, trained, data.label, config)
    fitted = trained.networks

    tested = np.sort(np.concatenate([split.test, np.flatnonzero(data.aside)]))
    metrics, predictions = measure(data, sequences, graph, threshold, config, tested)
    metrics["views"] = {
        name: measure(data, view, graph, threshold, config, split.test)[0] for name, view in ground.views.items()
    }
    predictions["split"] = split.names(len(data.sessions))
    if rivals:
        metrics["rivals"] = measure_rivals(data, sequences, split, seen, budget, predictions, tested, config)
    metrics["max_fpr"] = budget
    metrics["out_of_fold"] = attained(held[(data.label == 0) & ~np.isnan(held)], threshold)
    history = _mean_history([one.history for one in fitted])
    manifest = {
        "features": list(config.features),
        "decision": config.decision,
        "threshold": threshold,
        "prior": _prior(data.label[ground.learned if ground.masked else split.train], config),
        "streams": not config.bidirectional,
        "masks": ground.masked,
        "baseline": _baseline(sequences.take(seen[data.label[seen] == 0]), config),
        "config": config.to_json(),
        "data": _describe(data, split),
        "metrics": {name: value for name, value in metrics.items() if not isinstance(value, dict | list)},
        "network": describe_network(config),
        "device": where.type,
        "history": [one.history for one in fitted],
        "versions": {name: version(name) for name in ("probewatch", "torch", "numpy", "onnxruntime", "scikit-learn")}
        | {"python": platform.python_version()},
    }
    bundle = write_bundle(
        folder, manifest, graph=graph, weights=_weights([one.model for one in fitted]), scales=scales,
        held_out=session_keys(data.sessions.take(split.test)),
        clients={client_key(client) for client in data.sessions.client[ground.learned]},
        card=write_card(manifest, metrics),
    )  # fmt: skip
    write_report(
        folder / "report",
        metrics=metrics,
        predictions=predictions,
        history=history,
        title="Probewatch: trained detector",
    )
    shutil.rmtree(partial, ignore_errors=True)
    return bundle, metrics


def _device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is cuda, but torch finds no CUDA device here; use --device cpu.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _baseline(benign: Ragged, config: Config) -> dict[str, float]:
    """The mean of each feature over benign training sessions: what an explanation calls usual."""
    known = ~np.isnan(benign.values)
    mean = np.where(known, benign.values, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    return dict(zip(config.features, mean.tolist(), strict=True))


def _prior(label: NDArray[np.int8], config: Config) -> float:
    """The share of attacks at which scores are probabilities; weights that balance the classes make it a half, which
    the calibration undoes."""
    return 0.5 if config.balanced and config.folds < 2 else float(np.mean(label == 1))


def _mean_history(histories: list[list[Epoch]]) -> list[Epoch]:
    """The losses meaned over the networks; one that has stopped has those of its best epoch, whose weights it keeps."""
    mean = []
    for epoch in range(max(map(len, histories))):
        losses = [
            history[epoch] if epoch < len(history) else min(history, key=lambda one: one["valid_loss"])
            for history in histories
        ]
        mean.append({name: float(np.mean([one[name] for one in losses])) for name in losses[0]} | {"epoch": epoch + 1})
    return mean


def _describe(data: Labelled, split: Split) -> dict[str, Any]:
    known = data.label >= 0
    return {
        **identity(data),
        "sessions": len(data.sessions),
        "events": len(data.sessions.time_s),
        "models": sorted(set(data.sessions.model.tolist())),
        "train": len(split.train),
        "valid": len(split.valid),
        "test": len(split.test),
        "allowed": int(data.allowed.sum()),
        "other": int(data.elsewhere.sum()),
        "attack_share": float(np.mean(data.label[known] == 1)),
    }


def _weights(models: list[LSTMClassifier]) -> bytes:
    tensors: Mapping[str, torch.Tensor] = {
        f"{number}/{name}": tensor.contiguous()
        for number, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }
    return save(dict(tensors))
