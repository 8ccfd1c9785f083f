"""Readers fed broken, truncated, hostile and huge input: a sentence, a balance, never a traceback."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probewatch.data import lines as lines_module
from probewatch.data.fields import RAW, FieldMap
from probewatch.data.jsonl import LineReader
from probewatch.data.lines import make_block, read_blocks
from probewatch.data.logs import Counts, read_logs
from probewatch.data.spool import Spool
from probewatch.errors import LogError, ProbewatchError

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIELDS = FieldMap(client="a", session="s", time="t", confidence="p", inputs="x", request="id", label="l")


NAMES = ["a.jsonl", "a.csv", "a.parquet", "a.json", "a.gz", "a"]
STARTS = [
    b"",
    b"\x1f\x8b",
    b"PAR1",
    b'a,s,t,p,x,id,l\n"u",s,1,0.5,"[1]",1,0\n',
    b'{"task": {"is_malicious": true, "sequence": [',
    b'{"a": "u", "t": 1, "x": [1]}\n',
]


def event(step: int, vector: Any = (1.0, 2.0), **context: Any) -> bytes:
    return json.dumps(
        {
            "timestamp": 1_700_000_000 + step,
            "eventType": "model_query",
            "context": {"userId": "u", "taskId": "t"} | context,
            "details": {
                "modelName": "m",
                "queryInput": {"featureVector": vector},
                "queryResponse": {"confidence": 0.5},
            },
        }
    ).encode()


def read(content: bytes, name: str = "log.jsonl", fields: FieldMap | None = None) -> Counts | None:
    """The counts of a log with this content, balanced; None if it is refused with a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            with read_logs([path], fields=fields) as log:
                sessions = log.all_sessions()
                counts = log.counts
                assert counts.read == counts.events + counts.duplicates + counts.skipped + counts.rejects
                assert sessions.offsets[-1] == counts.events == len(sessions.time_s)
                assert len(log.rejected) == min(counts.rejects, 1000)
                return counts
        except ProbewatchError as error:
            sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return None


whole = st.integers() | st.sampled_from([10**400, -(10**400)])  # JSON spells numbers that no double holds
json_values = st.recursive(
    st.none() | st.booleans() | whole | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("astpxl"), inner, max_size=3),
    max_leaves=6,
)
hostile_lines = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["a", "s", "t", "p", "x", "id", "l"]), json_values, max_size=7).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.fixed_dictionaries(
        {"a": st.sampled_from(["u", "v"]), "t": st.integers(0, 99), "x": st.lists(whole, max_size=2)},
        optional={"p": st.floats() | whole, "id": st.integers(0, 3), "l": st.sampled_from([0, 1, True, "x"])},
    ).map(lambda value: json.dumps(value).encode()),
)


@QUICK
@given(st.lists(hostile_lines, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.booleans())
def test_hostile_lines_are_rejected_and_the_counts_balance(lines: list[bytes], end: bytes, pack: bool) -> None:
    content = end.join(lines) + b'\n{"a": "u", "t": 1}\n'
    read(gzip.compress(content) if pack else content, fields=FIELDS)
    read(content)


@QUICK
@given(st.binary(max_size=300), st.sampled_from(NAMES), st.sampled_from(STARTS))
def test_random_bytes_never_give_a_traceback(content: bytes, name: str, start: bytes) -> None:
    read(start + content, name, FIELDS)


def test_every_truncation_of_a_file_balances(tmp_path: Path) -> None:
    content = b"\n".join(event(step) for step in range(3))
    packed = gzip.compress(content)
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["u", "v"], "t": [1, 2]}), parquet)
    for cut in range(0, len(content), 41):
        read(content[:cut])
    for cut in range(0, len(packed), 17):
        read(packed[:cut])
    for cut in range(0, parquet.stat().st_size, 97):
        read(parquet.read_bytes()[:cut], "a.parquet", FieldMap(client="a", time="t"))


@QUICK
@given(st.data())
def test_every_changed_byte_balances(data: st.DataObject) -> None:
    content = bytearray(b"\n".join(event(step) for step in range(4)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(content))


@QUICK
@given(st.lists(hostile_lines, min_size=1, max_size=12))
def test_both_ways_of_reading_lines_agree(lines: list[bytes]) -> None:
    block = make_block(memoryview(b"\n".join(lines) + b'\n{"a": "u", "t": 1}\n'), 1)
    found = []
    for slow in (False, True):
        spool = Spool(1 << 28)
        reader = LineReader(spool, FIELDS)
        if slow:
            reader._read_fast = lambda *_: None  # type: ignore[method-assign]
        rejects = reader.read(block, base=0)
        rows = spool.rows("SELECT * FROM spool WHERE problem <= 2 ORDER BY arrival")
        spool.close()
        found.append((rejects, rows))
    assert repr(found[0]) == repr(found[1])


def test_a_gzip_that_is_cut_short_keeps_what_came_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = b"\n".join(event(step, rng.normal(size=2).tolist()) for step in range(2000))
    packed = gzip.compress(content)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with read_logs([path]) as log:
        assert log.counts.rejects == 1
        assert 900 < log.counts.events < 1100
        assert log.counts.read == log.counts.events + 1
        (reject,) = log.rejected
        assert reject.line == log.counts.read
        assert reject.reason.startswith("the gzip stream is cut short; everything before this line was read")


def test_a_damaged_gzip_is_one_reject_and_members_are_joined(tmp_path: Path) -> None:
    members = [gzip.compress(event(step) + b"\n") for step in range(3)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(members[0] + members[1] + bytes(16))
    with read_logs([path]) as log:
        assert (log.counts.events, log.counts.rejects) == (2, 0)
    path.write_bytes(members[0] + members[1] + b"\xff" * 20 + members[2])
    with read_logs([path]) as log:
        assert (log.counts.events, log.counts.rejects) == (2, 1)
        assert "the gzip stream is damaged" in log.rejected[0].reason


def test_a_line_of_50_mb_is_one_reject_and_its_neighbours_are_read(tmp_path: Path) -> None:
    huge = b'{"context": {"userId": "' + b"x" * 50_000_000 + b'"}}'
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([event(0), huge, event(1)]))
    with read_logs([path]) as log:
        assert (log.counts.read, log.counts.events) == (3, 2)
        assert str(log.rejected[0]).startswith(f"{path}:2: the line has more than 16 MiB")


def test_a_long_line_below_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([event(0), event(1, sourceIp="x" * 3_000_000), event(2)]))
    with read_logs([path]) as log:
        assert (log.counts.events, log.counts.rejects) == (3, 0)


@pytest.mark.parametrize("field", ["userId", "other"])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_nesting_100_000_deep_does_no_harm(tmp_path: Path, field: str, brackets: tuple[str, str]) -> None:
    deep = brackets[0] * 100_000 + "1" + brackets[1] * 100_000
    line = event(1).decode().replace('"userId": "u"', f'"{field}": {deep}')
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([event(0).decode(), line, brackets[0] * 100_000]))
    with read_logs([path]) as log:
        assert log.counts.read == 3
        assert log.counts.events == (1 if field == "userId" else 2)
        assert log.counts.rejects == (2 if field == "userId" else 1)


def test_nul_bytes_and_wrong_encodings_are_rejected_line_by_line(tmp_path: Path) -> None:
    latin = event(1, userId="Zoë").replace(b"\\u00eb", b"\xeb")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([event(0), b"\0" * 9, latin, b"\xff\xfe", event(2)]))
    with read_logs([path]) as log:
        assert [reject.line for reject in log.rejected] == [2, 3, 4]
        assert re.match(r"byte \d+ of the line is not UTF-8", log.rejected[1].reason)


def test_a_nul_in_a_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(event(0, userId="a\0b"))
    with read_logs([path]) as log:
        assert log.all_sessions().client.tolist() == ["a\0b"]


@QUICK
@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    st.integers(1, 50),
    st.booleans(),
)
def test_blocks_hold_every_line_once_wherever_they_are_cut(lines: list[bytes], block_bytes: int, pack: bool) -> None:
    content = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LINE_LIMIT_BYTES", 31)
        path = Path(folder) / "a"
        path.write_bytes(gzip.compress(content) if pack or content[:2] == b"\x1f\x8b" else content)
        found = b""
        for block in read_blocks(path, lambda size: None, block_bytes=block_bytes):
            assert block.first_line == found.count(b"\n") + 1
            found += bytes(block.content)
            block.release()
    assert found == content.removeprefix(b"\xef\xbb\xbf")


def test_lines_over_the_limit_are_dropped_wherever_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "LINE_LIMIT_BYTES", 10)
    monkeypatch.setattr(lines_module, "READ_BYTES", 3)
    path = tmp_path / "a"
    path.write_bytes(b"aa\n" + b"x" * 40 + b"\nbb\n\n" + b"y" * 11 + b"\ncc\n" + b"z" * 99)
    blocks = list(read_blocks(path, lambda size: None, block_bytes=8))
    texts = {block.first_line + i: block.text(i) for block in blocks for i in np.flatnonzero(block.usable).tolist()}
    rejected = [block.first_line + index for block in blocks for index, _ in block.rejected]
    assert texts == {1: "aa", 3: "bb", 6: "cc"}
    assert rejected == [2, 5, 7]


def test_a_folder_or_an_unreadable_file_is_a_sentence(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    with pytest.raises(LogError, match="a folder"):
        read_logs([tmp_path])
    with pytest.raises(LogError, match=r"loop\.jsonl"):
        read_logs([loop])


def test_a_mapping_into_every_kind_of_value_is_safe() -> None:
    line = json.dumps({"a": "u", "t": 1, "x": {"y": [1, {"z": 2}]}, 'it\'s "odd"': 0.5}).encode()
    assert read(line, fields=FieldMap(client="a", time="t", confidence='it\'s "odd"')) is not None
    assert read(line, fields=FieldMap(client="x", time="t")) is None
    assert read(line, fields=FieldMap(client="a", time="x")) is None
    assert read(line, fields=FieldMap(client="a", session="A", time="t")) is None
    assert RAW.time == "timestamp"


@pytest.mark.parametrize("huge", [10**400, -(10**400)], ids=["above", "below"])
def test_a_whole_number_that_no_double_holds_is_rejected_in_the_articles_form(huge: int) -> None:
    step = {"response_confidence": 0.5, "time_delta_since_last_query": 1.0, "distance_from_anchor_vector": 0.5, "x": 1}
    sequence = [step, *(step | {field: huge} for field in step)]
    counts = read(json.dumps({"task": {"is_malicious": True, "sequence": sequence}}).encode(), "log.json")
    assert counts is not None
    assert (counts.events, counts.rejects) == (2, 3)  # a column that is none of the three is missing there
