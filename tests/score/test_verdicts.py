"""Verdict files appear whole or not at all, and read back as they were."""

from __future__ import annotations

import csv
import gc
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from probewatch.data.cells import unguard_cell
from probewatch.errors import ConfigError, OutputError
from probewatch.score.verdicts import COLUMNS, VerdictFile, Verdicts

NAMES = ["plain", '=HYPERLINK("x")', 'quo"te,comma', "línea\nnew", "half \ud800 pair", "\x1b[31mred"]


@pytest.fixture
def verdicts() -> Verdicts:
    count = len(NAMES)
    names = np.array(NAMES, object)
    alert = np.arange(count) % 2 == 0
    return Verdicts(
        session=names, client=names[::-1].copy(), model=np.full(count, "m", object), events=np.arange(1, count + 1),
        score=np.linspace(0, 1, count), last_score=np.linspace(0, 0.5, count), alert=alert,
        first_alert=np.where(alert, 3, 0), allowed=~alert, why=np.full(count, "because", object),
    )  # fmt: skip


def _rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".gz":
        plain = path.with_suffix("")
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        return _rows(plain)
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: unguard_cell(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.gz"])
def test_parts_that_were_written_read_back(verdicts: Verdicts, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    with VerdictFile(path) as file:
        file.write(verdicts.at(slice(0, 2)))
        file.write(verdicts.at(slice(2, None)))
    rows = _rows(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["session"] for row in rows] == [name.encode("utf-8", "backslashreplace").decode() for name in NAMES]
    assert [float(str(row["score"])) for row in rows] == pytest.approx(verdicts.score.tolist())
    assert [row["first_alert"] in (None, "") for row in rows] == (~verdicts.alert).tolist()


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_run_that_fails_leaves_the_old_file_and_nothing_else(verdicts: Verdicts, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    path.write_text("old")
    with pytest.raises(KeyError, match="broke"), VerdictFile(path) as file:
        file.write(verdicts)
        raise KeyError("broke")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out.xlsx", "out.parquet.gz", "out.gz", "out"])
def test_another_ending_is_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"its ending is '.*', expected one of \.jsonl, \.csv, \.parquet"):
        VerdictFile(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_same_verdicts_packed_are_the_same_bytes(verdicts: Verdicts, tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        with VerdictFile(tmp_path / name) as file:
            file.write(verdicts)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="no plain file"):
        VerdictFile(tmp_path / "pipe.csv")
    assert (tmp_path / "pipe.csv").is_fifo()


def test_a_link_stays_and_what_it_points_to_is_replaced(verdicts: Verdicts, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with VerdictFile(tmp_path / "link.csv") as file:
        file.write(verdicts)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() != "old"


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"out\.jsonl: cannot be written"):
        VerdictFile(tmp_path / "file" / "out.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.gz"])
@pytest.mark.parametrize("times", [1, 300])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    verdicts: Verdicts, tmp_path: Path, ending: str, times: int
) -> None:
    path = tmp_path / f"out{ending}"
    path.write_text("old")
    (tmp_path / f".out{ending}.partial").symlink_to("/dev/full")  # every write to it finds the disk full
    with pytest.raises(OutputError, match=r"out\.\S+: cannot be written \(No space left"), VerdictFile(path) as file:
        for _ in range(times):
            file.write(verdicts)
    gc.collect()  # a writer that is collected must not write again
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_are_ready_for_json(verdicts: Verdicts) -> None:
    rows = verdicts.rows()
    assert rows[0]["first_alert"] == 3
    assert rows[1]["first_alert"] is None
    json.dumps(rows)
