"""fit(): the training loop, read from top to bottom."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from probewatch.data.artefacts import replacing
from probewatch.data.ragged import Ragged
from probewatch.errors import DataError, TrainingError
from probewatch.learn.batches import Sequences, iterate
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.presets import Config

RAMP = 64  # queries until a step counts in full: there is less to see before
_TURN = threading.RLock()  # whose turn it is to set what torch keeps for the whole process
Epoch = dict[str, float]  # epoch, train_loss, valid_loss
Progress = Callable[[Epoch, int], None]  # an epoch that is done, and how many there are at most


@dataclass(frozen=True)
class Fitted:
    """A trained network: its best weights, and the losses of every epoch."""

    model: LSTMClassifier
    history: list[Epoch]
    best_epoch: int


def fit(
    train: Ragged,
    train_label: NDArray[Any],
    valid: Ragged,
    valid_label: NDArray[Any],
    config: Config,
    *,
    device: torch.device | str = "cpu",
    outputs: int = 1,
    views: int = 1,
    themes: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train a network on ``train``, stop when the loss on ``valid`` no longer falls, keep the best weights.

    Args:
        train, valid: sequences of F scaled features without NaN.
        train_label, valid_label: (S,) 0 or 1; class numbers if ``outputs`` is more than one.
        config: the network and the loop.
        device: where to train.
        outputs: logits per sequence.
        views: of the same sequences, end to end in ``train``; each epoch draws one for each sequence.
        themes: (F,) number of the theme that each feature belongs to, for ``theme_dropout``; -1 is never dropped.
        progress: called after every epoch.
        checkpoint: a file that is written after every epoch and continued from if it is there; the
            continued run ends in the same bytes as an unbroken one.

    Returns:
        the model on the CPU in evaluation mode.

    Raises:
        DataError: an empty sequence, or a value that is not finite.
        TrainingError: a loss that is not finite, with its epoch and sequences.
    """
    for name, sequences in (("training", train), ("validation", valid)):
        check_sequences(sequences, name)
    device = torch.device(device)
    if config.steps:
        train, valid = train.truncate(config.steps), valid.truncate(config.steps)
    parts = Sequences(train, device), Sequences(valid, device)
    labels = _as_labels(train_label, outputs, device), _as_labels(valid_label, outputs, device)
    weights = _class_weights(train_label, outputs, config.balanced, device)
    with one_thread(), torch.random.fork_rng():  # the caller's random state stays as it is
        torch.manual_seed(config.seed)
        model = LSTMClassifier(
            train.values.shape[1], config.hidden, config.layers, dropout=config.dropout,
            bidirectional=config.bidirectional, use_last_only=config.use_last_only, outputs=outputs,
            skip=config.skip,
        ).to(device)  # fmt: skip
        optimiser = torch.optim.Adam(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        best, history = _clone(model), list[Epoch]()
        if checkpoint is not None and checkpoint.exists():
            best, history = _load(checkpoint, model, optimiser)
        while not _is_over(history, config):
            epoch = len(history)
            # the random state of an epoch is a function of seed and epoch, so a checkpoint holds it
            torch.manual_seed(config.seed * 100_003 + epoch)
            random = np.random.default_rng([config.seed, epoch])
            model.train()
            total = 0.0
            for indices, events, lengths in iterate(parts[0], config.batch, random, views):
                events = _drop(events, themes, config)
                optimiser.zero_grad()
                loss = loss_of(model, events, lengths, labels[0][indices], weights, config.every_step)
                _check_finite(loss, epoch, indices, "training")
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimiser.step()
                total += loss.item() * len(indices)
            valid_loss = _mean_loss(model, parts[1], labels[1], weights, config, epoch)
            history.append({"epoch": epoch + 1, "train_loss": total * views / len(train), "valid_loss": valid_loss})
            if _best_of(history) == epoch:
                best = _clone(model)
            if checkpoint is not None:
                _save(checkpoint, model, optimiser, best, history)
            if progress is not None:
                progress(history[-1], config.epochs)
    model.load_state_dict(best)
    return Fitted(model.cpu().eval(), history, _best_of(history) + 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works with one thread inside.

    Batches this small gain little from a second thread, lose a hundredfold where another program holds the
    core it waits for, and differ in their last bits with the number of threads. That number and the random
    state are the whole process's, so Python threads that train (joblib's, say) take turns.
    """
    with _TURN:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _drop(events: Tensor, themes: NDArray[np.int64] | None, config: Config) -> Tensor:
    """(B, T, F) events in which each sequence lacks random features and whole themes from end to end, so that no
    few of them tell a client of the training set; without rescaling, since a mean stands for a missing one."""
    if not config.feature_dropout and not config.theme_dropout:
        return events
    keep = torch.rand(len(events), 1, events.shape[2], device=events.device) >= config.feature_dropout
    if themes is not None and config.theme_dropout:
        told = torch.rand(len(events), int(themes.max()) + 2, device=events.device) >= config.theme_dropout
        told[:, -1] = True
        keep &= told[:, torch.from_numpy(themes)][:, None]
    return events * keep


def loss_of(
    model: LSTMClassifier, events: Tensor, lengths: Tensor, label: Tensor, weights: Tensor | None, every_step: bool
) -> Tensor:
    """The loss of a batch, meaned over its sequences.

    With ``every_step`` it is the loss of the score after each query, meaned over the sequence so that
    long ones count no more, plus (for two classes) the loss of its peak, since one alert anywhere is an alert.
    """
    if not every_step:
        return _loss(model(events, lengths), label, weights).mean()
    logits = model.every_step(events)  # (B, T), or (B, T, outputs)
    steps = torch.arange(logits.shape[1], device=logits.device)
    valid = steps < lengths.to(logits.device)[:, None]  # (B, T)
    share = valid * ((steps + 1) / RAMP).clamp(max=1.0)
    share = share / share.sum(dim=1, keepdim=True)
    along = (_loss(logits, label[:, None].expand(share.shape), weights) * share).sum(dim=1)  # (B,)
    if logits.ndim > 2:
        return along.mean()
    peak = logits.masked_fill(~valid, -torch.inf).amax(dim=1)  # (B,)
    return (along + _loss(peak, label, weights)).mean()


def _loss(logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    if label.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, label, pos_weight=weights, reduction="none")
    flat = functional.cross_entropy(logits.flatten(0, -2), label.flatten(), weight=weights, reduction="none")
    return flat.view(label.shape)


def _mean_loss(
    model: LSTMClassifier, part: Sequences, label: Tensor, weights: Tensor | None, config: Config, epoch: int
) -> float:
    model.eval()
    total = 0.0
    with torch.no_grad():
        for indices, events, lengths in iterate(part, max(config.batch, 64)):
            loss = loss_of(model, events, lengths, label[indices], weights, config.every_step)
            _check_finite(loss, epoch, indices, "validation")
            total += loss.item() * len(indices)
    return total / len(label)


def check_sequences(sequences: Ragged, name: str) -> None:
    """Raise DataError for an empty sequence or a value that is not finite, with the sequence's number."""
    if len(sequences) == 0:
        raise DataError(f"there are no {name} sequences.")
    if not sequences.lengths.all():
        empty = int(np.argmin(sequences.lengths))
        raise DataError(f"{name} sequence {empty} is empty, expected at least one step; leave it out.")
    finite = np.isfinite(sequences.values).all(axis=1)
    if not finite.all():
        step = int(np.argmin(finite))
        where = int(np.searchsorted(sequences.offsets, step, side="right")) - 1
        raise DataError(
            f"{name} sequence {where} has a value that is not finite at step {step - sequences.offsets[where]},"
            " expected finite numbers only; fill or drop it."
        )


def _check_finite(loss: Tensor, epoch: int, indices: NDArray[np.int64], part: str) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss.item()} in epoch {epoch + 1}, in the batch of {part} sequences {indices[:8].tolist()}…;"
            " lower learning_rate or clip, or look for extreme values in these sequences."
        )


def _as_labels(label: NDArray[Any], outputs: int, device: torch.device) -> Tensor:
    return torch.as_tensor(label, dtype=torch.float32 if outputs == 1 else torch.int64, device=device)


def _class_weights(label: NDArray[Any], outputs: int, balanced: bool, device: torch.device) -> Tensor | None:
    if not balanced:
        return None
    counts = np.bincount(label.astype(np.int64), minlength=max(outputs, 2)).clip(1)
    weights = [counts[0] / counts[1]] if outputs == 1 else len(label) / (outputs * counts)
    return torch.as_tensor(np.array(weights), dtype=torch.float32, device=device)


def _best_of(history: list[Epoch]) -> int:
    return int(np.argmin([epoch["valid_loss"] for epoch in history]))


def _is_over(history: list[Epoch], config: Config) -> bool:
    if not history:
        return False
    return len(history) >= config.epochs or len(history) - 1 - _best_of(history) >= config.patience


def _clone(model: LSTMClassifier) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _save(
    path: Path, model: LSTMClassifier, optimiser: torch.optim.Adam, best: dict[str, Tensor], history: list[Epoch]
) -> None:
    """Write the whole state of the loop; the file is replaced at once or not at all."""
    tensors = {f"model/{name}": tensor for name, tensor in _clone(model).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": tensor.cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, {"history": json.dumps(history)})


def _load(path: Path, model: LSTMClassifier, optimiser: torch.optim.Adam) -> tuple[dict[str, Tensor], list[Epoch]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history: list[Epoch] = json.loads(file.metadata()["history"])
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, field = name.partition("/")
            state.setdefault(int(index), {})[field] = tensor
        model.load_state_dict(parts["model"])
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        told = " ".join(str(error).split())  # torch tells each mistake on a line of its own
        raise DataError(f"{path}: not a checkpoint of this run ({told}); delete it and train again.") from error
    return parts["best"], history
