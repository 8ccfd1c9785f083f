"""Ragged arrays: no padding, and lengths that follow from what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probewatch.data.ragged import Ragged
from probewatch.errors import DataError

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def make(lengths: list[int], features: int = 2) -> Ragged:
    """Sequences whose values are 1, 2, 3, … in order."""
    steps = np.arange(1, sum(lengths) * features + 1, dtype=np.float32).reshape(-1, features)
    return Ragged(steps, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@given(lengths)
def test_from_list_and_indexing_are_inverse(lengths: list[int]) -> None:
    ragged = make(lengths)
    again = Ragged.from_list([ragged[index] for index in range(len(ragged))])
    assert again.values.tolist() == ragged.values.tolist()
    assert again.lengths.tolist() == lengths
    assert ragged[-1].tolist() == ragged[len(ragged) - 1].tolist()
    with pytest.raises(IndexError, match="sequence"):
        ragged[len(ragged)]


@given(lengths, st.integers(1, 8), st.sampled_from(["pre", "post"]))
def test_truncation_keeps_one_end_and_the_lengths_follow(lengths: list[int], steps: int, side: Any) -> None:
    ragged = make(lengths)
    kept = ragged.truncate(steps, side)
    assert kept.lengths.tolist() == [min(length, steps) for length in lengths]
    for index in range(len(ragged)):
        expected = ragged[index][:steps] if side == "post" else ragged[index][-steps:]
        assert kept[index].tolist() == expected.tolist()


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@given(lengths=lengths, steps=st.integers(1, 8))
def test_a6_padding_puts_the_value_around_what_was_kept(
    padding: Any, truncating: Any, lengths: list[int], steps: int
) -> None:
    ragged = make(lengths)
    padded, kept, starts = ragged.pad(steps, padding=padding, truncating=truncating, value=-1.0)
    assert padded.shape == (len(lengths), steps, 2)
    assert padded.dtype == np.float32
    assert kept.max() <= steps
    for row, expected, length, start in zip(padded, range(len(ragged)), kept, starts, strict=True):
        real = ragged.truncate(steps, truncating)[expected]
        assert row[start : start + length].tolist() == real.tolist()
        assert (np.delete(row, np.s_[start : start + length], axis=0) == -1).all()
        assert start == (steps - length if padding == "pre" else 0)


@given(lengths, st.data())
def test_take_gives_the_sequences_in_the_order_asked(lengths: list[int], data: st.DataObject) -> None:
    ragged = make(lengths)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    taken = ragged.take(np.array(indices, np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [ragged[i].tolist() for i in indices]


@pytest.mark.parametrize("sizes", [[2, 0, 3], [0], []])
def test_parquet_gives_back_the_same_bytes(tmp_path: Path, sizes: list[int]) -> None:
    ragged = make(sizes)
    ragged.save(tmp_path / "a.parquet")
    again = Ragged.load(tmp_path / "a.parquet")
    assert again.values.tobytes() == ragged.values.tobytes()
    assert again.values.shape == ragged.values.shape
    assert again.offsets.tolist() == ragged.offsets.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_missing_values_survive_parquet(tmp_path: Path) -> None:
    ragged = Ragged.from_list([[[np.nan, 1.0]]])
    ragged.save(tmp_path / "a.parquet")
    assert np.isnan(Ragged.load(tmp_path / "a.parquet").values[0, 0])


def test_a_file_of_something_else_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a file of sequences"):
        Ragged.load(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="not a file of sequences"):
        Ragged.load(path)


def test_offsets_that_do_not_fit_the_values_cannot_be() -> None:
    values = np.zeros((3, 1), np.float32)
    for offsets in ([0, 2], [1, 3], [0, 2, 1, 3], []):
        with pytest.raises(DataError, match="offsets must rise from 0 to the 3 steps"):
            Ragged(values, np.array(offsets, np.int64))
    with pytest.raises(DataError, match="1 axes"):
        Ragged(np.zeros(3, np.float32), np.array([0, 3]))


def test_sequences_of_different_width_cannot_be_joined() -> None:
    with pytest.raises(DataError, match=r"sequences have \[1, 2\] features"):
        Ragged.from_list([[[1.0]], [[1.0, 2.0]]])
    with pytest.raises(DataError, match="sequence 0 has 1 axes"):
        Ragged.from_list([[1.0, 2.0]])


def test_no_sequences_survive_parquet(tmp_path: Path) -> None:
    Ragged.from_list([]).save(tmp_path / "a.parquet")
    assert len(Ragged.load(tmp_path / "a.parquet")) == 0
