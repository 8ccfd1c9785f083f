"""Forms that a log may have: the feature JSON, tables, and JSON lines with a mapping."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from raw_log import ARTICLE, assert_balanced, event, write

from probewatch.data.fields import FieldMap, fields_of
from probewatch.data.logs import read_logs
from probewatch.errors import LogError, MappingError


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("pack", [False, True])
def test_a1_a2_the_feature_json_keeps_its_columns(tmp_path: Path, indent: int | None, pack: bool) -> None:
    tasks = json.loads(json.dumps(ARTICLE))
    tasks["t2"]["sequence"][0]["distance_from_anchor_vector"] = 3.0
    text = json.dumps(tasks, indent=indent).encode()
    path = tmp_path / "features.json"
    path.write_bytes(gzip.compress(text) if pack else text)
    with read_logs([path]) as log:
        sessions = log.all_sessions()
        assert (log.counts.read, log.counts.events) == (4, 4)
    assert sessions.session.tolist() == sessions.client.tolist() == ["t1", "t2"]
    assert sessions.label.tolist() == [1, 0]
    assert sessions.time_s.tolist() == [0, 1.5, 3.5, 0]
    assert sessions.confidence.tolist() == [0.5, 0.75, 0.25, 0.5]
    assert sorted(sessions.given) == [
        "distance_from_anchor_vector",
        "response_confidence",
        "time_delta_since_last_query",
        "timestep",
    ]
    assert sessions.given["distance_from_anchor_vector"].tolist() == [2, 0, 1, 3]
    assert np.isnan(sessions.given["timestep"][3])


def test_bad_tasks_and_events_of_the_feature_json_are_rejected_by_their_place(tmp_path: Path) -> None:
    good = ARTICLE["t1"]["sequence"][0]  # type: ignore[index]
    tasks = {
        "t1": {"is_malicious": True, "sequence": [good, {**good, "response_confidence": float("nan")}, 5, good]},
        "empty": {"is_malicious": True, "sequence": []},
        "none": {"is_malicious": True},
        "who": {"is_malicious": "maybe", "sequence": [good]},
        "late": {"sequence": [{**good, "time_delta_since_last_query": -1}, {**good, "response_confidence": 2}]},
    }
    path = tmp_path / "features.json"
    path.write_text(json.dumps(tasks))
    with read_logs([path]) as log:
        assert_balanced(log)
        assert (log.counts.events, log.counts.rejects) == (2, 7)
        places = [f"{reject.line}: {reject.reason}" for reject in log.rejected]
    for place, start in zip(
        places,
        [
            "t1#1: field 'response_confidence' is not finite, expected a finite number",
            "t1#2: the event is a number, expected an object",
            "empty#0: task 'empty' has no events",
            "none#0: task 'none' has no list 'sequence'",
            "who#0: task 'who' has text as is_malicious, expected true or false",
            "late#0: field 'time_delta_since_last_query' is a negative number",
            "late#1: field 'response_confidence' is below 0 or above 1",
        ],
        strict=True,
    ):
        assert place.startswith(start)


def test_a_feature_json_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    path.write_text(json.dumps(ARTICLE)[:-20])
    with pytest.raises(LogError, match=r"features\.json: not the article's feature JSON"):
        read_logs([path])


FIELDS = FieldMap(
    client="who", time="when", model="api", confidence="p", predicted_class="y", inputs="x_*", label="bad"
)


def test_csv_with_a_column_for_each_input(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [
        "who;when;api;p;y;x_1;x_2;bad;note",
        "ann;2026-03-01T00:00:00Z;m;0.5;1;1;2;true;'a'",
        "",
        'ann;2026-03-01T00:00:01Z;m;;;3;4;true;"a; ""b"""',
        "ann;2026-03-01T00:00:02Z;m;0.5;1;1;;true;",
        "ann;2026-03-01T00:00:03Z;m;0.5",
        "bob;1772323200;m;0.5;1;;;0;",
    ]
    path.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    with read_logs([path], fields=FIELDS) as log:
        sessions = log.all_sessions()
        assert_balanced(log)
        assert (log.counts.read, log.counts.events, log.counts.rejects) == (5, 3, 2)
        assert sorted(reject.line for reject in log.rejected) == [5, 6]
    assert sessions.client.tolist() == ["ann", "bob"]
    assert sessions.label.tolist() == [1, 0]
    assert sessions.inputs.tolist() == [1, 2, 3, 4]
    assert sessions.input_offsets.tolist() == [0, 2, 4, 4]
    assert sessions.confidence[[0, 2]].tolist() == [0.5, 0.5]
    assert sessions.predicted_class.tolist() == [1, -1, 1]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_models_of_different_widths_share_the_columns_of_the_widest(tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [
        {"who": "a", "when": 1772323200 + n, "api": "wide", "x_1": 1.5, "x_2": n, "x_3": 2} for n in range(3)
    ]
    rows += [{"who": "a", "when": 1772323300 + n, "api": "slim", "x_1": n, "x_2": 4, "x_3": None} for n in range(2)]
    rows += [{"who": "a", "when": 1772323400, "api": "wide", "x_1": 1, "x_2": 2, "x_3": None}]  # its last is lost
    rows += [{"who": "a", "when": 1772323400, "api": "slim", "x_1": None, "x_2": 2, "x_3": None}]  # a gap within
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
        path.write_text("\n".join(",".join(row) for row in [list(rows[0]), *cells]) + "\n")
    else:
        write(path, rows)
    with read_logs([path], fields=FieldMap(client="who", time="when", model="api", inputs="x_*")) as log:
        sessions = log.all_sessions()
        assert_balanced(log)
        assert log.reasons == {"inputs": 1, "inputs of an unusual length": 1}
    assert sessions.model.tolist() == ["slim", "wide"]
    assert sessions.inputs.tolist() == [0, 4, 1, 4, 1.5, 0, 2, 1.5, 1, 2, 1.5, 2, 2]
    assert np.diff(sessions.input_offsets).tolist() == [2, 2, 3, 3, 3]


def test_a_trailing_cell_that_is_no_number_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,when,x_1,x_2\na,1772323200,1,2\na,1772323201,1,abc\n")
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x_*")) as log:
        assert log.reasons == {"inputs": 1}


def test_an_open_quote_in_a_csv_costs_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,when,x\n" + 'a,1,"[1, 2]"\nb,2,"open\nc,3,"[3, 4]"\n"d,4,\ne,5,"[5, 6]"\n')
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")) as log:
        assert [reject.line for reject in log.rejected] == [3, 5]
        assert log.all_sessions().client.tolist() == ["a", "c", "e"]
        assert log.all_sessions().inputs.tolist() == [1, 2, 3, 4, 5, 6]


def test_parquet_with_structures_lists_and_timestamps(tmp_path: Path) -> None:
    moment = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    table = pa.table(
        {
            "who": pa.array([7, 7, None]),
            "when": pa.array([moment, moment, moment], pa.timestamp("ns", tz="Europe/Paris")),
            "answer": [{"p": 0.5, "y": True}, {"p": float("nan"), "y": False}, {"p": None, "y": None}],
            "x": pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float32(), 2)),
        }
    )
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    fields = FieldMap(client="who", time="when", confidence="answer.p", predicted_class="answer.y", inputs="x")
    with read_logs([path], fields=fields) as log:
        sessions = log.all_sessions()
        assert [str(reject) for reject in log.rejected] == [
            f"{path}:2: field 'confidence' is not finite, expected a probability from 0 to 1; check the field mapping",
            f"{path}:3: fields 'client' and 'session' are both missing, expected at least one; check the field mapping",
        ]
    assert sessions.client.tolist() == ["7"]
    assert sessions.time_s.tolist() == [1772323200]
    assert sessions.inputs.tolist() == [1, 2]


def test_json_lines_with_a_mapping_of_named_inputs(tmp_path: Path) -> None:
    lines = [{"user.id": "a", "at": 5 + n, "f": {"age": n, "income": 2 * n}, "out": {"p": 0.5}} for n in range(2)]
    fields = FieldMap(client='"user.id"', time="at", confidence="out.p", inputs="f.*")
    with read_logs([write(tmp_path / "a.log", lines)], fields=fields) as log:
        assert log.all_sessions().inputs.tolist() == [0, 0, 1, 2]


def test_a_mapping_file_names_all_its_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[fields]\nclinet = "a"\nmodel = 5\ninputs = ["a", 3]\n[other]\n')
    with pytest.raises(MappingError, match=r"map\.toml") as caught:
        FieldMap.load(path)
    for part in ("[other]", "'clinet'", "model is 5", "inputs is ['a', 3]", "time is not mapped", "neither client"):
        assert part in str(caught.value)


def test_a_mapping_file_gives_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[fields]\nclient = "user.id"\ntime = "ts"\ninputs = ["a", "b"]\nquery_event = "q"\n')
    expected = FieldMap(client="user.id", time="ts", inputs=("a", "b"), query_event="q")
    assert FieldMap.load(path) == expected


@pytest.mark.parametrize("text", ["", "x = 1", "[fields", "[fields]\nclient = ''\n"])
def test_a_broken_mapping_file_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(MappingError, match=r"map\.toml: the field mapping"):
        FieldMap.load(path)


def test_a_log_without_client_and_session_is_refused_with_the_mapping_to_add(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"user": {"id": "a"}, "ts": 1, "p": 0.5}] * 3)
    with pytest.raises(MappingError, match=r"no client and no session.*\[fields\] client = .*user\.id, ts, p"):
        read_logs([path])


def test_the_paths_of_a_mapping_that_a_log_lacks_are_named(tmp_path: Path) -> None:
    fields = FieldMap(client="who", time="when", model="nope", confidence="never", inputs="nil", label="no")
    lines = write(tmp_path / "a.jsonl", [{"who": "a", "when": 1}])
    table = tmp_path / "a.csv"
    table.write_text("who,when\na,1\n")
    for path in (lines, table):
        with pytest.raises(MappingError, match=r"has(?: no)? 'nope', 'never', 'nil'; give a field mapping"):
            read_logs([path], fields=fields)


def test_a_log_of_sessions_without_clients_takes_the_session_for_the_client(tmp_path: Path) -> None:
    with read_logs([write(tmp_path / "a.jsonl", [event(user=None)])]) as log:
        assert log.all_sessions().client.tolist() == ["t1"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_whose_names_differ_by_capitals_alone_are_kept_apart(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    table = pa.table(
        {"Client": ["x", "x"], "client": ["u", "v"], "t": [1.0, 2.0], "Conf": [0.9, 0.8], "conf": [0.1, 0.2]}
    )
    if form == "csv":
        pc.write_csv(table, path)
    else:
        pq.write_table(table, path)
    for confidence, expected in (("conf", [0.1, 0.2]), ("Conf", [0.9, 0.8])):
        with read_logs([path], fields=FieldMap(client="client", time="t", confidence=confidence)) as log:
            sessions = log.all_sessions()
        assert sessions.client.tolist() == ["u", "v"]
        assert sessions.confidence.tolist() == expected


def test_a_header_that_has_a_mapped_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("client,t,conf,conf\nu,1,0.5,7\n")
    with pytest.raises(MappingError, match=r"a\.csv: the header has 'conf' more than once"):
        read_logs([path], fields=FieldMap(client="client", time="t", confidence="conf"))
    with read_logs([path], fields=FieldMap(client="client", time="t")) as log:
        assert log.counts.events == 1


def test_a_header_that_is_no_csv_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"client,t\rx\nu,1,2\n")
    with pytest.raises(MappingError, match=r"a\.csv: its header is not CSV \(new-line"):
        read_logs([path], fields=FieldMap(client="client", time="t"))


def test_a_broken_line_costs_its_long_neighbours_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cell = '"[' + ",".join(["1.25"] * 40_000) + ']"'
    path.write_text(
        "\n".join(["u,t,x", f"a,1.7e9,{cell}", '"a,5,[1]', f"a,1.7e9,{cell}", "b\rc,1.7e9,", "d,1.7e9,"]) + "\n"
    )
    with read_logs([path], fields=FieldMap(client="u", time="t", inputs="x")) as log:
        assert (log.counts.events, log.counts.rejects, len(log.all_sessions().inputs)) == (3, 2, 80_000)


def test_a_folder_named_like_a_partition_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "client=zzz" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"client": ["alice", "bob"], "t": [1.7e9, 1.7e9]}), path)
    with read_logs([path], fields=FieldMap(client="client", time="t")) as log:
        assert set(log.all_sessions().client) == {"alice", "bob"}


@pytest.mark.parametrize("key", ["x\n1", 'say "x"', "a.b", '"'])
def test_any_key_of_a_log_can_be_mapped(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"u": "alice", "t": 1.7e9, key: 0.25}) + "\n")
    (name,) = set(fields_of([path.read_text()])) - {"u", "t"}
    with read_logs([path], fields=FieldMap(client="u", time="t", confidence=name)) as log:
        assert log.all_sessions().confidence.tolist() == [0.25]


def test_a_path_over_two_lines_is_a_sentence() -> None:
    with pytest.raises(MappingError, match=r"path 'x\\n1' cannot be read"):
        FieldMap(client="x\n1", time="t")


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_times_as_floating_numbers_have_any_unit(tmp_path: Path, form: str, unit: float) -> None:
    path = tmp_path / f"a.{form}"
    table = pa.table({"u": ["alice"], "t": [1.7e9 * unit]})
    if form == "csv":
        pc.write_csv(table, path)
    elif form == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("\n".join(map(json.dumps, table.to_pylist())))
    with read_logs([path], fields=FieldMap(client="u", time="t")) as log:
        assert log.all_sessions().time_s.tolist() == [1.7e9]


def test_paths_that_differ_by_capitals_alone_are_refused_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"u": {"id": "a", "ID": "b"}, "t": 1.7e9}\n')
    with pytest.raises(MappingError, match="differs by capitals alone"):
        read_logs([path], fields=FieldMap(client="u.id", session="u.ID", time="t"))
