"""Verdicts: what the detector says of every session, as columns, and the files they are written to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probewatch.data.artefacts import replacing
from probewatch.data.cells import guard_cell
from probewatch.errors import ConfigError, OutputError


@dataclass(frozen=True)
class Verdicts:
    """What the detector says of S sessions.

    Attributes:
        session, client, model: (S,) str objects.
        events: (S,) int64 queries in the session.
        score: (S,) float64 from 0 to 1, high = attack: the peak so far, or the last where the bundle
            decides by its last.
        last_score: (S,) float64 after the last query.
        alert: (S,) bool, the score reached the threshold, and the client is not on the allow-list.
        first_alert: (S,) int64 number of the query, from 1, at which it did; 0 without an alert.
        allowed: (S,) bool, the client is on the allow-list.
        why: (S,) str objects, what moved the score most; empty without an alert.
    """

    session: NDArray[np.object_]
    client: NDArray[np.object_]
    model: NDArray[np.object_]
    events: NDArray[np.int64]
    score: NDArray[np.float64]
    last_score: NDArray[np.float64]
    alert: NDArray[np.bool_]
    first_alert: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    why: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.session)

    def at(self, which: slice | NDArray[Any]) -> Verdicts:
        """Some of the verdicts."""
        return Verdicts(**{name: column[which] for name, column in self.columns().items()})

    @classmethod
    def concat(cls, parts: list[Verdicts]) -> Verdicts:
        """All of at least one ``parts`` as one."""
        return cls(**{name: np.concatenate([part.columns()[name] for part in parts]) for name in COLUMNS})

    def columns(self) -> dict[str, NDArray[Any]]:
        """Name to column."""
        return {name: getattr(self, name) for name in COLUMNS}

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary a session, ready for JSON; ``first_alert`` is None without an alert."""
        columns = {name: column.tolist() for name, column in self.columns().items()}
        columns["first_alert"] = [number or None for number in columns["first_alert"]]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


COLUMNS = tuple(field.name for field in fields(Verdicts))
_SCHEMA = pa.schema(
    [
        ("session", pa.string()),
        ("client", pa.string()),
        ("model", pa.string()),
        ("events", pa.int64()),
        ("score", pa.float64()),
        ("last_score", pa.float64()),
        ("alert", pa.bool_()),
        ("first_alert", pa.int64()),
        ("allowed", pa.bool_()),
        ("why", pa.string()),
    ]
)


class VerdictFile:
    """A file that verdicts are written to part by part; it appears when all is written, or not at all.

    Args:
        path: ends in ``.jsonl``, ``.csv`` or ``.parquet``, the first two optionally with ``.gz`` behind.

    Raises:
        ConfigError: another ending, or no plain file stands there.
        OutputError: it cannot be written; also raised later, when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        packed = path.suffix == ".gz"
        ending = path.with_suffix("").suffix if packed else path.suffix
        kinds: dict[str, Callable[[Any], Any]] = {".jsonl": _Lines, ".csv": _csv, ".parquet": _parquet}
        if ending not in kinds or (packed and ending == ".parquet"):
            raise ConfigError(
                f"{path}: its ending is {path.suffix!r}, expected one of {', '.join(kinds)},"
                " or .gz behind one of the first two."
            )
        path = path.resolve()  # a link stays, what it points to is replaced
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: no plain file, and verdicts replace the whole file; choose another --out.")
        self._path = path
        self._guard = guard_cell if ending == ".csv" else str
        self._open = ExitStack()
        self._writer: Any = None
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            file: Any = self._open.enter_context(self._open.enter_context(replacing(path)).open("wb"))
            if packed:  # neither name nor date inside: the same verdicts, the same bytes
                file = self._open.enter_context(gzip.GzipFile("", "wb", 6, file, 0))
            self._writer = kinds[ending](file)

    def __enter__(self) -> Self:
        return self

    def write(self, verdicts: Verdicts) -> None:
        """Add some verdicts."""
        arrays = [self._array(name, column) for name, column in verdicts.columns().items()]
        with self._told():
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))

    def _array(self, name: str, column: NDArray[Any]) -> pa.Array:
        kind = _SCHEMA.field(name).type
        if kind == pa.string():  # a log can hold half a surrogate pair
            texts = (text.encode("utf-8", "backslashreplace").decode() for text in column)
            return pa.array([self._guard(text) for text in texts], kind)
        return pa.array(column, kind, mask=column == 0 if name == "first_alert" else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with self._told():
                self._writer.close()
                self._open.close()
        else:
            self._drop(error)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Where writing fails, nothing stays of what was written."""
        try:
            yield
        except OSError as error:
            self._drop(error)
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror or error}); free disk, or choose another --out."
            ) from error

    def _drop(self, error: BaseException) -> None:
        with suppress(OSError, ValueError):  # closing may write once more what could not be written
            if self._writer:
                self._writer.close()
        with suppress(OSError, ValueError):
            self._open.__exit__(type(error), error, None)


class _Lines:
    """JSON lines, written the way Arrow's writers are."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write_table(self, table: pa.Table) -> None:
        self._file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in table.to_pylist())

    def close(self) -> None:
        pass


def _csv(file: IO[bytes]) -> pa_csv.CSVWriter:
    return pa_csv.CSVWriter(file, _SCHEMA, write_options=pa_csv.WriteOptions(quoting_style="needed"))


def _parquet(file: IO[bytes]) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, _SCHEMA, compression="zstd")
