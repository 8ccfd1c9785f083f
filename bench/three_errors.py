"""The article's three errors, measured: lengths, the bidirectional gather, toy data.

    python bench/three_errors.py [--data DIR] [--seeds 5]

DIR holds ``events.jsonl.gz``, ``labels.csv`` and ``allow.txt``; without it the sample in the package serves as the
log of real attacks. ``docs/three-errors.md`` tells what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from article import STEPS, ArticleNetwork
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from probewatch.corpus.article import draw_tasks
from probewatch.data.columns import ARTICLE
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.labels import read_allow, read_labels
from probewatch.data.logs import read_logs
from probewatch.data.ragged import Ragged
from probewatch.learn.batches import SequenceDataset
from probewatch.learn.dataset import Scaler
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.presets import PRESETS
from probewatch.learn.train import fit

EPOCHS = 10
PRESET = PRESETS["article"]


def article_losses(parts: tuple[Tensor, Tensor, Tensor], squashed: bool) -> Iterator[float]:
    """The mean loss of each epoch of the article's loop, clipping included; ``squashed`` by the sigmoid it blamed."""
    padded, label, lengths = parts
    torch.manual_seed(0)
    model = ArticleNetwork(features=3)
    criterion = nn.BCELoss() if squashed else nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(label)).split(16):
            optimiser.zero_grad()
            logits = model(padded[batch], lengths[batch])
            loss = criterion(logits.sigmoid() if squashed else logits, label[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(batch)
        yield total / len(label)


def show_lengths(sequences: Ragged, label: NDArray[Any]) -> None:
    padded, labels, kept = SequenceDataset(sequences, label, steps=STEPS).tensors
    before = torch.from_numpy(sequences.lengths)
    print("\n1. Lengths taken before the cut to 150 steps")
    cut = int((before > STEPS).sum())
    print(f"   tasks longer than {STEPS} steps: {cut} of {len(before)}, the longest {before.max()}")
    for name, lengths in (("before the cut", before), ("of what was kept", kept)):
        for loss, squashed in (("sigmoid + BCELoss", True), ("BCEWithLogitsLoss", False)):
            losses: list[float] = []
            try:
                losses += article_losses((padded, labels, lengths), squashed)
                outcome = f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {EPOCHS} epochs"
            except RuntimeError as error:
                outcome = f"{type(error).__name__} in epoch {len(losses) + 1}: {error}"
            print(f"   lengths {name:<17} {loss + ', clipped':<27} {outcome}")


def gather_errors(model: LSTMClassifier, features: Tensor, lengths: Tensor) -> tuple[float, float]:
    """How far the article's gather is off: the largest error of a state, and of a score."""
    packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        outputs, (final, _) = model.lstm(packed)
        states, _ = pad_packed_sequence(outputs, batch_first=True)
        gathered = states[torch.arange(len(states)), lengths - 1]
        truth = torch.cat([final[-2], final[-1]], dim=1)
        ours = model(features, lengths)
        wrong, right = (model.linear(state).squeeze(-1) for state in (gathered, truth))
    if not torch.allclose(ours, right, atol=1e-5):
        raise SystemExit("our bidirectional model does not use the final states")
    return float((gathered - truth).abs().max()), float((wrong.sigmoid() - right.sigmoid()).abs().max())


def show_gather(sequences: Ragged, label: NDArray[Any], seeds: int) -> None:
    features, _, lengths = SequenceDataset(sequences, label, steps=STEPS).tensors
    untrained, trained = [], []
    for seed in range(4 * seeds):
        torch.manual_seed(seed)
        untrained.append(gather_errors(LSTMClassifier(3, bidirectional=True).eval(), features, lengths))
    for seed in range(seeds):
        config = replace(PRESET, bidirectional=True, epochs=EPOCHS, seed=seed)
        model = fit(sequences, label, sequences, label, config).model
        trained.append(gather_errors(model, features, lengths))
    print("\n2. The bidirectional gather at length - 1, largest error over all tasks: min / median / max over seeds")
    for name, errors in (("untrained", untrained), (f"{EPOCHS} epochs", trained)):
        state, score = np.array(errors).T
        print(f"   {name:<10} {len(errors):>3} seeds   state {spread(state)}   score {spread(score)}")


def spread(values: NDArray[Any]) -> str:
    return f"{values.min():.3f} / {np.median(values):.3f} / {values.max():.3f}"


def single_feature_auc(sequences: Ragged, label: NDArray[Any]) -> dict[str, float]:
    """ROC AUC of each feature's mean over the task alone, the better direction."""
    means = np.add.reduceat(sequences.values.astype(np.float64), sequences.offsets[:-1]) / sequences.lengths[:, None]
    found = [roc_auc_score(label, means[:, column]) for column in range(len(ARTICLE))]
    return {name: max(auc, 1 - auc) for name, auc in zip(ARTICLE, found, strict=True)}


def detector_aucs(data: Labelled, split: str, seeds: int) -> NDArray[np.float64]:
    """Test ROC AUC of the article's preset, one a seed of weights, batches and split."""
    aucs = []
    for seed in range(seeds):
        config = PRESET.with_changes({"split": split, "seed": seed, "split_seed": 42 + seed})
        with tempfile.TemporaryDirectory() as folder:
            aucs.append(train_detector(data, config, Path(folder), device="cpu", rivals=False)[1]["roc_auc"])
    return np.array(aucs)


def show_data(name: str, data: Labelled, split: str, seeds: int) -> None:
    known = (data.label >= 0) & ~data.allowed
    sequences, label = compute(data.sessions.take(known), ARTICLE, Known()), data.label[known]
    print(f"   {name}: {len(label)} tasks, {int(label.sum())} malicious")
    for feature, auc in single_feature_auc(sequences, label).items():
        print(f"      mean {feature:<28} alone   ROC AUC {math.floor(auc * 1000) / 1000:.3f}")
    aucs = detector_aucs(data, split, seeds)
    print(f"      the article's system, split {split:<11} {seeds} seeds   ROC AUC {spread(aucs)}")


def read(log: Path, labels: Path | None = None, allow: Path | None = None) -> Labelled:
    with read_logs([log]) as opened:
        sessions = opened.all_sessions()
        label = read_labels(labels).match(sessions.session, sessions.client).label if labels else sessions.label
        clients = read_allow(allow) if allow else frozenset()
        allowed = np.array([client in clients for client in sessions.client], bool)
        return Labelled(sessions, label, np.full(len(label), "", object), allowed, opened.sha256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.json"
        path.write_text(json.dumps(draw_tasks()))
        toy = read(path)
    sequences = compute(toy.sessions, ARTICLE, Known())
    scaled = Scaler.fit(sequences).transform(sequences)
    show_lengths(scaled, toy.label)
    show_gather(scaled, toy.label, options.seeds)
    print("\n3. Toy data; min / median / max over seeds")
    show_data("generated", toy, "stratified", options.seeds)
    with as_file(files("probewatch") / "sample") as sample:
        folder, log = (options.data, "events.jsonl.gz") if options.data else (sample, "queries.jsonl.gz")
        real = read(folder / log, folder / "labels.csv", folder / "allow.txt")
    show_data("real attacks", real, "client", options.seeds)


if __name__ == "__main__":
    main()
