"""SequenceClassifier: the network and its training as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from probewatch.data.ragged import Ragged
from probewatch.errors import ConfigError, DataError
from probewatch.learn.batches import Sequences, iterate
from probewatch.learn.given import read_groups, read_labels, read_sequences
from probewatch.learn.presets import Config
from probewatch.learn.train import Epoch, fit, one_thread

SCORED_TOGETHER = 64  # sequences a batch: the fastest of 16, 64 and 256
STEPS_AT_ONCE = 2**20  # padded steps scored together: bounds the memory of a very long sequence
SATURATED = 1e6  # deviations, beyond which the network's gates no longer move and float32 could overflow

_LOOP = (
    *("hidden", "layers", "bidirectional", "dropout", "batch", "epochs", "patience", "learning_rate"),
    *("weight_decay", "clip", "balanced", "every_step", "valid_share"),
)  # parameters that are settings of Config too


class SequenceClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An LSTM that tells classes of numeric sequences of unequal lengths.

    ``X`` is a list (or object array, or 3-D array, or :class:`Ragged`) of S arrays, each (T, F): T may differ
    from one to the next, F may not. They need not be query logs. A part of what is given to ``fit`` is held
    out inside to know when to stop; the weights that were best on it are kept.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> X = [random.normal(s % 2, 0.1, (3 + s % 5, 2)) for s in range(40)]  # 40 sequences of 3 to 7 steps
    >>> y = ["odd" if s % 2 else "even" for s in range(40)]
    >>> model = SequenceClassifier(hidden=4, epochs=20, learning_rate=0.1).fit(X, y)
    >>> model.predict(X[:3]).tolist()
    ['even', 'odd', 'even']

    Args:
        hidden: units of each layer and direction.
        layers: stacked LSTM layers.
        bidirectional: read each sequence from both ends.
        dropout: probability, before the linear layer and between layers.
        batch: sequences in a training batch.
        epochs: passes over the training sequences, at most.
        patience: stop after this many epochs without a lower validation loss.
        learning_rate, weight_decay: of Adam.
        clip: bound on the gradient's norm.
        balanced: weigh each class by how rare it is.
        every_step: learn from the score after every step (with two classes, from its peak too), so that a
            sequence can be told before its end; not with ``bidirectional``.
        valid_share: share of the sequences of each class (of the groups, where ``fit`` is given them) that is
            held out inside, at least one of each class.
        scale: subtract the mean of each feature over all training steps and divide by its deviation.
        random_state: of the inner split, weights, batches and dropout; None draws another every time.
        device: where to train: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        verbose: print the losses of every epoch.

    Attributes:
        classes_: (C,) the labels, sorted; for two classes, a high score means the second.
        n_features_in_: F.
        history_: for each epoch its number ``epoch``, ``train_loss`` and ``valid_loss``.
        best_epoch_: number of the epoch whose weights were kept.
        model_: the trained ``LSTMClassifier``, on the CPU.
        scaler_: the ``StandardScaler``, None without ``scale``.
    """

    def __init__(
        self,
        *,
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.5,
        batch: int = 32,
        epochs: int = 60,
        patience: int = 10,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        clip: float = 1.0,
        balanced: bool = True,
        every_step: bool = False,
        valid_share: float = 0.2,
        scale: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.batch = batch
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip = clip
        self.balanced = balanced
        self.every_step = every_step
        self.valid_share = valid_share
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> SequenceClassifier:
        """Train on S sequences.

        Args:
            X: S sequences, each (T, F) with at least one step, finite in float32.
            y: (S,) labels of any kind, two classes or more.
            groups: (S,) all numbers or all strings; the sequences of one group are held out inside together.

        Raises:
            DataError: sequences that are empty, not finite in float32 or of different widths, one class only, a
                class of one sequence or group, groups of mixed kinds.
            ConfigError: a parameter is wrong.
            TrainingError: a loss that is not finite.
        """
        random = check_random_state(self.random_state)
        # Config also holds what a log's features need, which fit() does not read
        config = Config(every_step=False, decision="last", feature_dropout=0.0).with_changes(
            {name: _plain(getattr(self, name)) for name in _LOOP} | {"seed": int(random.randint(2**31))}
        )
        device = _device(self.device)
        values, offsets = read_sequences(X)
        classes, numbers = np.unique(read_labels(y, len(offsets) - 1), return_inverse=True)
        train, valid = _hold_out(numbers, classes.tolist(), groups, config)
        learned = np.repeat(np.isin(np.arange(len(numbers)), train), np.diff(offsets))  # (N,) bool
        scaler = StandardScaler().fit(values[learned]) if self.scale else None
        inputs = _scaled(values, offsets, scaler)
        fitted = fit(
            inputs.take(train), numbers[train], inputs.take(valid), numbers[valid], config,
            device=device, outputs=1 if len(classes) == 2 else len(classes),
            progress=_print_epoch if self.verbose else None,
        )  # fmt: skip
        self.classes_, self.n_features_in_, self.scaler_ = classes, values.shape[1], scaler
        self.model_, self.history_, self.best_epoch_ = fitted.model, fitted.history, fitted.best_epoch
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The logits of S whole sequences, however long: (S,) for two classes, high = the second; else (S, C).

        A sequence's scores do not depend on the others in ``X``.

        Raises:
            sklearn.exceptions.NotFittedError: before ``fit``.
            DataError: sequences that are empty, not finite or not as wide as those of ``fit``.
        """
        check_is_fitted(self)
        values, offsets = read_sequences(X, self.n_features_in_)
        inputs = _scaled(values, offsets, self.scaler_)
        shape = (len(inputs),) if len(self.classes_) == 2 else (len(inputs), len(self.classes_))
        logits = np.empty(shape, np.float64)
        size = int(np.clip(STEPS_AT_ONCE // inputs.lengths.max(), 1, SCORED_TOGETHER))
        with one_thread(), torch.no_grad():
            for indices, events, lengths in iterate(Sequences(inputs, torch.device("cpu")), size):
                logits[indices] = self.model_(events, lengths).numpy()
        return logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(S, C) probability of each class; raises as :meth:`decision_function`."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))  # (S, C)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        """(S,) the likeliest label; raises as :meth:`decision_function`."""
        logits = self.decision_function(X)
        chosen = (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


def _hold_out(
    numbers: NDArray[np.int64], classes: list[Any], groups: ArrayLike | None, config: Config
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation indices, every class in both, no group in both."""
    if len(classes) < 2:
        raise DataError(f"all of y is {classes[0]!r}, expected at least 2 classes.")
    unique, of = read_groups(np.arange(len(numbers)) if groups is None else groups, len(numbers))
    has = np.zeros((len(unique), len(classes)), bool)  # (G, C): which group holds which class
    has[of, numbers] = True
    left = has.sum(axis=0)  # (C,) groups of each class that are not held out
    wanted = np.maximum(1, np.round(config.valid_share * left))
    held, count = np.zeros(len(unique), bool), np.zeros(len(classes), np.int64)
    random = np.random.default_rng(config.seed)
    for number in np.argsort(left, kind="stable"):  # the rarest class has the least choice, so it chooses first
        for group in random.permutation(np.flatnonzero(has[:, number] & ~held)):
            if count[number] >= wanted[number]:
                break
            if left[has[group]].min() > 1:  # not the last of a class to learn from
                held[group] = True
                count += has[group]
                left = left - has[group]
        if not count[number]:
            raise DataError(
                f"class {classes[number]!r} has too few {'sequences' if groups is None else 'groups'} of its own,"
                " expected at least 2: one to learn from, and one to know when to stop."
            )
    return np.flatnonzero(~held[of]), np.flatnonzero(held[of])


def _scaled(values: NDArray[np.float64], offsets: NDArray[np.int64], scaler: StandardScaler | None) -> Ragged:
    """(N, F) steps as network inputs; scaled before float32 takes digits away."""
    if scaler is not None:
        values = np.clip(scaler.transform(values), -SATURATED, SATURATED)
    return Ragged(values.astype(np.float32), offsets)


def _device(name: str) -> torch.device:
    there = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not there):
        told = "auto, cpu or cuda" if there else "auto or cpu: there is no CUDA here"
        raise ConfigError(f"device is {name!r}, expected {told}.")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _plain(value: Any) -> Any:
    """NumPy numbers, as a parameter grid holds them, as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _print_epoch(epoch: Epoch, epochs: int) -> None:
    told = f"train_loss {epoch['train_loss']:.4f}, valid_loss {epoch['valid_loss']:.4f}"
    print(f"epoch {epoch['epoch']} of at most {epochs}: {told}")
