"""Records of a model's owner, read by the readers of logs, and profiles of a folder of them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probewatch.data.fields import FieldMap
from probewatch.data.owned import read_records, read_targets
from probewatch.errors import DataError, LogError, MappingError, ProfileError

KEY = bytes(range(16))
INPUTS = [[1.0, 2.5], [3.0, -4.0], [0.1, 1e-3]]
CONFIDENCE = [0.5, 0.75, 1.0]


def lines_of(inputs: list[list[float]] = INPUTS, confidence: list[float] = CONFIDENCE) -> str:
    rows = zip(inputs, confidence, strict=True)
    return "".join(
        json.dumps({"featureVector": vector, "confidence": answer, "predictedClass": 1}) + "\n"
        for vector, answer in rows
    )


def targets_in(folder: Path, models: tuple[str, ...] = ("one", "two")) -> Path:
    """A folder of targets, each of 40 training records and 30 others."""
    for seed, model in enumerate(models):
        random = np.random.default_rng(seed)
        (folder / model).mkdir(parents=True)
        for name, count in (("train.jsonl.gz", 40), ("holdout.jsonl.gz", 30)):
            text = lines_of(random.normal(size=(count, 3)).round(4).tolist(), random.random(count).round(4).tolist())
            (folder / model / name).write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_need_neither_client_nor_time(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("records.jsonl.gz" if packed else "records.jsonl")
    path.write_bytes(gzip.compress(lines_of().encode()) if packed else lines_of().encode())
    owned = read_records(path)
    np.testing.assert_array_equal(owned.records.inputs, INPUTS)
    np.testing.assert_array_equal(owned.records.confidence, CONFIDENCE)
    assert (owned.counts.read, owned.counts.events, owned.told) == (3, 3, [])


def test_csv_and_parquet_are_read_by_a_mapping(tmp_path: Path) -> None:
    fields = FieldMap.from_table({"fields": {"client": "who", "time": "when", "inputs": "x*", "confidence": "p"}})
    table, text = tmp_path / "records.parquet", tmp_path / "records.csv"
    columns = {"p": CONFIDENCE, "x1": [row[0] for row in INPUTS], "x2": [row[1] for row in INPUTS]}
    pq.write_table(pa.table(columns), table)
    with text.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    for path in (table, text):
        owned = read_records(path, fields)
        np.testing.assert_array_equal(owned.records.inputs, INPUTS)
        np.testing.assert_array_equal(owned.records.confidence, CONFIDENCE)


def test_what_is_no_record_is_left_out_with_its_place_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    wrong = [
        '{"featureVector": [1, 2], "confidence": 1.7}',
        "nonsense",
        '{"featureVector": [1]}',
        '{"confidence": 0.5}',
    ]
    path.write_text(lines_of() + "\n".join(wrong) + "\n")
    owned = read_records(path)
    assert len(owned.records) == 3
    assert [one.line for one in owned.rejected] == [4, 5, 7, 6]
    (sentence,) = owned.told
    assert sentence.startswith(f"4 lines were rejected, the first: {path}:4: field 'confidence' is ")
    assert owned.rejected[2].reason.startswith("field 'inputs' is null, expected a list of finite numbers")


def test_records_may_lack_answers(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"featureVector": [1, 2]}\n{"featureVector": [3, 4]}\n')
    assert np.isnan(read_records(path).records.confidence).all()


def test_a_file_without_the_fields_is_refused_with_what_to_give(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"x": [1, 2], "confidence": 0.5}\n')
    with pytest.raises(LogError, match=r"field 'inputs' is null, expected a list .* looked for in 'featureVector'"):
        read_records(path)
    mapped = FieldMap.from_table({"fields": {"inputs": "y"}}, records=True)  # records have no client and no time
    with pytest.raises(LogError, match=r"looked for in 'y', .* give a field mapping with \[fields\] inputs"):
        read_records(path, mapped)
    bare = tmp_path / "records.csv"
    bare.write_text("x1,x2\n1,2\n")
    with pytest.raises(LogError, match="looked for in 'featureVector'"):
        read_records(bare)
    with pytest.raises(MappingError, match=r"has no 'y'; give a field mapping with \[fields\] inputs"):
        read_records(bare, mapped)
    with pytest.raises(LogError, match=r"nowhere\.jsonl is not there"):
        read_records(tmp_path / "nowhere.jsonl")


def test_a_mapping_of_a_log_still_needs_client_and_time() -> None:
    with pytest.raises(MappingError, match="time is not mapped"):
        FieldMap.from_table({"fields": {"inputs": "x"}})
    with pytest.raises(MappingError, match="'records' is not a field"):
        FieldMap.from_table({"fields": {"client": "c", "time": "t", "records": "yes"}})


def test_a_folder_of_targets_gives_a_profile_for_each(tmp_path: Path) -> None:
    profiles, told = read_targets(targets_in(tmp_path), KEY)
    assert {model: one.records for model, one in profiles.items()} == {"one": (40, 30), "two": (40, 30)}
    assert told == []


def test_profiles_that_nobody_keeps_are_the_same_each_time(tmp_path: Path) -> None:
    one, two = (read_targets(targets_in(tmp_path / name))[0] for name in ("one", "two"))
    assert {model: profile.to_json() for model, profile in one.items()} == {
        model: profile.to_json() for model, profile in two.items()
    }
    assert one["one"].key == two["one"].key != bytes(16)


def test_a_folder_that_lacks_files_is_refused_with_all_their_names(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="expected a folder MODEL with train"):
        read_targets(tmp_path / "nowhere", KEY)
    folder = targets_in(tmp_path)
    (folder / "one" / "holdout.jsonl.gz").unlink()
    (folder / "two" / "train.csv").write_text("x\n1\n")
    with pytest.raises(ProfileError, match=r"expected one file each of one/holdout\.\*, two/train\.\*"):
        read_targets(folder, KEY)
    (folder / "two" / "train.csv").unlink()
    (folder / "one" / "holdout.jsonl.gz").write_bytes(gzip.compress(lines_of([[1.0, 2.0, 3.0]], [0.5]).encode()))
    with pytest.raises(DataError, match="one: the holdout has 1 records"):
        read_targets(folder, KEY)
