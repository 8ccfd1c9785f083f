"""Logs that keep a hash of the inputs: repeats are seen, distances are not."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probewatch.data.columns import DEFAULT, FEATURES
from probewatch.data.features import compute
from probewatch.data.fields import FieldMap
from probewatch.data.known import Known
from probewatch.data.logs import read_logs
from probewatch.data.records import Sessions
from probewatch.data.state import new_state

HASHES = ["ab12", "cd34", "ab12", None, "ef56", "cd34", "ff00"]
REPEATS = [np.nan, 0.0, 1.0, np.nan, 0.0, 1.0, 0.0]  # nothing to compare the first with, and no hash at the fourth
FIELDS = FieldMap(client="who", time="when", confidence="p", inputs="x")


def events() -> list[dict[str, object]]:
    return [{"who": "a", "when": 1.7e9 + at, "p": 0.9, "x": text} for at, text in enumerate(HASHES)]


def read(path: Path, fields: FieldMap | None = FIELDS) -> Sessions:
    with read_logs([path], fields=fields) as log:
        assert log.counts.rejects == 0
        return log.all_sessions()


def column(name: str, sessions: Sessions) -> np.ndarray:
    return compute(sessions, [name], Known()).values[:, 0]


@pytest.fixture
def hashed(tmp_path: Path) -> Sessions:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events()))
    return read(path)


def test_repeats_of_a_hash_are_seen_and_distances_are_missing(hashed: Sessions) -> None:
    np.testing.assert_array_equal(column("repeat", hashed), REPEATS)
    values = compute(hashed, DEFAULT, Known()).values
    told = {name for at, name in enumerate(DEFAULT) if not np.isnan(values[:, at]).all()}
    assert {name for name in told if FEATURES[name].group == "inputs"} == {
        name for name in DEFAULT if name.startswith("repeat")
    }


def test_csv_parquet_and_raw_events_may_keep_hashes(hashed: Sessions, tmp_path: Path) -> None:
    text, table, raw = tmp_path / "log.csv", tmp_path / "log.parquet", tmp_path / "raw.jsonl"
    with text.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["who", "when", "p", "x"])
        writer.writeheader()
        writer.writerows(events())
    pq.write_table(pa.Table.from_pylist(events()), table)
    with raw.open("w") as file:
        for event in events():
            form = {
                "timestamp": event["when"], "eventType": "model_query", "context": {"userId": "a"},
                "details": {"queryInput": {"featureVector": event["x"]}, "queryResponse": {"confidence": 0.9}},
            }  # fmt: skip
            file.write(json.dumps(form) + "\n")
    for path, fields in ((text, FIELDS), (table, FIELDS), (raw, None)):
        np.testing.assert_array_equal(read(path, fields).digest, hashed.digest)


def test_a_digest_may_be_mapped_by_its_own_name(hashed: Sessions, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    fields = FieldMap.from_table({"fields": {"client": "who", "time": "when", "digest": "x"}})
    np.testing.assert_array_equal(read(path, fields).digest, hashed.digest)


def test_vectors_written_as_text_are_still_vectors(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('who,when,x\na,1700000000,"[1, 2]"\na,1700000001,"[1, 2]"\n')
    sessions = read(path, replace(FIELDS, confidence=None))
    np.testing.assert_array_equal(sessions.inputs, [1.0, 2.0, 1.0, 2.0])
    assert not len(sessions.digest)


def test_hashes_stay_with_their_queries(hashed: Sessions) -> None:
    twice = Sessions.concat([hashed, replace(hashed, session=np.array(["other"], object))])
    assert twice.digest.tolist() == 2 * hashed.digest.tolist()
    assert twice.take(np.array([1])).digest.tolist() == hashed.digest.tolist()
    bare = replace(hashed, digest=hashed.digest[:0])
    assert Sessions.concat([bare, hashed]).digest.tolist() == [0] * 7 + hashed.digest.tolist()


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_stream_of_hashes_has_the_features_of_the_whole(hashed: Sessions, cut: int) -> None:
    whole = compute(hashed, DEFAULT, Known()).values
    state = new_state(1)
    for start, stop in ((0, cut), (cut, 7)):
        part = replace(
            hashed, offsets=np.array([0, stop - start]), time_s=hashed.time_s[start:stop],
            confidence=hashed.confidence[start:stop], predicted_class=hashed.predicted_class[start:stop],
            input_offsets=np.zeros(stop - start + 1, np.int64), digest=hashed.digest[start:stop],
            before=np.array([start]),
        )  # fmt: skip
        values = compute(part, DEFAULT, Known(), state, np.array([0])).values
        np.testing.assert_array_equal(values, whole[start:stop])
