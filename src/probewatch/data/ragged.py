"""Ragged: all sequences of a data set in two arrays, no padding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probewatch.data.artefacts import replacing
from probewatch.data.records import offsets_of, ranges
from probewatch.errors import DataError

Side = Literal["pre", "post"]


@dataclass(frozen=True)
class Ragged:
    """S sequences of F features each, laid end to end.

    Lengths are always derived from ``offsets`` and never carried beside the data: a length that
    outlives a truncation is what crashed the article's system.

    >>> sequences = Ragged.from_list([[[1.0], [2.0]], [[3.0]]])
    >>> len(sequences), sequences.lengths.tolist(), sequences[1].tolist()
    (2, [2, 1], [[3.0]])

    Attributes:
        values: (N, F) float32, the steps of all sequences.
        offsets: (S + 1,) int64; sequence ``s`` is ``values[offsets[s]:offsets[s + 1]]``.
    """

    values: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise DataError(f"values have {self.values.ndim} axes, expected 2: (steps, features).")
        ends_right = len(self.offsets) > 0 and self.offsets[0] == 0 and self.offsets[-1] == len(self.values)
        if not ends_right or np.any(np.diff(self.offsets) < 0):
            raise DataError(f"offsets must rise from 0 to the {len(self.values)} steps of the values.")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """(T, F) view of one sequence."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) steps of each sequence."""
        return np.diff(self.offsets)

    @classmethod
    def from_list(cls, sequences: Sequence[Any]) -> Ragged:
        """Sequences as arrays or nested lists, each (T, F), as one Ragged.

        Raises:
            DataError: they do not all have two axes and the same number of features.
        """
        arrays = [np.asarray(sequence, np.float32) for sequence in sequences]
        widths = {array.shape[1] for array in arrays if array.ndim == 2}
        for index, array in enumerate(arrays):
            if array.size == 0 and array.ndim == 1:
                arrays[index] = array.reshape(0, next(iter(widths), 0))
            elif array.ndim != 2:
                raise DataError(f"sequence {index} has {array.ndim} axes, expected 2: (steps, features).")
        widths = {array.shape[1] for array in arrays}
        if len(widths) > 1:
            raise DataError(f"sequences have {sorted(widths)} features, expected the same number in all.")
        values = np.concatenate(arrays) if arrays else np.zeros((0, 0), np.float32)
        return cls(values, offsets_of(np.array([len(array) for array in arrays], np.int64)))

    def take(self, indices: NDArray[Any]) -> Ragged:
        """The sequences at ``indices`` ((K,) int or (S,) bool), in that order."""
        indices = np.arange(len(self))[indices]
        lengths = self.lengths[indices]
        return Ragged(self.values[ranges(self.offsets[indices], lengths)], offsets_of(lengths))

    def truncate(self, steps: int, side: Side = "post") -> Ragged:
        """At most ``steps`` of each sequence: ``post`` cuts the end off, ``pre`` the beginning."""
        kept = np.minimum(self.lengths, steps)
        starts = self.offsets[:-1] if side == "post" else self.offsets[1:] - kept
        return Ragged(self.values[ranges(starts, kept)], offsets_of(kept))

    def pad(
        self, steps: int, *, padding: Side = "post", truncating: Side = "post", value: float = 0.0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """The article's fixed-length arrays (A6), for tests and benches.

        Returns:
            (S, steps, F) float32; (S,) int64 lengths of what was kept; (S,) int64 first real step,
            0 unless ``padding`` is ``pre``.
        """
        kept = self.truncate(steps, truncating)
        lengths = kept.lengths
        starts = steps - lengths if padding == "pre" else np.zeros(len(kept), np.int64)
        padded = np.full((len(kept), steps, self.values.shape[1]), value, np.float32)
        padded[np.repeat(np.arange(len(kept)), lengths), ranges(starts, lengths)] = kept.values
        return padded, lengths, starts

    def save(self, path: Path | str) -> None:
        """Write to a Parquet file, a row a sequence; the file appears whole or not at all."""
        steps = pa.FixedSizeListArray.from_arrays(pa.array(self.values.reshape(-1)), max(self.values.shape[1], 1))
        table = pa.table({"sequence": pa.LargeListArray.from_arrays(pa.array(self.offsets), steps)})
        table = table.replace_schema_metadata({"probewatch": json.dumps({"features": self.values.shape[1]})})
        with replacing(Path(path)) as partial:
            pq.write_table(table, partial)

    @classmethod
    def load(cls, path: Path | str) -> Ragged:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is not one that ``save`` wrote.
        """
        try:
            table = pq.read_table(path)
            column = table.column("sequence").combine_chunks()
            width = json.loads(table.schema.metadata[b"probewatch"])["features"]
            offsets = column.offsets.to_numpy().astype(np.int64)
            steps = column.values.flatten().to_numpy(zero_copy_only=False)
        except (pa.ArrowException, KeyError, TypeError, AttributeError, OSError) as error:
            raise DataError(f"{path}: not a file of sequences ({error}); write it with Ragged.save.") from error
        values = np.asarray(steps, np.float32).reshape(int(offsets[-1] - offsets[0]), width)
        return cls(values, offsets - offsets[0])
