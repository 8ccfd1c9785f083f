"""Readers of query logs: the raw form, rejects, counts, files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_log import ARTICLE, assert_balanced, event, write

from probewatch.data.fields import FieldMap
from probewatch.data.logs import read_logs
from probewatch.data.records import Sessions
from probewatch.errors import ConfigError, LogError, MappingError, OutputError


def test_the_raw_form_gives_every_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [event(0), event(3, vector=[3, 4], answer=2, confidence=0.25)])
    with read_logs([path]) as log:
        sessions = log.all_sessions()
    assert sessions.session.tolist() == ["t1"]
    assert sessions.client.tolist() == ["u1"]
    assert sessions.model.tolist() == ["m"]
    start = datetime.fromisoformat("2026-03-01T00:00:00+00:00").timestamp()
    assert sessions.time_s.tolist() == [start, start + 3]
    assert sessions.confidence.tolist() == [0.9, 0.25]
    assert sessions.predicted_class.tolist() == [1, 2]
    assert sessions.inputs.tolist() == [1, 2, 3, 4]
    assert sessions.input_offsets.tolist() == [0, 2, 4]
    assert sessions.label.tolist() == [-1]


def test_a19_only_model_queries_are_queries(tmp_path: Path) -> None:
    others = [event(type=kind) for kind in ("task_start", "internal_activity", "task_end")]
    untyped = event(5)
    del untyped["eventType"]
    path = write(tmp_path / "a.jsonl", [others[0], event(1), others[1], event(2), others[2], untyped])
    with read_logs([path]) as log:
        assert (log.counts.events, log.counts.skipped, log.counts.rejects) == (3, 3, 0)
        assert_balanced(log)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "the line is not JSON"),
        ('{"a": 1} {"b": 2}', "the line is not JSON (extra data"),
        ("null", "the line is null, expected a JSON object"),
        ("[1, 2]", "the line is a list of 2 values, expected a JSON object"),
        ("\0\0", "the line is not JSON"),
        ("é" * 10, "the line is not JSON"),
        ('{"a":' * 5000, "the line is not JSON (it is nested too deeply)"),
        (json.dumps(event(user=None, task="")), "fields 'client' and 'session' are both missing"),
        (json.dumps(event(user={"id": 1})), "field 'client' is an object, expected text or a number"),
        (json.dumps(event(time=None)), "field 'time' is missing"),
        (json.dumps(event(time="yesterday")), "field 'time' is text, expected ISO 8601"),
        (json.dumps(event(time=-5)), "field 'time' is a negative number, expected ISO 8601"),
        (json.dumps(event(time="2026-02-30T00:00:00Z")), "field 'time' is text"),
        (
            json.dumps(event(confidence=1.7)),
            "field 'confidence' is a number above 1, expected a probability",
        ),
        (json.dumps(event(confidence=float("nan"))), "field 'confidence' is not finite"),
        (json.dumps(event(confidence=float("inf"))), "field 'confidence' is not finite"),
        (json.dumps(event(confidence="high")), "field 'confidence' is text"),
        (
            json.dumps(event(vector=[1.0, float("nan")])),
            "field 'inputs' is a list of 2 values, of which value 2 is not finite",
        ),
        (json.dumps(event(vector=[1.0, "x"])), "field 'inputs' is a list of 2 values, of which value 2 is text"),
        (json.dumps(event(vector=[1.0, None])), "field 'inputs' is a list of 2 values, of which value 2 is null"),
        (
            json.dumps(event(vector=[1.0, [2.0]])),
            "field 'inputs' is a list of 2 values, of which value 2 is a list",
        ),
        (json.dumps(event(vector="abc")), "field 'inputs' is text"),
        (json.dumps(event(vector=7)), "field 'inputs' is a number"),
        (json.dumps(event(vector=[1.0])), "field 'inputs' has 1 value, expected the 2 that queries of model 'm'"),
    ],
)
def test_a_bad_line_is_rejected_with_its_place_and_a_sentence(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "api.jsonl", [event(0), event(1), "", line, event(2)])
    with read_logs([path], rejects=tmp_path / "rejects") as log:
        assert (log.counts.read, log.counts.events, log.counts.rejects) == (4, 3, 1)
        (reject,) = log.rejected
    assert str(reject).startswith(f"{path}:4: {reason}")
    written = [json.loads(text) for text in (tmp_path / "rejects").read_text("utf-8").splitlines()]
    assert written == [{"file": str(path), "line": 4, "reason": reject.reason}]


def test_a_client_may_call_itself_what_looks_like_a_list_or_an_object(tmp_path: Path) -> None:
    names = ["[x", "{x", "[1]", '{"a": 1}', "plain"]
    rows = [{"who": name, "when": 1772323200} for name in names]
    write(tmp_path / "a.jsonl", [*rows, {"who": ["list"], "when": 1772323200}])
    (tmp_path / "a.csv").write_text(
        "who,when\n" + "".join(f'"{name.replace(chr(34), 2 * chr(34))}",1772323200\n' for name in names)
    )
    for path, rejects in ((tmp_path / "a.jsonl", 1), (tmp_path / "a.csv", 0)):
        with read_logs([path], fields=FieldMap(client="who", time="when")) as log:
            assert set(log.all_sessions().client) == set(names)
            assert log.counts.rejects == rejects


def test_what_is_empty_is_absent(tmp_path: Path) -> None:
    rows = [{"who": "a", "when": 1772323200 + n, "x": [1, 2] if n % 3 == 2 else [], "id": ""} for n in range(9)]
    path = write(tmp_path / "a.jsonl", rows)
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x", request="id")) as log:
        assert (log.counts.events, log.counts.duplicates, log.counts.rejects) == (9, 0, 0)
        assert np.diff(log.all_sessions().input_offsets).tolist() == [0, 0, 2] * 3


def test_large_inputs_are_finite_though_their_sum_is_not(tmp_path: Path) -> None:
    rows = [{"who": "a", "when": 1772323200, "x": [1e308, 1e308]}, {"who": "a", "when": 1772323201, "x": [1, 2]}]
    path = write(tmp_path / "a.jsonl", [*rows, '{"who": "a", "when": 1772323202, "x": [1e999, 1]}'])
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")) as log:
        assert (log.counts.events, log.counts.rejects) == (2, 1)


def test_one_text_among_the_inputs_makes_no_log_of_hashes(tmp_path: Path) -> None:
    rows = [{"who": "a", "when": 1772323200 + n, "x": "oops" if n == 0 else [1, 2]} for n in range(9)]
    path = write(tmp_path / "a.jsonl", rows)
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")) as log:
        assert (log.counts.events, log.counts.rejects, len(log.all_sessions().inputs)) == (8, 1, 16)


def test_events_that_are_no_queries_do_not_tell_how_inputs_are_spelled(tmp_path: Path) -> None:
    fields = FieldMap(client="who", time="when", inputs="x", event_type="kind", query_event="query")
    other = [{"who": "a", "when": 1772323200, "x": "a token", "kind": "login"}] * 30
    rows = [{"who": "a", "when": 1772323200 + n, "x": [1, 2], "kind": "query"} for n in range(9)]
    with read_logs([write(tmp_path / "a.jsonl", [*other, *rows])], fields=fields) as log:
        assert (log.counts.events, log.counts.skipped, len(log.all_sessions().inputs)) == (9, 30, 18)


@pytest.mark.parametrize("inputs", [[1, 2], None], ids=["fast", "slow"])
def test_half_a_surrogate_pair_hides_no_query(tmp_path: Path, inputs: list[int] | None) -> None:
    notes = [
        r"\ud800", r"\uDC00", r"\ud83d\ude00", r"\ud83d\ud83d\ude00\ude00", r"\\ud800", r"\\\ud800", r"\u00e9\udbff",
    ]  # fmt: skip
    vector = json.dumps(inputs)
    rows = [f'{{"who": "a", "when": {n}, "x": {vector}, "note": "{note}"}}' for n, note in enumerate(notes)]
    rows.append(f'{{"who": "b\\ud800", "when": 1772323200, "x": {vector}}}')
    path = write(tmp_path / "a.jsonl", rows)
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")) as log:
        assert (log.counts.events, log.counts.rejects) == (len(rows), 0)
        assert set(log.all_sessions().client) == {"a", "b\ufffd"}


def test_half_a_surrogate_pair_may_name_a_task(tmp_path: Path) -> None:
    events = [{"response_confidence": 0.5, "time_delta_since_last_query": 1, "distance_from_anchor_vector": 0}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a\ud800": {"is_malicious": True, "sequence": events}}))
    with read_logs([path]) as log:
        assert log.all_sessions().session.tolist() == ["a\ufffd"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_log_without_models_is_of_the_one_that_the_mapping_names(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"log.{form}"
    path.write_text("who,when\na,1772323200\n" if form == "csv" else '{"who": "a", "when": 1772323200}\n')
    fields = FieldMap.from_table({"fields": {"client": "who", "time": "when", "model_name": "credit's"}})
    with read_logs([path], fields=fields) as log:
        assert log.all_sessions().model.tolist() == ["credit's"]
    with pytest.raises(MappingError, match="model and model_name are both given"):
        FieldMap(client="who", time="when", model="m", model_name="credit")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_reject_quotes_nothing_of_the_line(tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [
        {"who": "a", "when": 1772323200 + n, "p": 0.5, "x_1": 1, "x_2": 2, "bad": 0} for n in range(6)
    ]
    secrets: dict[str, Any] = {"when": "4711x", "p": "47.11", "x_2": "4711y", "bad": "4711z", "who": {"4711": 1}}
    for row, (name, secret) in zip(rows, secrets.items(), strict=False):
        row[name] = secret
    path = tmp_path / f"log.{form}"
    if form == "csv":
        cells = [[str(value) for value in row.values()] for row in rows if row["who"] == "a"]
        path.write_text("\n".join(",".join(row) for row in [list(rows[0]), *cells]) + '\na,"4711\n4711\n')
    else:
        write(path, [*rows, '{"who": "4711', "[4711]", '"4711"', '{"p": ' + "4711" * 2000 + "}", "4711" * 2000])
        path.write_bytes(path.read_bytes() + b"4711\xeb\n")
    fields = FieldMap(client="who", time="when", confidence="p", inputs="x_*", label="bad")
    with read_logs([path], fields=fields) as log:
        assert log.counts.rejects >= 6
        assert {"time", "confidence", "inputs", "label"} < set(log.reasons)
        assert ("client" in log.reasons) == (form == "jsonl")
        for reject in log.rejected:
            assert "4711" not in reject.reason
            assert "0xeb" not in reject.reason


@pytest.mark.parametrize("key", ["confidence", "answer", "vector"])
def test_an_answer_or_vector_that_a_log_does_not_hold_is_missing_and_no_reject(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.jsonl", [event(0, **{key: None}), event(1)])
    with read_logs([path]) as log:
        sessions = log.all_sessions()
        assert log.counts.rejects == 0
    if key == "confidence":
        assert np.isnan(sessions.confidence[0])
        assert sessions.confidence[1] == 0.9
    elif key == "answer":
        assert sessions.predicted_class.tolist() == [-1, 1]
    else:
        assert sessions.input_offsets.tolist() == [0, 0, 2]


def test_a_class_has_the_same_code_in_every_log(tmp_path: Path) -> None:
    codes = []
    for index, answers in enumerate((["cat", "dog", 3], ["dog", "bird", "cat"])):
        path = write(tmp_path / f"{index}.jsonl", [event(step, answer=name) for step, name in enumerate(answers)])
        with read_logs([path]) as log:
            codes.append(dict(zip(answers, log.all_sessions().predicted_class.tolist(), strict=True)))
    assert codes[0]["cat"] == codes[1]["cat"] == int.from_bytes(hashlib.md5(b"cat").digest()[8:], "little") >> 2
    assert codes[0]["dog"] == codes[1]["dog"]
    assert codes[0][3] == 3
    assert len({*codes[0].values(), *codes[1].values()}) == 4


def test_a_whole_number_is_its_own_code_and_others_are_told_apart(tmp_path: Path) -> None:
    answers = [3, 3.0, "3", 3.5, 3.25, -1, True, 0, 2**60, 2**60 + 1]
    path = write(tmp_path / "a.jsonl", [event(step, answer=answer) for step, answer in enumerate(answers)])
    with read_logs([path]) as log:
        codes = log.all_sessions().predicted_class.tolist()
    assert codes[:3] == [3, 3, 3]
    assert codes[7] == 0
    assert len(set(codes)) == 8
    assert min(codes) >= 0


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2026-03-01T00:00:00Z", 1772323200),
        ("2026-03-01T02:00:00.5+02:00", 1772323200.5),
        ("2026-03-01 00:00:00", 1772323200),
        (1772323200, 1772323200),
        ("1772323200.25", 1772323200.25),
        (1772323200250, 1772323200.25),
        (1772323200250000, 1772323200.25),
        (1772323200250000000, 1772323200.25),
        (0, 0),
    ],
)
def test_times_are_iso_8601_or_numbers_of_any_unit(tmp_path: Path, time: str | float, seconds: float) -> None:
    with read_logs([write(tmp_path / "a.jsonl", [event(time=time)])]) as log:
        assert log.all_sessions().time_s[0] == pytest.approx(seconds, abs=1e-6)


def test_several_files_patterns_and_gzip_are_one_log(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [event(4)])
    write(tmp_path / "b.jsonl", [event(2), "{"])
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(event(0)).encode()))
    with read_logs([tmp_path / "[ab].jsonl", tmp_path / "c.jsonl.gz", tmp_path / "a.jsonl"]) as log:
        assert log.counts.events == 3
        assert log.all_sessions().lengths.tolist() == [3]
        assert str(log.rejected[0]).startswith(f"{tmp_path / 'b.jsonl'}:2: ")


def test_the_hash_depends_on_the_bytes_of_the_files_only(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", [event(1)]), write(tmp_path / "b.jsonl", [event(2)])
    copy = write(tmp_path / "z.jsonl", [event(1)])
    found = []
    for paths in ([first, second], [second, copy], [first]):
        with read_logs(paths) as log:
            found.append(log.sha256)
    assert found[0] == found[1] != found[2]


def test_a_repeated_request_of_a_client_is_a_duplicate_and_the_first_counts(tmp_path: Path) -> None:
    fields = FieldMap(client="c", time="t", confidence="p", request="id")
    lines = [("a", 1, 0.1), ("a", 1, 0.2), ("b", 1, 0.3), ("a", 2, 0.4), ("a", None, 0.5), ("a", None, 0.6)]
    path = write(tmp_path / "a.jsonl", [{"c": c, "id": i, "p": p, "t": 100 + n} for n, (c, i, p) in enumerate(lines)])
    with read_logs([path], fields=fields) as log:
        assert (log.counts.events, log.counts.duplicates) == (5, 1)
        assert log.all_sessions().confidence.tolist() == [0.1, 0.4, 0.5, 0.6, 0.3]
        assert_balanced(log)


def test_the_usual_length_is_each_models_own(tmp_path: Path) -> None:
    lines = [event(n, model="m", vector=[1.0] * 2) for n in range(3)]
    lines += [event(n, model="n", vector=[1.0] * 5) for n in range(3)]
    path = write(tmp_path / "a.jsonl", [*lines, event(9, model="n", vector=[1.0] * 2)])
    with read_logs([path]) as log:
        assert log.counts.events == 6
        assert [reject.line for reject in log.rejected] == [7]
        assert log.summary()["models"] == {"m": {"events": 3, "inputs": 2}, "n": {"events": 3, "inputs": 5}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no lines"),
        (b"\n \n\n", "holds no lines"),
        (b"{\n{\n", "all 2 lines were rejected, the first: "),
        (b"PK\x03\x04abc", "a zip archive"),
        ("{}".encode("utf-16"), "text in UTF-16"),
        (b"\x7fELF" + bytes(200), "is a binary file"),
        (b"PAR1 and no more", "not a Parquet file"),
        (b'{"eventType": "task_start"}', "no query is among 1 event"),
    ],
)
def test_a_file_that_is_no_log_is_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    with pytest.raises(LogError, match=message) as caught:
        read_logs([path])
    assert str(caught.value).startswith(str(path))


def test_paths_that_stand_for_nothing_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"gone\.jsonl is not there; .*x\*\.csv is not there; .* is a folder"):
        read_logs([tmp_path / "gone.jsonl", tmp_path / "x*.csv", tmp_path])


def test_the_label_of_a_session_in_parts_is_the_highest_of_all(tmp_path: Path) -> None:
    lines = [{"c": "a", "s": "s", "t": 1.77e9 + n, "y": int(n == 29)} for n in range(30)]
    log = tmp_path / "a.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with read_logs([log], fields=FieldMap(client="c", session="s", time="t", label="y")) as opened:
        parts = list(opened.sessions(10))
    assert [part.label.tolist() for part in parts] == [[0], [0], [1]]
    assert Sessions.concat(parts).label.tolist() == [1]


def test_an_empty_hash_is_none(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text("".join(json.dumps({"c": "a", "t": 1.77e9 + n, "p": 0.5, "h": ""}) + "\n" for n in range(5)))
    with read_logs([log], fields=FieldMap(client="c", time="t", confidence="p", digest="h")) as opened:
        assert not opened.all_sessions().digest.any()


def test_rejects_are_written_where_every_line_is_one(tmp_path: Path) -> None:
    log, rejects = tmp_path / "a.jsonl", tmp_path / "rejects.jsonl"
    log.write_text("{broken\n" * 3)
    with pytest.raises(LogError, match="all 3 lines were rejected"), read_logs([log], rejects=rejects):
        pass
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [1, 2, 3]


def test_rejects_appear_only_when_the_log_was_read(tmp_path: Path) -> None:
    out = tmp_path / "rejects"
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LogError, match=r"b\.parquet"):
        read_logs([write(tmp_path / "a.jsonl", ["{", event(0)]), tmp_path / "b.parquet"], rejects=out)
    assert list(tmp_path.glob("rejects*")) == []


def test_progress_ends_at_the_size_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [event(n) for n in range(50)])
    seen: list[tuple[int, int]] = []
    read_logs([path], progress=lambda done, total: seen.append((done, total))).close()
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_the_summary_tells_what_a_log_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [event(0), event(5, user="u2"), event(9, task="t2"), "{", event(type="x")])
    with read_logs([path]) as log:
        assert log.summary() == {
            "read": 5,
            "events": 3,
            "duplicates": 0,
            "skipped": 1,
            "rejects": 1,
            "sessions": 3,
            "clients": 2,
            "models": {"m": {"events": 3, "inputs": 2}},
            "first": "2026-03-01T00:00:00+00:00",
            "last": "2026-03-01T00:00:09+00:00",
            "reasons": {"not a JSON object": 1},
            "cut_short": [],
            "before_1973": 0,
            "given": [],
            "fields": ["client", "confidence", "inputs", "model", "predicted_class", "session", "time"],
        }


def test_standard_input_is_read_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\n".join(json.dumps(event(n)) for n in range(3)) + "\n{\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with read_logs(["-"]) as log:
        assert (log.counts.events, log.counts.rejects) == (3, 1)
        assert str(log.rejected[0]).startswith("standard input:4: the line is not JSON")
        plain = write(tmp_path / "a.jsonl", content.splitlines())
        with read_logs([plain]) as same:
            assert log.sha256 == same.sha256
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"PK\x03\x04")))
    with pytest.raises(LogError, match=r"^standard input: is a zip archive"):
        read_logs(["-"])


@pytest.mark.parametrize(("end", "cut"), [("", True), ("\n", False)])
def test_a_log_that_breaks_off_in_its_last_line_is_told(tmp_path: Path, end: str, cut: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(event(0)) + "\n" + json.dumps(event(1))[:-5] + end)
    with read_logs([path]) as log:
        assert log.counts.rejects == 1
        assert log.cut_short == ((str(path),) if cut else ())


def test_small_numbers_as_times_are_counted(tmp_path: Path) -> None:
    fields = FieldMap(client="who", time="when")
    path = write(tmp_path / "a.jsonl", [{"who": "a", "when": when} for when in (5, 7, 1772323200)])
    with read_logs([path], fields=fields) as log:
        assert log.early == log.summary()["before_1973"] == 2
    path = tmp_path / "features.json"
    path.write_text(json.dumps(ARTICLE))
    with read_logs([path]) as log:
        assert log.early == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("lines", [1, 3000])
def test_rejects_on_a_full_disk_are_a_sentence_that_blames_the_file_not_the_log(tmp_path: Path, lines: int) -> None:
    rejects = tmp_path / "out" / "rejects"
    rejects.parent.mkdir()
    rejects.write_text("old")
    rejects.with_name(f".{rejects.name}.partial").symlink_to("/dev/full")
    path = write(tmp_path / "a.jsonl", [event(0), *["{"] * lines])
    with pytest.raises(
        OutputError, match=r"out/rejects: the rejects cannot be written there \(No space left"
    ) as caught:
        read_logs([path], rejects=rejects)
    assert "a.jsonl" not in str(caught.value)
    assert list(rejects.parent.iterdir()) == [rejects]
    assert rejects.read_text() == "old"


def test_a_limit_on_the_size_of_files_does_not_blame_the_log(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [event(0)])
    code = (
        "import resource, sys; from probewatch import read_logs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)\n"
        "try: read_logs([sys.argv[1]])\nexcept OSError as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert told.startswith("OutputError ")
    assert "a.jsonl" not in told


def test_scratch_files_that_cannot_be_kept_are_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [event(0)])
    code = (
        "import sys, tempfile; from probewatch import read_logs; tempfile.tempdir = '/nowhere'\n"
        "try: read_logs([sys.argv[1]])\nexcept OSError as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert told.startswith("OutputError /nowhere: the scratch files of the log cannot be kept there")


def test_a_log_given_twice_is_told_and_one_named_in_two_ways_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(json.dumps(event(step)) for step in range(3)) + "\n"
    Path("a.jsonl").write_text(lines)
    with gzip.open("b.jsonl.gz", "wt") as file:
        file.write(lines)
    Path("c.jsonl").write_text(json.dumps(event(7)) + "\n")
    with read_logs(["a.jsonl", tmp_path / "a.jsonl", "c.jsonl"]) as log:
        assert (log.counts.events, log.repeats) == (4, ())
    with read_logs(["a.jsonl", "c.jsonl", "b.jsonl.gz"]) as log:
        assert (log.counts.events, log.repeats) == (7, (("a.jsonl", "b.jsonl.gz"),))


def test_one_path_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(event(0)) + "\n")
    with read_logs(str(path)) as log:
        assert log.counts.events == 1


def test_rejects_that_would_replace_the_log_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(event(0)) + "\n")
    with pytest.raises(ConfigError, match="it is the log itself, expected another file; choose another --rejects"):
        read_logs([path], rejects=tmp_path / "x" / ".." / "a.jsonl")
    assert path.read_text() == json.dumps(event(0)) + "\n"
