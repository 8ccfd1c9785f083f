"""What an estimator is given, sequences, labels and groups, read and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import type_of_target

from probewatch.data.ragged import Ragged
from probewatch.data.records import offsets_of
from probewatch.data.wording import listed
from probewatch.errors import DataError
from probewatch.learn.train import check_sequences

LARGEST = float(np.finfo(np.float32).max)


def read_sequences(X: Any, width: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, F) float64 steps of S sequences laid end to end, and their (S + 1,) offsets; all checked.

    Args:
        X: a list of S arrays (T, F), an object array, a 3-D array or a :class:`Ragged`.
        width: the F that is expected; None takes that of the first.

    Raises:
        DataError: sequences that are empty, not finite in float32 or of different widths, or none.
    """
    if isinstance(X, Ragged):
        arrays: Sequence[NDArray[Any]] = [X[index] for index in range(len(X))]
    else:
        try:
            arrays = [_read_sequence(sequence, index) for index, sequence in enumerate(X)]
        except TypeError as error:
            raise DataError(f"X is a {type(X).__name__}, expected a list of (T, F) arrays.") from error
    told = "as those that the classifier was fitted on" if width else "as those before it"
    for index, array in enumerate(arrays):
        if array.size and array.shape[1] != (width := width or array.shape[1]):
            raise DataError(f"sequence {index} has {array.shape[1]} features, expected {width}, {told}.")
    offsets = offsets_of(np.array([len(array) if array.size else 0 for array in arrays], np.int64))
    full = [array for array in arrays if array.size]
    values = np.concatenate(full, dtype=np.float64) if full else np.zeros((0, width or 0))
    beyond = np.flatnonzero((np.isfinite(values) & (np.abs(values) > LARGEST)).any(axis=1))
    if len(beyond):
        index = int(np.searchsorted(offsets, beyond[0], side="right")) - 1
        raise DataError(
            f"sequence {index} has a value beyond what float32 holds ({LARGEST:.1e}) at step"
            f" {beyond[0] - offsets[index]}; divide the feature by a constant."
        )
    check_sequences(Ragged(values.astype(np.float32), offsets), "input")
    return values, offsets


def _read_sequence(sequence: Any, index: int) -> NDArray[Any]:
    try:
        array = np.asarray(sequence)
        if array.dtype.kind not in "biuf":
            array = array.astype(np.float64, casting="unsafe" if array.dtype.kind == "O" else "safe")
    except OverflowError as error:
        raise DataError(
            f"sequence {index} has a value beyond what a float holds ({error}); divide the feature by a constant."
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"sequence {index} is no array of numbers ({error}), expected (T, F).") from error
    if array.size and array.ndim != 2:
        raise DataError(
            f"sequence {index} has {array.ndim} axes, expected 2: (steps, features); X is a list of such arrays."
        )
    return array


def read_labels(y: ArrayLike, sequences: int) -> NDArray[Any]:
    """(S,) classes.

    Raises:
        DataError: they are not S, or no classes.
    """
    try:
        labels = np.asarray(y)
        with np.errstate(invalid="ignore"):  # it casts NaN before it refuses it
            kind = type_of_target(labels, input_name="y")
    except (TypeError, ValueError) as error:
        raise DataError(f"y cannot be used as labels ({error}); give each sequence one class.") from error
    if labels.shape != (sequences,):
        raise DataError(f"y has the shape {labels.shape}, expected a label for each of the {sequences} sequences.")
    if kind not in ("binary", "multiclass"):
        told = "of mixed kinds, or too large" if kind == "unknown" else kind
        raise DataError(f"y is {told}, expected classes: whole numbers below 2**63, strings or booleans.")
    return labels


def read_groups(groups: ArrayLike, sequences: int) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """(G,) the groups, sorted, and (S,) which of them each sequence is in.

    Raises:
        DataError: they are not S, some are missing, or they are of mixed kinds.
    """
    names = np.asarray(groups, object)  # any other type would make 1 and "1" one group, and large numbers too
    if names.shape != (sequences,):
        raise DataError(f"groups has the shape {names.shape}, expected {(sequences,)}: one for each sequence.")
    kinds = sorted(set(map(_kind, names)))
    try:
        if len(kinds) > 1 or not {"None", "NaN"}.isdisjoint(kinds):
            raise TypeError(f"found {listed(kinds)}")
        unique, of = np.unique(names, return_inverse=True)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"groups cannot be told apart ({error}); give every sequence one, all of them numbers or all strings."
        ) from error
    return unique, of


def _kind(one: Any) -> str:
    """What a group's name is, in a word."""
    if one is None:
        return "None"
    if isinstance(one, float) and math.isnan(one):
        return "NaN"
    return "number" if isinstance(one, Number | np.bool_) else type(one).__name__
