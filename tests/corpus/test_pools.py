from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.corpus.pools import Records, read_table, split_pools
from probewatch.data.fields import FieldMap
from probewatch.data.owned import read_records
from probewatch.errors import ConfigError, DataError

SHARES = (0.4, 0.35, 0.25)


def _records(values: list[int]) -> Records:
    return Records(np.array(values, np.float64)[:, None], np.zeros(len(values), np.int64))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=250, max_size=400), st.integers(0, 99))
def test_no_two_pools_share_a_record(values: list[int], seed: int) -> None:
    train, others = _records(values[:60]), _records(values[60:] + list(range(1000, 1090)))
    pools = split_pools(train, others, SHARES, np.random.default_rng(seed))
    proof = pools.proof()
    assert set(proof["shared"].values()) == {0} and len(proof["shared"]) == 6
    assert sum(map(len, pools.named().values())) + pools.dropped == len(train) + len(others)
    both = values + list(range(1000, 1090))
    doubles = sum(both.count(value) > 1 for value in both) / len(both)
    assert proof["duplicate_rate"] == pytest.approx(doubles, abs=1e-6)


def test_zero_and_minus_zero_are_the_same_record() -> None:
    train, others = _records([0, *range(1, 30)]), Records(np.array([[-0.0], *([v] for v in range(100, 300))]),
                                                          np.zeros(201, np.int64))  # fmt: skip
    assert split_pools(train, others, SHARES, np.random.default_rng(0)).dropped == 1


def test_too_few_records_are_refused() -> None:
    with pytest.raises(DataError, match="the pool of attackers has 16 records, expected at least 20"):
        split_pools(_records(list(range(30))), _records(list(range(100, 140))), SHARES, np.random.default_rng(0))


def _files(folder: Path, train: str, holdout: str) -> tuple[Path, Path]:
    (folder / "train.csv").write_text(train)
    (folder / "holdout.csv").write_text(holdout)
    return folder / "train.csv", folder / "holdout.csv"


def test_inputs_are_spelled_as_the_files_spell_them(tmp_path: Path) -> None:
    rows = "job,age,paid,risk,y\nnurse,3,true,2.0,no\nclerk,4,false,0.5,yes\n"
    table = read_table(*_files(tmp_path, rows, rows), "y")
    spelled = table.spelled(table.train.inputs)
    assert json.dumps(spelled) == '[["nurse", 3, true, 2.0], ["clerk", 4, false, 0.5]]'


def test_words_become_numbers_and_are_given_back_to_the_model(tmp_path: Path) -> None:
    files = _files(tmp_path, "job,age,y\nnurse,3,no\nclerk,4.5,yes\n", "y,age,job\nyes,5,pilot\nno,6,clerk\n")
    table = read_table(*files, "y")
    assert table.columns == ("job", "age") and table.classes == ("no", "yes")
    assert table.texts == (("clerk", "nurse", "pilot"), None)
    assert table.train.inputs.tolist() == [[1.0, 3.0], [0.0, 4.5]] and table.train.label.tolist() == [0, 1]
    assert table.others.inputs.tolist() == [[2.0, 5.0], [0.0, 6.0]]
    seen = []
    table.decoding(lambda rows: seen.append(rows.tolist()))(table.train.inputs)
    assert seen == [[["nurse", 3.0], ["clerk", 4.5]]]


def test_a_log_has_the_numbers_that_a_reader_of_words_gives_them(tmp_path: Path) -> None:
    rows = "job,age,flag,y\nnurse,3,true,no\n7,4.5,false,yes\nTrue,1,false,no\n"
    files = _files(tmp_path, rows, rows)
    table = read_table(*files, "y")
    fields = FieldMap(inputs=("job", "age", "flag"), words=True, records=True)
    np.testing.assert_array_equal(table.logged(table.train.inputs), read_records(files[0], fields).records.inputs)


def test_parquet_and_csv_hold_the_same(tmp_path: Path) -> None:
    files = _files(tmp_path, "a,y\n1,0\n2,1\n", "a,y\n3,0\n4,1\n")
    pq.write_table(pa.table({"a": [1, 2], "y": [0, 1]}), tmp_path / "train.parquet")
    first = read_table(tmp_path / "train.parquet", files[1], "y")
    second = read_table(*files, "y")
    assert first.train.inputs.tolist() == second.train.inputs.tolist() and first.classes == second.classes == (0, 1)


@pytest.mark.parametrize(
    ("train", "holdout", "error", "why"),
    [
        ("a,b\n1,2\n", "a,b\n1,2\n", ConfigError, r"train.csv and .*: no column 'y' \(--label\) among a, b"),
        ("a,y\n1,2\n", "b,y\n1,2\n", ConfigError, r"only one of .* has the columns \['a', 'b'\]"),
        ("y\n1\n", "y\n1\n", ConfigError, "no column beside the label"),
        ("a,y\n1,0\n,1\n", "a,y\n3,0\n4,1\n", DataError, r"the columns \['a'\] have empty cells"),
        ("a,y\n1,0\ninf,1\n", "a,y\n3,0\n4,1\n", DataError, "not finite"),
        ("a,y\n1,0\n2,0\n", "a,y\n3,0\n4,0\n", ConfigError, "has 1 classes"),
        ("a,y\n1,0\n2,0\n", "a,y\nx,0\n4,0\n", ConfigError, "columns of different kinds"),
    ],
)
def test_files_that_do_not_fit_are_named(
    tmp_path: Path, train: str, holdout: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        read_table(*_files(tmp_path, train, holdout), "y")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.csv: cannot be read as CSV"):
        read_table(tmp_path / "absent.csv", tmp_path / "absent.csv", "y")


def test_decimals_are_numbers_and_coded_words_are_words(tmp_path: Path) -> None:
    amounts = pa.array(["1.50", "2.25", "3.00"] * 2).cast(pa.decimal128(6, 2))
    towns, labels = pa.array(["a", "b", "a"] * 2), pa.array([0, 1, 0] * 2)
    pq.write_table(pa.table({"x": amounts, "town": towns.dictionary_encode(), "y": labels}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": amounts, "town": towns, "y": labels}), tmp_path / "b.parquet")
    table = read_table(tmp_path / "a.parquet", tmp_path / "b.parquet", "y")
    assert table.texts == (None, ("a", "b"))
    assert table.train.inputs[:3, 0].tolist() == [1.5, 2.25, 3.0]


def test_an_empty_cell_of_words_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("town,x,y\na,1,0\n,2,1\n")
    with pytest.raises(DataError, match=r"the columns \['town'\] have empty cells"):
        read_table(tmp_path / "a.csv", tmp_path / "a.csv", "y")
