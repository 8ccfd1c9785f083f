"""Words, flags, hashes and lists in other spellings in the place of input vectors, whatever the form of the log."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probewatch.data.fields import FieldMap
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_records
from probewatch.errors import LogError

VECTORS: list[list[Any]] = [
    ["clerk", 33, True, 1.5, None],
    ["nurse", 20, False, 2.0, "x"],
    ["clerk", 33, True, 1.5, ""],
]
NAMES = "abcde"
FORMS = ["list.jsonl", "object.jsonl", "columns.csv", "list.csv", "columns.parquet", "list.parquet"]


def write_vectors(folder: Path, form: str, vectors: list[list[Any]]) -> tuple[Path, str | tuple[str, ...]]:
    """A log of these vectors, and where it has them."""
    path = folder / form
    rows = [{"who": "a", "when": 1772323200 + n} for n in range(len(vectors))]
    match form.split("."):
        case "list", "parquet":
            texts = [[None if one is None else str(one) for one in vector] for vector in vectors]
            pq.write_table(pa.table({**_columns(rows), "x": texts}), path)
            return path, "x"
        case kind, "parquet":
            pq.write_table(
                pa.table({**_columns(rows), **dict(zip(NAMES, zip(*vectors, strict=True), strict=True))}), path
            )
            return path, tuple(NAMES)
        case "list", "jsonl":
            path.write_text("".join(json.dumps({**r, "x": v}) + "\n" for r, v in zip(rows, vectors, strict=True)))
            return path, "x"
        case kind, "jsonl":
            objects = [{**r, "x": dict(zip(NAMES, v, strict=True))} for r, v in zip(rows, vectors, strict=True)]
            path.write_text("".join(map("{}\n".format, map(json.dumps, objects))))
            return path, "x.*"
        case kind, _:
            listed = kind == "list"
            cells = [[*r.values(), *([json.dumps(v)] if listed else v)] for r, v in zip(rows, vectors, strict=True)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["who", "when", *("x" if listed else NAMES)], *cells])
            return path, "x" if listed else tuple(NAMES)


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def word(text: str) -> float:
    return float(int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") % 2**20)


@pytest.mark.parametrize("form", FORMS)
def test_words_and_what_is_missing_are_categories_where_the_mapping_says_so(tmp_path: Path, form: str) -> None:
    path, inputs = write_vectors(tmp_path, form, VECTORS)
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs=inputs, words=True)) as log:
        found = log.all_sessions().inputs.reshape(3, -1).tolist()
    clerk, nurse = [word("clerk"), 33, 1, 1.5, word("")], [word("nurse"), 20, 0, 2, word("x")]
    assert found == [clerk, nurse, clerk]
    assert read_records(path, FieldMap(client="who", time="when", inputs=inputs, words=True)).records.inputs.shape == (
        3,
        5,
    )


@pytest.mark.parametrize("form", FORMS)
def test_words_are_rejected_where_it_does_not(tmp_path: Path, form: str) -> None:
    path, inputs = write_vectors(tmp_path, form, VECTORS)
    fields = FieldMap(client="who", time="when", inputs=inputs)
    with pytest.raises(LogError, match=r"value 1 is text, expected .* for categories set words = true there"):
        read_logs([path], fields=fields).close()


@pytest.mark.parametrize("form", FORMS)
def test_true_and_false_are_numbers_in_every_form(tmp_path: Path, form: str) -> None:
    path, inputs = write_vectors(tmp_path, form, [[1.5, 2, True, False, 0], [1.5, 2, False, False, 1]])
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs=inputs)) as log:
        assert log.all_sessions().inputs.tolist() == [1.5, 2, 1, 0, 0, 1.5, 2, 0, 0, 1]


@pytest.mark.parametrize("text", ["0.1 2 -3", "0.1;2;-3", "0.1, 2, -3", " 0.1|2|-3", "[0.1, 2, -3]"])
def test_a_table_may_spell_a_list_in_other_ways(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'who,when,x\na,1772323200,"{text}"\n')
    with read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")) as log:
        np.testing.assert_array_equal(log.all_sessions().inputs, [0.1, 2, -3])


def test_numbers_in_a_text_are_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"who": "a", "when": 1772323200, "x": "0.1;2"}\n')
    with pytest.raises(LogError, match="field 'inputs' is text, expected a list of finite numbers"):
        read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")).close()


def test_an_object_is_taken_by_its_fields(tmp_path: Path) -> None:
    path, _ = write_vectors(tmp_path, "object.jsonl", VECTORS)
    with pytest.raises(LogError, match=r"field 'inputs' is an object, .* a path that ends in \.\* takes"):
        read_logs([path], fields=FieldMap(client="who", time="when", inputs="x")).close()


def test_words_of_a_mapping_are_true_or_false() -> None:
    table = {"fields": {"client": "a", "time": "b", "inputs": "c"}}
    assert FieldMap.from_table({"fields": {**table["fields"], "words": True}}).words
    with pytest.raises(ValueError, match="words is 'yes', expected true or false"):
        FieldMap.from_table({"fields": {**table["fields"], "words": "yes"}})
