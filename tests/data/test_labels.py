"""Labels and allow-lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from probewatch.data.labels import read_allow, read_labels
from probewatch.errors import LabelError


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_by_session_are_matched_to_sessions(tmp_path: Path, delimiter: str) -> None:
    text = "task_id,is_malicious,family,target\nt1,1,lira,m\n\nt2,False,batch,n\nt3,TRUE,,\n".replace(",", delimiter)
    labels = read_labels(write(tmp_path / "labels.csv", "\ufeff" + text))
    matched = labels.match(["t3", "t2", "t1"], ["c", "c", "c"])
    assert matched.label.tolist() == [1, 0, 1]
    assert matched.family.tolist() == ["", "batch", "lira"]
    assert matched.target.tolist() == ["", "n", "m"]
    assert matched.warnings == ()


def test_attacks_on_something_else_are_neither_attack_nor_benign(tmp_path: Path) -> None:
    text = "task_id,actor,is_malicious,attack,family\na,x,1,membership,lira\nb,x,1,extraction,copy\nc,,0,none,batch\n"
    matched = read_labels(write(tmp_path / "labels.csv", text)).match(list("abcd"), list("1234"))
    assert matched.label.tolist() == [1, -1, 0, -1]
    assert matched.other.tolist() == [False, True, False, False]
    assert matched.actor.tolist() == ["x", "x", "", ""]
    assert matched.attack.tolist() == ["membership", "extraction", "none", ""]
    assert matched.family.tolist() == ["lira", "copy", "batch", ""]


def test_a_kind_of_attack_that_contradicts_the_label_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "task_id,is_malicious,attack\na,1,none\nb,0,membership\n")
    with pytest.raises(LabelError, match=r":2: is_malicious is 1, but attack is 'none'; .*:3: is_malicious is 0, but"):
        read_labels(path)


def test_what_is_no_attack_attacks_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "task_id,is_malicious,attack\na,1,membership\nb,0,batch\n")
    with pytest.raises(LabelError, match=":3: is_malicious is 0, but attack is 'batch'"):
        read_labels(path)


@pytest.mark.parametrize("malicious", [0, 1])
def test_attacks_on_something_else_count_apart_whatever_they_are_called(tmp_path: Path, malicious: int) -> None:
    path = write(tmp_path / "labels.csv", f"task_id,is_malicious,attack\na,{malicious},extraction\n")
    assert read_labels(path).match(["a"], ["b"]).other.tolist() == [True]


def test_labels_by_client_hold_for_all_its_sessions(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.csv", "client,is_malicious\na,1\nb,0\n"))
    assert labels.match(["s", "t", "u"], ["a", "b", "a"]).label.tolist() == [1, 0, 1]


def test_a_session_of_several_clients_is_told_apart_by_the_client(tmp_path: Path) -> None:
    text = "client,task_id,is_malicious\na,t,1\nb,t,0\nc,u,1\n"
    labels = read_labels(write(tmp_path / "labels.csv", text))
    assert labels.match(["t", "t", "u"], ["a", "b", "other"]).label.tolist() == [1, 0, 1]
    assert labels.match(["t"], ["other"]).label.tolist() == [-1]


def test_labels_without_a_session_and_the_reverse_are_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "task_id,is_malicious\nt1,1\nt2,0\ngone,1\n")
    matched = read_labels(path).match(["t1", "t2", "t9", "t8"], list("abcd"))
    assert matched.label.tolist() == [1, 0, -1, -1]
    assert matched.warnings == (
        f"{path}: 1 of 3 labels names no session of the log, as 'gone'.",
        f"{path}: 2 of 4 sessions have no label, as 't9'.",
    )


def test_all_wrong_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    text = "task_id,is_malicious\nt1,1\nt2,maybe\n,0\nt1,0\nt3,1,extra\nt1,1\n"
    path = write(tmp_path / "labels.csv", text)
    with pytest.raises(LabelError, match=r"labels\.csv:3") as caught:
        read_labels(path)
    assert str(caught.value) == (
        f"{path}:3: is_malicious is 'maybe', expected 1, 0, true or false; "
        f"{path}:4: names no session and no client, expected one; "
        f"{path}:5: 't1' is 0, but 1 at {path}:2; "
        f"{path}:6: has 3 values, expected 2."
    )


def test_several_files_are_read_as_one_and_may_not_contradict(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "task_id,is_malicious\nt1,1\n")
    other = write(tmp_path / "other.csv", "client,is_malicious,family\nb,0,batch\n")
    matched = read_labels(one, other).match(["t1", "t2", "t3"], list("abc"))
    assert (matched.label.tolist(), matched.family.tolist()) == ([1, 0, -1], ["", "batch", ""])
    assert matched.warnings == (f"{one}, {other}: 1 of 3 sessions has no label, as 't3'.",)
    wrong = write(tmp_path / "wrong.csv", "task_id,is_malicious\nt1,0\n")
    with pytest.raises(LabelError, match=r"'t1' is 0, but 1 at .*one\.csv:2"):
        read_labels(one, wrong)
    assert read_allow(write(tmp_path / "a", "x\n"), write(tmp_path / "b", "y\n")) == {"x", "y"}


def test_a_sessions_own_label_comes_before_its_clients(tmp_path: Path) -> None:
    labels = write(tmp_path / "a.csv", "task_id,client,is_malicious\n,eve,0\nt1,,1\n")
    assert read_labels(labels).match(["t1", "t2"], ["eve", "eve"]).label.tolist() == [1, 0]


def test_what_is_attacked_may_not_contradict_and_may_be_in_capitals(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "task_id,is_malicious,attack\nt1,1,Membership\nt2,0,None\nt3,1,\n")
    matched = read_labels(one).match(["t1", "t2", "t3"], ["a", "b", "c"])
    assert matched.label.tolist() == [1, 0, 1] and not matched.other.any()
    two = write(tmp_path / "two.csv", "task_id,is_malicious,attack\nt3,1,membership\nt1,1,extraction\n")
    with pytest.raises(LabelError, match=r"two\.csv:3: 't1' is 1 \(extraction\), but 1 \(membership\) at .*one\.csv:2"):
        read_labels(one, two)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv:1: the header is '', expected 'task_id' or 'client' and 'is_malicious' in it"),
        ("id,is_malicious\na,1\n", "expected 'task_id' or 'client' in it"),
        ("task_id,label\na,1\n", "expected 'is_malicious' in it"),
        ("task_id,is_malicious\n", "holds no labels"),
        ("task_id,is_malicious\na,1\0\n", "holds NUL bytes"),
    ],
)
def test_a_file_that_holds_no_labels_is_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(write(tmp_path / "labels.csv", text))


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"task_id,is_malicious\n\xe9,1\n")
    with pytest.raises(LabelError, match=r"latin\.csv: not UTF-8"):
        read_labels(tmp_path / "latin.csv")
    with pytest.raises(LabelError, match=r"gone\.csv: cannot be read"):
        read_labels(tmp_path / "gone.csv")
    with pytest.raises(LabelError, match="cannot be read"):
        read_allow(tmp_path)


def test_an_allow_list_is_a_client_a_line(tmp_path: Path) -> None:
    assert read_allow(write(tmp_path / "allow.txt", "a\r\n\n b \nc c")) == {"a", "b", "c c"}


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "allow.txt"
    path.write_text("a\u2028b\r\nc\n", "utf-8")
    assert read_allow(path) == {"a\u2028b", "c"}
