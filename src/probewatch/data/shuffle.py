"""Sorting of what is larger than memory: rows dealt to files by their rank, then each file sorted alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa


class Shuffle:
    """Rows in files of consecutive ranks; writes while it is made, reads as often as wanted.

    DuckDB's own sort holds several thousand whole rows a run in memory and gives up where rows are
    some kilobytes long.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], folder: Path, *, rows_a_file: int) -> None:
        """Deal rows out.

        Args:
            batches: rows in any order, with a column ``rank`` that numbers them from 0 in the order wanted.
            folder: where the files go, a new one.
            rows_a_file: as many as fit in memory twice.
        """
        folder.mkdir()
        self._folder = folder
        self._files = 0
        writers: dict[int, pa.RecordBatchFileWriter] = {}
        try:
            for batch in batches:
                files = batch.column("rank").to_numpy() // rows_a_file
                order = np.argsort(files, kind="stable")
                dealt = batch.take(pa.array(order))
                bounds = np.flatnonzero(np.diff(files[order], prepend=-1, append=-1))
                for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                    file = int(files[order[start]])
                    if file not in writers:
                        writers[file] = pa.ipc.new_file(self._path(file), batch.schema)
                    writers[file].write_batch(dealt.slice(start, end - start))
        finally:
            for writer in writers.values():
                writer.close()
        self._files = len(writers)

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in the order of their ranks, ``rows`` at a time."""
        for file in range(self._files):
            with pa.memory_map(str(self._path(file))) as source:
                table = pa.ipc.open_file(source).read_all()
                order = np.argsort(table.column("rank").to_numpy())
                for start in range(0, len(order), rows):
                    piece = table.select(columns).take(pa.array(order[start : start + rows]))
                    yield from piece.combine_chunks().to_batches()

    def _path(self, file: int) -> Path:
        return self._folder / f"{file}.arrow"
