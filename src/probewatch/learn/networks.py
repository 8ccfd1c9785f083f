"""From index sets of labelled sessions to networks and trees, their calibration and their threshold.

Everything here is learned from a split's training and validation sessions: what the others hold changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from sklearn.linear_model import LogisticRegression

from probewatch.data.columns import THEMES, theme_of
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.ragged import Ragged
from probewatch.data.scales import Scales, learn_scales
from probewatch.data.wording import listed
from probewatch.errors import DataError, OutputError
from probewatch.learn.dataset import Scaler, Split, folds_by_client, groups_of
from probewatch.learn.graph import Grove, build_graph
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import Config
from probewatch.learn.pretrained import pretrained_trees
from probewatch.learn.threshold import loosest_budget, pick_threshold
from probewatch.learn.train import Epoch, Fitted, fit
from probewatch.learn.trees import grow_evidence, grow_habits
from probewatch.learn.views import WHOLE, shifts_of, shown_in, stack, thinned, view_sessions
from probewatch.network import Network, sigmoid

USUAL_FPR = 0.01  # the budget of false alarms where none is asked for
Told = Callable[[str, int, Epoch, int], None]  # what is trained, epoch done, its losses, epochs at most


@dataclass(frozen=True)
class Ground:
    """What networks stand on: which sessions they may learn from, and the features of all S sessions.

    Attributes:
        learned: indices of the sessions that anything may be learned from.
        seen: those that scales, scaler and the last word of rivals come from.
        folds: (training, held) indices of each network.
        budget: share of benign sessions that may raise an alert.
        masked: whether features may be missing.
        scales: of the models' usual queries.
        views: the features of every session, the whole first (see :mod:`probewatch.learn.views`).
        thinned: those of every session with fewer queries near one another, to learn from only; None without inputs.
        scaler: of the features.
    """

    learned: NDArray[np.int64]
    seen: NDArray[np.int64]
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    budget: float
    masked: bool
    scales: Scales
    views: dict[str, Ragged]
    thinned: Ragged | None
    scaler: Scaler

    @property
    def lessons(self) -> list[Ragged]:
        """What is learned from, the whole first."""
        return [*self.views.values(), *([] if self.thinned is None else [self.thinned])]


class Trained(NamedTuple):
    """What was trained on a ground.

    Attributes:
        networks: of each fold.
        groves: the trees of each fold, which did not learn from its held sessions either; None without trees.
        grove: the trees that learned from all.
    """

    networks: list[Fitted]
    groves: list[Grove | None]
    grove: Grove | None


class Learned(NamedTuple):
    """What the networks and trees of all folds come to.

    Attributes:
        graph: ONNX, calibrated.
        threshold: of its scores.
        held: (S,) score of each session by the network and the trees that did not learn from it; NaN elsewhere.
    """

    graph: bytes
    threshold: float
    held: NDArray[np.float64]


def prepare(data: Labelled, split: Split, config: Config) -> Ground:
    """Folds, scales and features for networks that learn from ``split.train`` and ``split.valid`` alone.

    Raises:
        DataError: too few clients or benign sessions, or missing values that the configuration cannot have.
    """
    learned = np.sort(np.concatenate([split.train, split.valid]))
    if config.folds > 1:
        folds = folds_by_client(data.by_actor, data.label, learned, config.folds, config.split_seed)
        budget = budget_of(config, int(np.sum(data.label[learned] == 0)))
    else:
        folds = [(split.train, split.valid)]
        budget = budget_of(config, int(np.sum(data.label[split.valid] == 0)))
    seen = learned if config.folds > 1 else split.train
    scales = learn_scales(data.sessions.take(seen))
    masked = config.folds > 1
    views = view_sessions(data.sessions, config.features, scales, data.profiles, poorer=masked)
    sequences = views[WHOLE]
    if not masked:
        _refuse_gaps(sequences, config)
    scaler = Scaler.fit(sequences.take(seen), limit=config.limit, groups=groups_of(config.features) if masked else ())
    fewer = None
    if masked and len(data.sessions.inputs) and not data.sessions.given:
        sparse = thinned(data.sessions, scales, data.profiles, config.seed)
        fewer = compute(sparse, config.features, Known(scales, data.profiles))
    return Ground(learned, seen, folds, budget, masked, scales, views, fewer, scaler)


def fit_folds(
    ground: Ground,
    label: NDArray[np.int8],
    config: Config,
    device: torch.device,
    partial: Path | None = None,
    told: Told | None = None,
) -> Trained:
    """A network for each fold, trained on all but its held sessions, which validate it; and trees likewise.

    Args:
        label: (S,) 1 attack, 0 benign, -1 unknown.
        partial: folder of checkpoints, which are gone on from; none are kept without it.
        told: called after every epoch.

    Raises:
        OutputError: a checkpoint cannot be written.
        TrainingError: a loss that is not finite.
    """
    inputs = stack([ground.scaler.transform(one) for one in ground.lessons])
    folds, views = ground.folds, len(ground.lessons)
    fitted = []
    numbers = {theme: number for number, theme in enumerate(THEMES)}
    flags = inputs.values.shape[1] - len(config.features)
    themes = np.array([numbers[theme_of(name)] for name in config.features] + [-1] * flags)
    for number, (train, valid) in enumerate(folds):
        rows = [(part + len(label) * np.arange(views)[:, None]).ravel() for part in (train, valid)]

        def progress(epoch: Epoch, epochs: int, number: int = number) -> None:
            if told:
                told(f"network {number + 1} of {len(folds)}", number * epochs, epoch, epochs * len(folds))

        checkpoint = partial / f"network-{number}.safetensors" if partial else None
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
    groves = [_grove(ground, label, train, config) for train, _ in folds]
    return Trained(fitted, groves, _grove(ground, label, ground.seen, config))


def _grove(ground: Ground, label: NDArray[np.int8], train: NDArray[np.int64], config: Config) -> Grove | None:
    if not config.trees or config.bidirectional:
        return None
    habits = grow_habits(*lessons_of(ground), label, train, config.seed)
    evidence = grow_evidence(ground.views[WHOLE], config.features, label, train, config.seed)
    return Grove(
        habits, evidence, config.evidence, config.evidence_abroad, config.habits, config.habits_abroad, config.enough,
        pretrained_trees(config.features) if config.pretrained or config.pretrained_abroad else None,
        config.pretrained, config.pretrained_abroad,
    )  # fmt: skip


def lessons_of(ground: Ground) -> tuple[list[Ragged], list[Ragged]]:
    """What habits are learned from: the features in full, thinned ones among them, and as poorer logs show them."""
    whole, *poorer = ground.views.values()
    return [whole] if ground.thinned is None else [whole, ground.thinned], poorer


def conclude(ground: Ground, trained: Trained, label: NDArray[np.int8], config: Config) -> Learned:
    """Networks and trees as one calibrated ONNX graph, and the threshold of its scores from out-of-fold ones.

    Raises:
        DataError: too few benign sessions for the budget.
    """
    networks = [
        Network(build_graph([one.model], ground.scaler, config.features, grove=grove), list(config.features))
        for one, grove in zip(trained.networks, trained.groves, strict=True)
    ]
    held = {name: _out_of_fold(networks, ground.folds, view, config) for name, view in ground.views.items()}
    calibration = _calibrate(held[WHOLE], label) if ground.masked else (1.0, 0.0)
    threshold, shifts = config.threshold, dict[str, float]()
    if not threshold:
        benign = {name: calibration[0] * one[label == 0] + calibration[1] for name, one in held.items()}
        thresholds = {name: pick_threshold(one[~np.isnan(one)], ground.budget) for name, one in benign.items()}
        shifts = shifts_of(thresholds, shown_in(ground.views[WHOLE], config.features))
        threshold = float(sigmoid(np.array(thresholds[WHOLE])))
    models = [one.model for one in trained.networks]
    graph = build_graph(models, ground.scaler, config.features, calibration, shifts, trained.grove)
    return Learned(graph, threshold, sigmoid(calibration[0] * held[WHOLE] + calibration[1]))


def budget_of(config: Config, benign: int) -> float:
    """The budget of false alarms; the usual one is widened to what the benign sample supports."""
    if config.threshold:
        return config.max_fpr or USUAL_FPR
    budget = config.max_fpr or loosest_budget(benign, USUAL_FPR)
    pick_threshold(np.zeros(benign), budget)  # refuses what so few cannot support, before training
    return budget


def _refuse_gaps(sequences: Ragged, config: Config) -> None:
    missing = np.flatnonzero(np.isnan(sequences.values).any(axis=0))
    if len(missing):
        names = [config.features[column] for column in missing]
        raise DataError(
            f"some queries lack what is needed for {listed(names)}, and this preset knows no gaps;"
            " use --preset default, or --features that the log has."
        )


def _out_of_fold(
    networks: list[Network],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    sequences: Ragged,
    config: Config,
) -> NDArray[np.float64]:
    """(S,) score in log-odds of each session by what did not learn from it; NaN elsewhere."""
    held = np.full(len(sequences), np.nan)
    for network, (_, valid) in zip(networks, folds, strict=True):
        part = sequences.take(valid)
        logits, _ = network.run(part)
        if config.decision == "last":
            held[valid] = logits[part.offsets[1:] - 1]
        else:
            held[valid] = np.maximum.reduceat(logits, part.offsets[:-1])
    return held


def _calibrate(held: NDArray[np.float64], label: NDArray[np.int8]) -> tuple[float, float]:
    """Slope and intercept that make held-out scores probabilities (Platt 1999).

    With his targets, which are never quite 0 or 1: the slope would have no bound where both kinds are told apart
    without an error, and scores would be exactly 0 or 1.
    """
    known = ~np.isnan(held)
    attack = label[known] == 1
    target = np.where(attack, (attack.sum() + 1) / (attack.sum() + 2), 1 / (np.sum(~attack) + 2))
    both = np.concatenate([held[known], held[known]])[:, None]  # each as an attack and as benign, by its target
    weight = np.concatenate([target, 1.0 - target])
    fitted = LogisticRegression(C=1e6).fit(both, np.repeat([1, 0], len(target)), sample_weight=weight)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (slope, intercept) if slope > 0 else (1.0, 0.0)
