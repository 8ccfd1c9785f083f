"""How fast a network is trained, against the article's loop.

    python bench/train.py [--sequences 600] [--epochs 4] [--seeds 5]

Both sides train the article's network on the same sequences of 50 to 150 steps for the same number of epochs, a
validation pass after each, at batches of 16 and of 64. The article's loop reads shuffled batches from a DataLoader,
padded to 150, sorted and packed; ours is ``fit`` with the article's preset. Each round is a seed of both. The final
validation losses must be equal within the seeds' spread. torch runs the article's loop with its default number of
threads and with one, and the faster counts; ``fit`` sets its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from article import STEPS, ArticleNetwork, loader_of
from generate import make_sequences
from numpy.typing import NDArray
from torch import nn

from probewatch.data.ragged import Ragged
from probewatch.learn.dataset import Scaler
from probewatch.learn.presets import PRESETS
from probewatch.learn.train import fit

BATCHES = (64, 16)  # the last is the one whose ratio ends the output


@dataclass(frozen=True)
class Part:
    sequences: Ragged
    label: NDArray[np.int8]


def train_by_article(train: Part, valid: Part, batch: int, epochs: int, seed: int) -> float:
    """The validation loss after the last epoch."""
    torch.manual_seed(seed)
    network = ArticleNetwork(train.sequences.values.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.BCEWithLogitsLoss()
    loaders = [loader_of(part.sequences, part.label, batch, shuffle=part is train) for part in (train, valid)]
    for _ in range(epochs):
        network.train()
        train_loss = 0.0
        for events, label, lengths in loaders[0]:
            optimiser.zero_grad()
            loss = criterion(network(events, lengths), label)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            train_loss += loss.item() * len(label)
        network.eval()
        valid_loss = 0.0
        with torch.no_grad():
            for events, label, lengths in loaders[1]:
                valid_loss += criterion(network(events, lengths), label).item() * len(label)
    return valid_loss / len(valid.label)


def train_by_us(train: Part, valid: Part, batch: int, epochs: int, seed: int) -> float:
    """The validation loss after the last epoch."""
    config = dataclasses.replace(PRESETS["article"], batch=batch, epochs=epochs, patience=epochs, seed=seed)
    fitted = fit(train.sequences, train.label, valid.sequences, valid.label, config)
    return fitted.history[-1]["valid_loss"]


def best_threads(train: Part, valid: Part, batch: int) -> int:
    """The number of torch threads with which the article's loop is faster, each after a warm-up."""
    seconds = {}
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        train_by_article(valid, valid, batch, 1, 0)
        started = time.perf_counter()
        train_by_article(valid, valid, batch, 1, 0)
        seconds[threads] = time.perf_counter() - started
    return min(seconds, key=lambda threads: seconds[threads])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sequences", type=int, default=600, help="for training; a quarter as many validate")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5, help="rounds; medians of the times are shown")
    options = parser.parse_args()

    count = options.sequences
    sequences, label = make_sequences(count + count // 4, 50, STEPS)
    parts = [sequences.take(which) for which in np.split(np.arange(len(sequences)), [count])]
    scaler = Scaler.fit(parts[0])
    train, valid = (
        Part(scaler.transform(part), own) for part, own in zip(parts, np.split(label, [count]), strict=True)
    )
    events = len(train.sequences.values) * options.epochs

    print(f"{count} sequences of 50 to {STEPS} steps, {options.epochs} epochs, {options.seeds} seeds")
    print(f"{'':44}{'events/s':>10}{'valid loss':>12}{'spread':>9}{'ratio':>7}")
    default = torch.get_num_threads()
    for batch in BATCHES:
        torch.set_num_threads(default)
        threads = best_threads(train, valid, batch)
        torch.set_num_threads(threads)
        seconds, losses = np.empty((2, options.seeds)), np.empty((2, options.seeds))
        train_by_us(valid, valid, batch, 1, 0)  # warms up
        for seed in range(options.seeds):
            for side, run in enumerate((train_by_article, train_by_us)):
                started = time.perf_counter()
                losses[side, seed] = run(train, valid, batch, options.epochs, seed)
                seconds[side, seed] = time.perf_counter() - started
        medians, means, spreads = np.median(seconds, axis=1), losses.mean(axis=1), losses.std(axis=1, ddof=1)
        ratio = medians[0] / medians[1]
        names = f"the article, batch {batch}, torch threads: {threads}", f"fit, batch {batch}, torch threads: 1"
        for side, name in enumerate(names):
            print(
                f"{name:44}{events / medians[side]:10,.0f}{means[side]:12.4f}{spreads[side]:9.4f}"
                f"{ratio if side else 1:7.1f}"
            )
        if abs(means[0] - means[1]) > spreads.max():
            sys.exit("the sides end with different validation losses")
    print(f"ratio: {ratio:.1f}")


if __name__ == "__main__":
    main()
