"""From labelled sessions to a bundle: split, scale, train, calibrate, test once, save."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save
from sklearn.linear_model import LogisticRegression

from probewatch.bundle import Bundle, client_key, session_key, write_bundle
from probewatch.data.columns import THEMES, theme_of
from probewatch.data.ragged import Ragged
from probewatch.data.scales import learn_scales
from probewatch.data.wording import listed
from probewatch.errors import ConfigError, DataError, OutputError
from probewatch.learn.card import describe_network, write_card
from probewatch.learn.dataset import Scaler, Split, folds_by_client, groups_of, split_sessions
from probewatch.learn.graph import build_graph
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.presets import Config
from probewatch.learn.report import write_report
from probewatch.learn.resume import digest_labels, digest_profiles, find_finished, open_checkpoints
from probewatch.learn.threshold import attained, pick_threshold
from probewatch.learn.train import Epoch, Fitted, fit
from probewatch.learn.trial import measure, measure_rivals
from probewatch.learn.views import WHOLE, shifts_of, shown_in, stack, view_sessions
from probewatch.network import Network, sigmoid

USUAL_FPR = 0.01  # the budget of false alarms where none is asked for
Told = Callable[[str, int, Epoch, int], None]  # what is trained, epoch done, its losses, epochs at most


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
    learned = np.sort(np.concatenate([split.train, split.valid]))
    if config.folds > 1:
        folds = folds_by_client(data.by_actor, data.label, learned, config.folds, config.split_seed)
        budget = _budget(config, int(np.sum(data.label[learned] == 0)))
    else:
        folds = [(split.train, split.valid)]
        budget = _budget(config, int(np.sum(data.label[split.valid] == 0)))
    seen = learned if config.folds > 1 else split.train
    scales = learn_scales(data.sessions.take(seen))
    masked = config.folds > 1
    views = view_sessions(data.sessions, config.features, scales, data.profiles, poorer=masked)
    sequences = views[WHOLE]
    if not masked:
        _refuse_gaps(sequences, config)
    scaler = Scaler.fit(sequences.take(seen), limit=config.limit, groups=groups_of(config.features) if masked else ())
    partial = open_checkpoints(folder, data, config, resume=resume, note=note)
    fitted = _fit_folds(scaler.transform(stack(views)), data.label, folds, config, where, partial, told)

    held = {name: _out_of_fold(fitted, folds, scaler, view, config) for name, view in views.items()}
    calibration = _calibrate(held[WHOLE], data.label) if masked else (1.0, 0.0)
    benign = {name: calibration[0] * one[data.label == 0] + calibration[1] for name, one in held.items()}
    benign = {name: one[~np.isnan(one)] for name, one in benign.items()}
    threshold, shifts = config.threshold, dict[str, float]()
    if not threshold:
        thresholds = {name: pick_threshold(one, budget) for name, one in benign.items()}
        shifts = shifts_of(thresholds, shown_in(sequences, config.features))
        threshold = float(sigmoid(np.array(thresholds[WHOLE])))
    models = [one.model for one in fitted]
    graph = build_graph(models, scaler, config.features, calibration, shifts)

    tested = np.sort(np.concatenate([split.test, np.flatnonzero(data.aside)]))
    metrics, predictions = measure(data, sequences, graph, threshold, config, tested)
    metrics["views"] = {
        name: measure(data, view, graph, threshold, config, split.test)[0] for name, view in views.items()
    }
    predictions["split"] = split.names(len(data.sessions))
    if rivals:
        metrics["rivals"] = measure_rivals(data, sequences, split, seen, budget, predictions, tested, config)
    metrics["max_fpr"] = budget
    metrics["out_of_fold"] = attained(sigmoid(benign[WHOLE]), threshold)
    history = _mean_history([one.history for one in fitted])
    manifest = {
        "features": list(config.features),
        "decision": config.decision,
        "threshold": threshold,
        "prior": _prior(data.label[learned if masked else split.train], config),
        "streams": not config.bidirectional,
        "masks": masked,
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
    keys = [session_key(data.sessions.session[s], data.sessions.client[s]) for s in split.test]
    bundle = write_bundle(
        folder, manifest, graph=graph, weights=_weights(models), scales=scales, held_out=keys,
        clients={client_key(client) for client in data.sessions.client[learned]},
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


def _budget(config: Config, benign: int) -> float:
    """The budget of false alarms; the usual one is widened to what the benign sample supports."""
    if config.max_fpr and not config.threshold:
        pick_threshold(np.zeros(benign), config.max_fpr)  # refuses what so few cannot support, before training
    if config.max_fpr or config.threshold:
        return config.max_fpr or USUAL_FPR
    return max(USUAL_FPR, 3.0 / max(benign, 4))


def _baseline(benign: Ragged, config: Config) -> dict[str, float]:
    """The mean of each feature over benign training sessions: what an explanation calls usual."""
    known = ~np.isnan(benign.values)
    mean = np.where(known, benign.values, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    return dict(zip(config.features, mean.tolist(), strict=True))


def _refuse_gaps(sequences: Ragged, config: Config) -> None:
    missing = np.flatnonzero(np.isnan(sequences.values).any(axis=0))
    if len(missing):
        names = [config.features[column] for column in missing]
        raise DataError(
            f"some queries lack what is needed for {listed(names)}, and this preset knows no gaps;"
            " use --preset default, or --features that the log has."
        )


def _fit_folds(
    inputs: Ragged,
    label: NDArray[np.int8],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    config: Config,
    device: torch.device,
    partial: Path,
    told: Told | None,
) -> list[Fitted]:
    fitted = []
    views = len(inputs) // len(label)
    numbers = {theme: number for number, theme in enumerate(THEMES)}
    flags = inputs.values.shape[1] - len(config.features)
    themes = np.array([numbers[theme_of(name)] for name in config.features] + [-1] * flags)
    for number, (train, valid) in enumerate(folds):
        rows = [(part + len(label) * np.arange(views)[:, None]).ravel() for part in (train, valid)]

        def progress(epoch: Epoch, epochs: int, number: int = number) -> None:
            if told:
                told(f"network {number + 1} of {len(folds)}", number * epochs, epoch, epochs * len(folds))

        checkpoint = partial / f"network-{number}.safetensors"
        try:
            one = fit(
                inputs.take(rows[0]), np.tile(label[train], views), inputs.take(rows[1]), np.tile(label[valid], views),
                replace(config, seed=(config.seed * len(folds) + number) % 2**32),
                device=device, views=views, themes=themes, progress=progress, checkpoint=checkpoint,
            )  # fmt: skip
        except (SafetensorError, OSError) as error:
            raise OutputError(
                f"{checkpoint}: the checkpoint cannot be written ({error}); free disk, and go on with --resume."
            ) from error
        fitted.append(one)
    return fitted


def _out_of_fold(
    fitted: list[Fitted],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    scaler: Scaler,
    sequences: Ragged,
    config: Config,
) -> NDArray[np.float64]:
    """(S,) score in log-odds of each session by the network that did not learn from it; NaN elsewhere."""
    held = np.full(len(sequences), np.nan)
    for one, (_, valid) in zip(fitted, folds, strict=True):
        network = Network(build_graph([one.model], scaler, config.features), list(config.features))
        part = sequences.take(valid)
        logits, _ = network.run(part)
        if config.decision == "last":
            held[valid] = logits[part.offsets[1:] - 1]
        else:
            held[valid] = np.maximum.reduceat(logits, part.offsets[:-1])
    return held


def _calibrate(held: NDArray[np.float64], label: NDArray[np.int8]) -> tuple[float, float]:
    """Slope and intercept that make held-out scores probabilities (Platt 1999)."""
    known = ~np.isnan(held)
    fitted = LogisticRegression(C=1e6).fit(held[known, None], label[known])
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (slope, intercept) if slope > 0 else (1.0, 0.0)


def _prior(label: NDArray[np.int8], config: Config) -> float:
    """The share of attacks at which scores are probabilities; weights that balance the classes make it a half, which
    the calibration undoes."""
    return 0.5 if config.balanced and config.folds < 2 else float(np.mean(label == 1))


def _mean_history(histories: list[list[Epoch]]) -> list[Epoch]:
    """The losses meaned over the networks that were still training."""
    mean = []
    for epoch in range(max(map(len, histories))):
        running = [history[epoch] for history in histories if epoch < len(history)]
        mean.append({name: float(np.mean([one[name] for one in running])) for name in running[0]})
    return mean


def _describe(data: Labelled, split: Split) -> dict[str, Any]:
    known = data.label >= 0
    return {
        "sha256": data.sha256,
        "labels": digest_labels(data),
        "profiles": digest_profiles(data),
        "sessions": len(data.sessions),
        "events": len(data.sessions.time_s),
        "models": sorted(set(data.sessions.model.tolist())),
        "train": len(split.train),
        "valid": len(split.valid),
        "test": len(split.test),
        "allowed": int(data.allowed.sum()),
        "attack_share": float(np.mean(data.label[known] == 1)),
    }


def _weights(models: list[LSTMClassifier]) -> bytes:
    tensors: Mapping[str, torch.Tensor] = {
        f"{number}/{name}": tensor.contiguous()
        for number, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }
    return save(dict(tensors))
