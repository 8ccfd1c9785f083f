"""Events: queries as columns in the order in which they arrive, as a stream is fed with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from probewatch.data.records import gather, offsets_of
from probewatch.errors import DataError

LATEST = 253402300800.0  # the first second of the year 10000, as the readers have it
TEXTS = ("client", "model", "session", "request")
NUMBERS = ("time_s", "confidence", "predicted_class", "digest")


@dataclass(frozen=True)
class Events:
    """The columns of N queries in arrival order; :meth:`of` makes them from what a caller has.

    Attributes:
        client, model, session: (N,) Arrow strings without nulls; ``session`` is "" where the log names none.
        request: (N,) Arrow strings, the id by which a repeated event of the same client is known; "" for none.
        time_s: (N,) float64, seconds since 1970.
        confidence: (N,) float64 from 0 to 1, NaN where absent.
        predicted_class: (N,) int64 code, -1 where absent.
        digest: (N,) uint64 hash of an input vector that the log does not show, 0 where absent.
        inputs: (M,) float64, all input vectors end to end.
        input_offsets: (N + 1,) int64; query ``i`` asked ``inputs[input_offsets[i]:input_offsets[i + 1]]``.
    """

    client: pa.StringArray
    model: pa.StringArray
    session: pa.StringArray
    request: pa.StringArray
    time_s: NDArray[np.float64]
    confidence: NDArray[np.float64]
    predicted_class: NDArray[np.int64]
    digest: NDArray[np.uint64]
    inputs: NDArray[np.float64]
    input_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_s)

    @classmethod
    def of(
        cls,
        client: Sequence[str] | NDArray[Any] | pa.Array,
        time_s: Sequence[float] | NDArray[Any],
        *,
        model: Sequence[str] | NDArray[Any] | pa.Array | str = "",
        session: Sequence[str] | NDArray[Any] | pa.Array | None = None,
        confidence: Sequence[float] | NDArray[Any] | None = None,
        predicted_class: Sequence[int] | NDArray[Any] | None = None,
        inputs: Sequence[Sequence[float]] | NDArray[Any] | pa.Array | None = None,
        request: Sequence[str] | NDArray[Any] | pa.Array | None = None,
        digest: Sequence[str] | NDArray[Any] | pa.Array | None = None,
    ) -> Events:
        """Columns of N events from sequences, NumPy or Arrow arrays; what is None is absent.

        >>> events = Events.of(["a", "b"], [0.0, 1.5], confidence=[0.9, 0.4], inputs=[[1.0, 2.0], [3.0, 4.0]])
        >>> len(events), events.input_offsets.tolist()
        (2, [0, 2, 4])

        Args:
            client: who asked.
            time_s: seconds since 1970.
            model: of each event, or one for all.
            session: where the log names them, "" where not.
            confidence: probability of the predicted class; NaN where absent.
            predicted_class: code from 0; -1 where absent.
            inputs: (N, D) array, or a vector for each event, of any lengths; an empty one is absent.
            request: id of each event, "" for none.
            digest: a text that stands for the input vector of each, "" for none.

        Raises:
            DataError: columns of unequal lengths or other kinds, no client, a time that is none, a probability
                outside 0 to 1, an input that is not finite.
        """
        times = _column("time_s", time_s, np.float64)
        count = len(times)
        vectors, offsets = _vectors(inputs, count)
        events = cls(
            _names("client", client),
            pa.array([model] * count, pa.string()) if isinstance(model, str) else _names("model", model),
            _empty(count) if session is None else _names("session", session),
            _empty(count) if request is None else _names("request", request),
            times,
            np.full(count, np.nan) if confidence is None else _column("confidence", confidence, np.float64),
            np.full(count, -1) if predicted_class is None else _column("predicted_class", predicted_class, np.int64),
            np.zeros(count, np.uint64) if digest is None else _digests(_names("digest", digest)),
            vectors,
            offsets,
        )
        events._check()
        return events

    def _check(self) -> None:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        lengths = {name: len(column) for name, column in columns.items() if name not in ("inputs", "input_offsets")}
        mistakes = [f"{name} has {n} values, time_s {len(self)}" for name, n in lengths.items() if n != len(self)]
        if len(self.input_offsets) != len(self) + 1:
            mistakes.append(f"inputs has {len(self.input_offsets) - 1} vectors, time_s {len(self)} values")
        if pc.any(pc.equal(self.client, "")).as_py():
            mistakes.append("client is empty, expected who asked")
        if not np.all((self.time_s >= 0) & (self.time_s < LATEST)):
            mistakes.append("time_s holds what is no time in seconds since 1970")
        if np.any((self.confidence < 0) | (self.confidence > 1)):
            mistakes.append("confidence holds what is no probability from 0 to 1")
        if not np.all(np.isfinite(self.inputs)):
            mistakes.append("inputs holds numbers that are not finite")
        if mistakes:
            raise DataError(f"these events cannot be scored: {'; '.join(mistakes)}.")

    @classmethod
    def from_table(cls, table: pa.Table | pa.RecordBatch) -> Events:
        """Checked rows as the spool gives them: ``predicted`` and ``inputs`` may be null, the texts not."""
        inputs = _plain(table.column("inputs"))
        widths = inputs.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        numbers = {name: _plain(table.column(name)) for name in ("time_s", "confidence", "predicted")}
        return cls(
            **{name: _plain(table.column(name)).fill_null("").cast(pa.string()) for name in TEXTS},
            time_s=numbers["time_s"].to_numpy(zero_copy_only=False),
            confidence=numbers["confidence"].fill_null(np.nan).to_numpy(zero_copy_only=False),
            predicted_class=numbers["predicted"].fill_null(-1).to_numpy(zero_copy_only=False),
            digest=_plain(table.column("digest")).fill_null(0).to_numpy(zero_copy_only=False),
            inputs=np.asarray(inputs.flatten().to_numpy(zero_copy_only=False), np.float64),
            input_offsets=offsets_of(widths),
        )

    def to_table(self) -> pa.Table:
        """The columns as :meth:`from_table` takes them."""
        vectors = pa.LargeListArray.from_arrays(self.input_offsets, self.inputs)
        columns = {name: getattr(self, name) for name in TEXTS}
        numbers = {"time_s": self.time_s, "confidence": self.confidence, "predicted": self.predicted_class}
        return pa.table({**columns, **numbers, "digest": self.digest, "inputs": vectors})

    def slice(self, start: int, stop: int) -> Events:
        """Events ``start`` to ``stop``, without a copy."""
        ends = self.input_offsets[start : stop + 1]
        return Events(
            **{name: getattr(self, name)[start:stop] for name in (*TEXTS, *NUMBERS)},
            inputs=self.inputs[ends[0] : ends[-1]],
            input_offsets=ends - ends[0],
        )

    def take(self, indices: NDArray[np.int64]) -> Events:
        """The events at ``indices``, in that order."""
        inputs, input_offsets = gather(self.inputs, self.input_offsets, indices)
        return Events(
            **{name: getattr(self, name).take(pa.array(indices)) for name in TEXTS},
            **{name: getattr(self, name)[indices] for name in NUMBERS},
            inputs=inputs,
            input_offsets=input_offsets,
        )

    @classmethod
    def concat(cls, parts: Sequence[Events]) -> Events:
        """All of ``parts``, one at least, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            **{name: pa.concat_arrays([getattr(part, name) for part in parts]) for name in TEXTS},
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*NUMBERS, "inputs")},
            input_offsets=offsets_of(np.concatenate([np.diff(part.input_offsets) for part in parts])),
        )


def as_events(events: Events | Mapping[str, Any]) -> Events:
    """Events, from a mapping of the arguments of :meth:`Events.of`.

    Raises:
        DataError: it lacks ``client`` or ``time_s``, or has unknown columns.
    """
    if isinstance(events, Events):
        return events
    if not isinstance(events, Mapping):
        raise DataError(f"these events are a {type(events).__name__}, expected columns by name, as a dictionary.")
    known = {field.name for field in fields(Events)} - {"input_offsets"}
    wrong = sorted(set(events) - known)
    lacking = sorted({"client", "time_s"} - set(events))
    if wrong or lacking:
        raise DataError(f"the columns lack {lacking} and hold unknown {wrong}, expected some of {sorted(known)}.")
    return Events.of(**events)


def text_buffers(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The UTF-8 bytes of Arrow strings and the (N + 1,) offsets of each, without a copy."""
    _, ends, content = texts.buffers()
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int32)
    offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8), offsets


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _empty(count: int) -> pa.StringArray:
    return pa.array([""] * count, pa.string())


def as_texts(column: Any) -> pa.StringArray:
    """Names as Arrow holds them: none is empty, half a surrogate pair is written out."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return _plain(column).cast(pa.string()).fill_null("")
    with suppress(pa.ArrowException, UnicodeEncodeError):
        return _plain(pa.array(column, pa.string(), from_pandas=True)).fill_null("")
    texts = ["" if _is_missing(text) else str(text) for text in column]  # numbers, or half a surrogate pair
    return pa.array([text.encode("utf-8", "backslashreplace").decode() for text in texts], pa.string())


def _is_missing(value: Any) -> bool:
    """None, NaN, or what pandas has for them."""
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def _names(name: str, column: Any) -> pa.StringArray:
    try:
        return as_texts(column)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{name} is no column of texts ({error}).") from error


def _column(name: str, column: Any, kind: Any) -> NDArray[Any]:
    try:
        found = np.asarray(column, kind)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} holds what is no number ({error}).") from error
    if found.ndim != 1:
        raise DataError(f"{name} has {found.ndim} axes, expected one: a number for each event.")
    return found


def _digests(texts: pa.StringArray) -> NDArray[np.uint64]:
    """As the readers make them of the texts that stand for vectors."""
    coded = texts.dictionary_encode()
    known = [text.encode() for text in coded.dictionary.to_pylist()]
    hashes = [
        int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[8:], "little") if text else 0 for text in known
    ]
    found: NDArray[np.uint64] = np.array([*hashes, 0], np.uint64)[np.asarray(coded.indices)]
    return found


def _vectors(inputs: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        return _ragged(inputs, count)
    except (TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise DataError(
            f"inputs are no vectors, expected one for each event, or a table of N rows ({error})."
        ) from error


def _ragged(inputs: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if inputs is None:
        return np.zeros(0), np.zeros(count + 1, np.int64)
    if isinstance(inputs, pa.Array | pa.ChunkedArray):
        lists = _plain(inputs)
        widths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float64), offsets_of(widths)
    if isinstance(inputs, np.ndarray) and inputs.ndim == 2:
        return np.asarray(inputs, np.float64).reshape(-1), offsets_of(np.full(len(inputs), inputs.shape[1]))
    vectors = [np.asarray([] if vector is None else vector, np.float64) for vector in inputs]
    return np.concatenate([*vectors, np.zeros(0)]), offsets_of(np.array([len(vector) for vector in vectors], np.int64))
