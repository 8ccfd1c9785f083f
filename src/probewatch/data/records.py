"""Query and session: the columns in which a log travels from its reader to its features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1  # a label or class that the log does not tell


@dataclass(frozen=True)
class Sessions:
    """The columns of S sessions over N queries, each session of one client on one model, in time order.

    Attributes:
        session, client, model: (S,) str objects; ``model`` is "" where the log has none.
        offsets: (S + 1,) int64; the queries of session ``s`` are ``offsets[s]:offsets[s + 1]``.
        time_s: (N,) float64, seconds since 1970, never decreasing within a session.
        confidence: (N,) float64, probability from 0 to 1 of the predicted class; NaN where absent.
        predicted_class: (N,) int64 code, -1 where absent; the same text has the same code in every log.
        inputs: (M,) float64, all input vectors end to end.
        input_offsets: (N + 1,) int64; query ``i`` asked ``inputs[input_offsets[i]:input_offsets[i + 1]]``.
        digest: (N,) uint64 hash of an input vector that the log does not show, 0 where absent; empty if there is none.
        given: feature columns that the log already holds (the article's JSON), each (N,) float64.
        arrival: (S,) int64, where in the log each session first comes up; empty where that is not known.
        label: (S,) int8, 1 attack, 0 benign, -1 where the log itself does not say.
        before: (S,) int64, queries of the same session in earlier chunks; non-zero for the first at most.
        ends: (S,) bool, False where the next chunk goes on with the session; for the last at most.
    """

    session: NDArray[np.object_]
    client: NDArray[np.object_]
    model: NDArray[np.object_]
    offsets: NDArray[np.int64]
    time_s: NDArray[np.float64]
    confidence: NDArray[np.float64]
    predicted_class: NDArray[np.int64]
    inputs: NDArray[np.float64]
    input_offsets: NDArray[np.int64]
    label: NDArray[np.int8]
    before: NDArray[np.int64]
    ends: NDArray[np.bool_]
    given: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    arrival: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    digest: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) queries in each session, derived from the offsets."""
        return np.diff(self.offsets)

    def take(self, indices: NDArray[Any]) -> Sessions:
        """The sessions at ``indices`` ((K,) int or (S,) bool), in that order, as new columns."""
        indices = np.arange(len(self))[indices]
        lengths = self.lengths[indices]
        return self._pick(indices, ranges(self.offsets[indices], lengths), lengths)

    def keep(self, kept: NDArray[np.bool_]) -> Sessions:
        """The same sessions with the queries alone that ``kept`` ((N,) bool) marks, as new columns."""
        before = np.append(0, np.cumsum(kept))
        return self._pick(np.arange(len(self)), np.flatnonzero(kept), np.diff(before[self.offsets]))

    def _pick(self, indices: NDArray[np.int64], queries: NDArray[np.int64], lengths: NDArray[np.int64]) -> Sessions:
        """The sessions at ``indices``, ``lengths`` long, with the queries at ``queries``."""
        inputs, input_offsets = gather(self.inputs, self.input_offsets, queries)
        return Sessions(
            session=self.session[indices],
            client=self.client[indices],
            model=self.model[indices],
            offsets=offsets_of(lengths),
            time_s=self.time_s[queries],
            confidence=self.confidence[queries],
            predicted_class=self.predicted_class[queries],
            inputs=inputs,
            input_offsets=input_offsets,
            label=self.label[indices],
            before=self.before[indices],
            ends=self.ends[indices],
            given={name: column[queries] for name, column in self.given.items()},
            arrival=self.arrival[indices] if len(self.arrival) else self.arrival,
            digest=self.digest[queries] if len(self.digest) else self.digest,
        )

    @classmethod
    def concat(cls, parts: Sequence[Sessions]) -> Sessions:
        """All of ``parts`` as one; a session cut between two parts becomes whole again."""
        if len(parts) == 1:
            return parts[0]
        starts = np.concatenate([part.before == 0 for part in parts]) if parts else np.zeros(0, bool)
        lengths = np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, np.int64)
        names = set.intersection(*(set(part.given) for part in parts)) if parts else set()

        def column(name: str, dtype: Any) -> NDArray[Any]:
            found = [getattr(part, name) for part in parts]
            return np.concatenate(found) if found else np.zeros(0, dtype)

        arrival, label = column("arrival", np.int64), column("label", np.int8)
        digests = [part.digest if len(part.digest) else np.zeros(len(part.time_s), np.uint64) for part in parts]
        return cls(
            session=column("session", object)[starts],
            client=column("client", object)[starts],
            model=column("model", object)[starts],
            offsets=np.append(offsets_of(lengths)[:-1][starts], lengths.sum()).astype(np.int64),
            time_s=column("time_s", np.float64),
            confidence=column("confidence", np.float64),
            predicted_class=column("predicted_class", np.int64),
            inputs=column("inputs", np.float64),
            input_offsets=offsets_of(
                np.concatenate([np.diff(part.input_offsets) for part in parts]) if parts else np.zeros(0, np.int64)
            ),
            label=np.maximum.reduceat(label, np.flatnonzero(starts)) if len(label) else label,
            before=np.zeros(int(starts.sum()), np.int64),
            ends=np.ones(int(starts.sum()), bool),
            given={name: np.concatenate([part.given[name] for part in parts]) for name in sorted(names)},
            arrival=np.minimum.reduceat(arrival, np.flatnonzero(starts)) if len(arrival) else arrival,
            digest=np.concatenate(digests) if any(len(part.digest) for part in parts) else np.zeros(0, np.uint64),
        )


def coded(names: Iterable[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different names in their order, and (n,) the place of each in them.

    An array of text would give every name the room of the longest.

    >>> coded(["b", "a", "b"])
    (['a', 'b'], array([1, 0, 1]))
    """
    place: dict[str, int] = {}
    first = np.fromiter((place.setdefault(name, len(place)) for name in names), np.int64)
    order = sorted(place)
    rank = np.empty(len(order), np.int64)
    rank[[place[name] for name in order]] = np.arange(len(order))
    return order, rank[first]


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """(S + 1,) int64 offsets of pieces of these (S,) lengths laid end to end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def gather(
    values: NDArray[Any], offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ``rows`` of a ragged array, of (N + 1,) ``offsets``, as new values and offsets.

    >>> gather(np.array([1, 2, 3, 4, 5]), np.array([0, 2, 3, 5]), np.array([2, 1]))
    (array([4, 5, 3]), array([0, 2, 3]))
    """
    every = np.diff(offsets)
    widths = every[rows]
    if len(every) and every.min() == every.max() and offsets[-1] == len(values):  # so it nearly always is
        return values.reshape(len(every), -1)[rows].reshape(-1), offsets_of(widths)
    return values[ranges(offsets[rows], widths)], offsets_of(widths)


def ranges(starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """The integers ``start, start + 1, … start + length - 1`` of every pair, end to end.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(np.asarray(starts, np.int64) - offsets[:-1], lengths)
