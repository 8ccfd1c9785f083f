"""Standard input as it comes: every line accounted for, events as the batch readers give them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from probewatch.corpus.article import draw_tasks
from probewatch.data import live
from probewatch.data.fields import FieldMap
from probewatch.data.live import Lines, LiveReader, follow_lines
from probewatch.data.logs import read_logs
from probewatch.data.rejects import Reject
from probewatch.errors import LogError, MappingError


def lines_of(text: bytes) -> Lines:
    return Lines(text, text.count(b"\n"))


def test_events_are_those_of_the_batch_reader_in_order_of_arrival(log_files: tuple[Path, Path]) -> None:
    text = gzip.decompress(log_files[0].read_bytes())
    rejects: list[Reject] = []
    reader = LiveReader(None, {}, rejects.append)
    cut = text.index(b"\n", len(text) // 2) + 1
    first, second = reader.read(lines_of(text[:cut])), reader.read(lines_of(text[cut:]))
    reader.close()
    with read_logs([log_files[0]]) as log:
        expected = list(log.events())
    times = np.concatenate([first.time_s, second.time_s])
    assert np.array_equal(np.sort(times, kind="stable"), np.concatenate([one.time_s for one in expected]))
    assert np.sort(np.concatenate([first.inputs, second.inputs])).sum() == pytest.approx(
        sum(one.inputs.sum() for one in expected)
    )
    assert not rejects and reader.counts.read == reader.counts.events == len(times)


def test_every_line_is_an_event_skipped_or_a_reject_with_its_place() -> None:
    good = {"c": "a", "t": 1e9, "p": 0.5, "x": [1.0, 2.0], "m": "known", "e": "model_query"}
    rows = [
        json.dumps(good), "not json", json.dumps({**good, "e": "login"}), json.dumps({**good, "p": 7}),
        json.dumps({**good, "x": [1.0]}), "", json.dumps({**good, "m": "new", "x": [1.0]}),
    ]  # fmt: skip
    fields = FieldMap(client="c", time="t", confidence="p", inputs="x", model="m", event_type="e")
    rejects: list[Reject] = []
    reader = LiveReader(fields, {"known": 2}, rejects.append, source="in")
    reader.skip(10)
    events = reader.read(lines_of(("\n".join(rows) + "\n").encode()))
    reader.close()
    assert events.model.to_pylist() == ["known", "new"]
    counts = reader.counts
    assert (counts.read, counts.events, counts.skipped, counts.rejects) == (6, 2, 1, 3)
    assert [(one.file, one.line) for one in rejects] == [("in", 12), ("in", 14), ("in", 15)]
    assert "expected the 2 that queries of model 'known' usually have" in rejects[2].reason


def test_what_a_detector_cannot_do_without_is_asked_of_each_line() -> None:
    good = {"c": "a", "t": 1e9, "p": 0.5, "x": [1.0, 2.0], "m": "known"}
    rows = [good, {**good, "p": None}, {**good, "x": None}, {**good, "m": "new", "x": [1.0] * 3}, good]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    fields = FieldMap(client="c", time="t", confidence="p", inputs="x", model="m")
    for needs, longest, lines in ((("confidence", "inputs"), 2, [2, 3, 4]), (("confidence",), 0, [2]), ((), 0, [])):
        rejects: list[Reject] = []
        reader = LiveReader(fields, {"known": 2}, rejects.append, needs=needs, longest=longest)
        assert len(reader.read(lines_of(content))) == len(rows) - len(lines) == reader.counts.events
        reader.close()
        assert [one.line for one in rejects] == lines
        assert all("trained without gaps" in one.reason or "at most the 2" in one.reason for one in rejects)


def test_lines_that_lack_what_the_mapping_names_are_refused_at_the_start() -> None:
    reader = LiveReader(None, {}, lambda reject: None)
    with pytest.raises(MappingError, match=r"the lines have no client and no session.*this log has user, at"):
        reader.read(lines_of(b'{"user": "a", "at": 5}\n' * 30))
    reader.close()


@pytest.mark.parametrize("first", [{"x": "oops"}, {"x": "oops", "kind": "login"}, {}])
@pytest.mark.parametrize("inputs", ["x", "x_*"])
def test_an_odd_first_line_alone_does_not_tell_how_inputs_are_spelled(first: dict[str, str], inputs: str) -> None:
    fields = FieldMap(client="who", time="when", inputs=inputs, event_type="kind", query_event="query")
    reader = LiveReader(fields, {}, lambda reject: None)
    vector: dict[str, object] = {"x": [1, 2]} if inputs == "x" else {"x_1": 1, "x_2": 2}
    rows = [{"kind": "query", **first}, *[{"kind": "query", **vector}] * 3]
    widths = []
    for n, row in enumerate(rows):
        events = reader.read(lines_of(json.dumps({"who": "a", "when": 1772323200 + n, **row}).encode() + b"\n"))
        widths += np.diff(events.input_offsets).tolist()
    assert widths[-3:] == [2, 2, 2]
    reader.close()


def test_whole_lines_come_as_they_are_written_and_the_last_may_lack_its_end() -> None:
    reader, writer = os.pipe()
    found = follow_lines(reader, 0.01)
    os.write(writer, b"one\ntw")
    assert next(found) == Lines(b"one\n", 1)
    assert next(found).count == 0
    os.write(writer, b"o\nthree\nfo")
    assert next(found) == Lines(b"two\nthree\n", 2)
    os.close(writer)
    assert list(found) == [Lines(b"fo", 1)]
    os.close(reader)


def test_a_line_over_the_limit_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LINE_LIMIT_BYTES", 10)
    reader, writer = os.pipe()
    found = follow_lines(reader, 0.01)
    os.write(writer, b"one\n" + b"x" * 20)
    assert next(found) == Lines(b"one\n", 1)
    os.write(writer, b"x\ntwo\n")
    assert next(found) == Lines(b"two\n", 2, 1)
    os.close(writer)
    assert list(found) == []
    os.close(reader)


def test_ready_made_features_cannot_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(draw_tasks(4)))
    with read_logs([path]) as log, pytest.raises(LogError, match="ready-made features, expected queries"):
        list(log.events())
