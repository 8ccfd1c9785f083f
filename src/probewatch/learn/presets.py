"""Config: every choice of a training run, its presets, and its TOML form."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from probewatch.data.columns import ARTICLE, DEFAULT, FEATURES
from probewatch.data.wording import listed
from probewatch.errors import ConfigError

SplitBy = Literal["stratified", "client", "time"]
Decision = Literal["peak", "last"]


@dataclass(frozen=True)
class Config:
    """Every choice of a training run; the defaults are the default preset.

    Attributes:
        features: columns, in order, out of ``probewatch.data.features.FEATURES``.
        hidden, layers, bidirectional, use_last_only, dropout: see ``LSTMClassifier``.
        skip: a linear layer of the features themselves beside the LSTM.
        feature_dropout: share of the features that each training sequence lacks, anew in every batch.
        theme_dropout: share of the themes (see ``probewatch.data.columns.THEMES``) that each lacks, anew likewise: a
            detector must know an attack by any of several signs, since one on another model may lack some.
        folds: 1 trains one network and validates it on the validation sessions. More cut the training and
            validation clients into that many folds and train a network on all but each, which validates
            it; the logits of all are averaged, and threshold and calibration come from the scores of
            each fold by the network that did not learn from it.
        trees: grow trees too, of each query's features, which count beside the networks (see
            ``probewatch.learn.trees``); not beside bidirectional ones.
        habits: weight of the trees of every feature beside the networks, on a model that training saw and whose
            profile tells evidence: networks need fewer queries.
        habits_abroad: the same elsewhere.
        evidence: weight of the trees that only see what a query has to do with training records, on a model that
            training saw; networks and the other trees share the rest.
        evidence_abroad: the same on a model that training never saw, whose clients may have other habits.
        enough: log-odds of evidence beyond which more of it counts for nothing: customers who come back gather it too.
            0 means: no end.
        pretrained: weight of the trees that come with the package (see ``probewatch.learn.pretrained``), on a model
            that training saw; they know attacks and uses that a log may lack.
        pretrained_abroad: the same on a model that training never saw.
        every_step: learn from the score after every query and from its peak, not from the last alone.
        decision: the score of a session: its ``peak`` so far, or its ``last``.
        limit: scaled features are cut to plus or minus this many deviations; 0 leaves them whole.
        steps: training sequences are cut to this many queries; 0 leaves them whole.
        batch, epochs, patience, learning_rate, weight_decay, clip: the loop; ``clip`` bounds the
            gradient's norm.
        balanced: weigh attacks by how few they are.
        split, test_share, valid_share, split_seed: what is held out; ``valid_share`` is of the rest.
        threshold: alert at this score; 0 means: chosen for ``max_fpr``.
        max_fpr: share of benign sessions that may raise an alert; 0 means: 1 %, or the least that so few
            benign sessions can support.
        seed: of weights, batches and dropout.
    """

    features: tuple[str, ...] = DEFAULT
    hidden: int = 32
    layers: int = 1
    bidirectional: bool = False
    use_last_only: bool = True
    dropout: float = 0.5
    skip: bool = True
    feature_dropout: float = 0.2
    theme_dropout: float = 0.3
    folds: int = 3
    trees: bool = True
    habits: float = 0.5
    habits_abroad: float = 0.8
    evidence: float = 0.2
    evidence_abroad: float = 0.4
    enough: float = 2.5
    pretrained: float = 0.2
    pretrained_abroad: float = 0.8
    every_step: bool = True
    decision: Decision = "peak"
    limit: float = 8.0
    steps: int = 0
    batch: int = 32
    epochs: int = 60
    patience: int = 10
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    balanced: bool = True
    split: SplitBy = "client"
    test_share: float = 0.3
    valid_share: float = 0.2
    split_seed: int = 42
    threshold: float = 0.0
    max_fpr: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} is {getattr(self, name)!r}, expected {wanted}"
            for name, (wanted, holds) in _RULES.items()
            if not holds(getattr(self, name))
        ]
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features or len(set(self.features)) < len(self.features):
            twice = [name for name in dict.fromkeys(self.features) if self.features.count(name) > 1]
            wrong = f"unknown ({listed(unknown)})" if unknown else f"repeated ({listed(twice)})" if twice else "none"
            mistakes.append(f"features are {wrong}, expected distinct names out of: {listed(FEATURES)}")
        if self.bidirectional and (self.every_step or self.decision == "peak"):
            mistakes.append(
                "bidirectional reads a session from its end, so it goes with every_step = false and decision = 'last'"
            )
        if mistakes:
            raise ConfigError("The configuration is wrong: " + "; ".join(mistakes) + ".")

    def with_changes(self, changes: Mapping[str, Any]) -> Config:
        """This configuration with some fields changed, all mistakes named at once.

        Raises:
            ConfigError: unknown fields, wrong types or values out of range.
        """
        hints = get_type_hints(Config)
        mistakes, fields = [], {}
        for name, value in changes.items():
            if name not in hints:
                mistakes.append(f"{name!r} is no setting, expected one of: {listed(_nearest(name, hints))}")
                continue
            try:
                fields[name] = _as_type(value, hints[name])
            except (TypeError, ValueError, OverflowError):
                mistakes.append(f"{name} is {value!r}, expected {_type_name(hints[name])}")
        if mistakes:
            raise ConfigError("The configuration is wrong: " + "; ".join(mistakes) + ".")
        return dataclasses.replace(self, **fields)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**dataclasses.asdict(self), "features": list(self.features)}


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names, those that look like ``name`` first."""
    return sorted(names, key=lambda one: -difflib.SequenceMatcher(None, name, one).ratio())


def _between(low: float, high: float) -> tuple[str, Any]:
    return f"from {low:g} to {high:g}", lambda value: low <= value <= high


def _open(low: float, high: float) -> tuple[str, Any]:
    return f"between {low:g} and {high:g}", lambda value: low < value < high


_RULES: dict[str, tuple[str, Any]] = {
    "hidden": _between(1, 4096),
    "layers": _between(1, 16),
    "dropout": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "feature_dropout": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "theme_dropout": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "folds": _between(1, 16),
    "habits": _between(0, 1),
    "habits_abroad": _between(0, 1),
    "evidence": _between(0, 1),
    "evidence_abroad": _between(0, 1),
    "enough": _between(0, 100),
    "pretrained": _between(0, 1),
    "pretrained_abroad": _between(0, 1),
    "decision": ("peak or last", lambda value: value in get_args(Decision)),
    "limit": _between(0, 1e6),
    "steps": _between(0, 1e9),
    "batch": _between(1, 1e6),
    "epochs": _between(1, 1e6),
    "patience": _between(1, 1e6),
    "learning_rate": _open(0, 10),
    "weight_decay": _between(0, 10),
    "clip": _open(0, 1e9),
    "split": ("stratified, client or time", lambda value: value in get_args(SplitBy)),
    "test_share": _open(0, 1),
    "valid_share": _open(0, 1),
    "threshold": _between(0, 1),
    "max_fpr": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "seed": _between(0, 2**32 - 1),
    "split_seed": _between(0, 2**32 - 1),
}


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint) or (" or ".join(get_args(hint)) if get_args(hint)[-1:] != (Ellipsis,) else "a list of names")


def _as_type(value: Any, hint: Any) -> Any:
    if hint is bool or isinstance(value, bool):
        if hint is not bool or not isinstance(value, bool):
            raise TypeError
        return value
    if hint in (int, float):
        if not isinstance(value, int | float) or (hint is int and value != int(value)):
            raise TypeError
        return hint(value)
    if get_args(hint)[-1:] == (Ellipsis,):
        if isinstance(value, str) or not all(isinstance(name, str) for name in value):
            raise TypeError
        return tuple(value)
    if not isinstance(value, str):
        raise TypeError
    return value


PRESETS: dict[str, Config] = {
    "default": Config(),
    "article": Config(  # spec rows A2 to A17, to the letter
        features=ARTICLE,
        hidden=64,
        skip=False,
        feature_dropout=0.0,
        theme_dropout=0.0,
        folds=1,
        trees=False,
        every_step=False,
        decision="last",
        limit=0.0,
        steps=150,
        batch=16,
        epochs=100,
        patience=10,
        learning_rate=1e-3,
        weight_decay=0.0,
        balanced=False,
        split="stratified",
        threshold=0.5,
    ),
}


def read_table(path: Path | str) -> dict[str, Any]:
    """The settings of a TOML file, which has one ``name = value`` a line.

    Raises:
        ConfigError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the configuration is not TOML ({error}).") from error
