import csv
import json
import os
import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probewatch.data.cells import guard_cell, unguard_cell
from probewatch.errors import DataError, OutputError
from probewatch.learn.evaluate import evaluate
from probewatch.learn.markup import number, percent, safe
from probewatch.learn.report import write_report

HOSTILE = "<script>alert(1)</script>"
HISTORY = [{"epoch": k + 1, "train_loss": 1 / (k + 1), "valid_loss": 0.5 + abs(k - 6) / 10} for k in range(12)]
EVERY_PLOT = [
    "Confusion matrix",
    "ROC curve",
    "Precision and recall",
    "Scores by class",
    "Calibration",
    "Events until alert",
    "Loss by epoch",
]


def arguments(sessions=330, attack_share=0.25, lift=2.5, boosting=1.0, seed=0):
    rng = np.random.default_rng(seed)
    label = (np.arange(sessions) < attack_share * sessions).astype(np.int8)
    signal = lift * label
    score = 1 / (1 + np.exp(-rng.normal(signal - 1, 1)))
    rival = rng.normal(boosting * signal, 1)
    client = np.array([f"client-{k // 3}" for k in range(sessions)], object)
    family = np.where(label == 1, "lira", "person").astype(object)
    first_alert = np.where(score >= 0.5, rng.integers(1, 200, sessions), 0)
    allowed = np.arange(sessions) >= sessions - 6
    known = {"client": client, "allowed": allowed, "family": family}
    metrics = evaluate(label, score, threshold=0.5, first_alert=first_alert, **known)
    rivals = {"boosting": evaluate(label, rival, threshold=1.0, probabilities=False, intervals=False, **known)}
    predictions = {
        "session": np.array([f"s{k}" for k in range(sessions)], object),
        "label": label,
        "score": score,
        "split": np.full(sessions, "test", object),
        "first_alert": first_alert,
        "score_boosting": rival,
        **known,
    }
    return {
        "metrics": {**metrics, "rivals": rivals, "max_fpr": 0.01},
        "predictions": predictions,
        "history": HISTORY,
        "title": "Detector",
    }


def quick(seed=0):
    """Arguments with next to nothing to draw."""
    known = arguments(seed=seed)
    return {
        **known,
        "predictions": {name: column[:0] for name, column in known["predictions"].items()},
        "history": None,
    }


def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def images(text):
    return dict(re.findall(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)"', text))


class Tags(HTMLParser):
    """Collects opening tags, and checks that every one is closed."""

    def __init__(self):
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(text):
    parser = Tags()
    parser.feed(text)
    assert not parser.open
    return parser.seen


def test_a_report_is_three_files_with_every_plot(tmp_path):
    write_report(tmp_path / "report", **arguments())
    assert sorted(os.listdir(tmp_path / "report")) == ["index.html", "metrics.json", "predictions.csv"]
    found = images(page(tmp_path / "report"))
    assert list(found) == EVERY_PLOT
    for picture in found.values():
        assert ElementTree.fromstring(b64decode(picture)).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_needs_nothing_from_outside(tmp_path):
    write_report(tmp_path, **arguments())
    for tag, attributes in tags(page(tmp_path)):
        assert tag not in ("script", "link", "iframe", "object", "a")
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        assert attributes.get("src", "data:").startswith("data:")
    assert "url(" not in page(tmp_path)
    assert "@import" not in page(tmp_path)


def test_the_same_figures_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(tmp_path / name, **arguments())
    for name in ("index.html", "metrics.json", "predictions.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_hostile_name_is_shown_and_does_nothing(tmp_path):
    given_names = arguments()
    label = given_names["predictions"]["label"]
    family = np.where(label == 1, HOSTILE, '"><img src=x onerror=alert(2)>').astype(object)
    predictions = {**given_names["predictions"], "family": family, "client": family, "session": family}
    metrics = {
        **evaluate(label, predictions["score"], threshold=0.5, client=family, family=family),
        "rivals": {HOSTILE: {**given_names["metrics"], "roc_auc": 1.0}},
        "notes": [HOSTILE],
    }
    predictions[f"score_{HOSTILE}$\\frac$"] = predictions.pop("score_boosting")
    write_report(tmp_path, metrics=metrics, predictions=predictions, history=None, title=HOSTILE)
    text = page(tmp_path)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in tags(text))
    for picture in images(text).values():
        assert b"<script" not in b64decode(picture)


@settings(max_examples=50)
@given(st.text())
def test_safe_text_holds_no_markup_and_no_hidden_characters(text):
    shown = safe(text)
    assert not set(shown) & set("<>\"'\0\n\u202e\u200b")
    assert len(re.sub(r"&\w+;|&#\w+;", "x", shown)) <= 80


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path):
    known = arguments()
    known["predictions"]["session"][0] = "\ud800"
    known["predictions"]["client"][0] = "\0"
    known["metrics"]["families"]["\ud800\u202e"] = {"n": 1, "rate": 1.0, "malicious": True}
    write_report(tmp_path, **known)
    assert json.loads((tmp_path / "metrics.json").read_text())["families"]["\ud800\u202e"]["n"] == 1


def test_a_rival_that_wins_is_named_in_plain_words(tmp_path):
    known = quick() | {"metrics": arguments(boosting=3.0)["metrics"]}
    write_report(tmp_path, **known)
    assert "Gradient boosting does better than Probewatch</b>: ROC AUC" in page(tmp_path)
    assert "finished sessions" not in page(tmp_path)
    known["metrics"]["finished"] = {"roc_auc": 0.8765, "average_precision": 0.8, "tpr_at_fpr_0.01": None}
    write_report(tmp_path / "finished", **known)
    told = page(tmp_path / "finished")
    assert "which its last score ranks by ROC AUC 0.87" in told
    assert "Probewatch, finished sessions" in told


def test_the_page_says_what_was_evaluated_and_which_models_had_no_profile(tmp_path):
    known = quick()
    write_report(tmp_path / "plain", **known)
    assert "Queries:" not in page(tmp_path / "plain") and "profile" not in page(tmp_path / "plain")
    known["metrics"]["source"] = {"detector": "my/bundle", "logs": ["week.jsonl.gz", f"{HOSTILE}*.csv"]}
    told = {"models": 3, "models_without": [], "sessions": 324, "sessions_without": 0, "sessions_estimated": 0}
    known["metrics"]["profiles"] = told
    write_report(tmp_path / "all", **known)
    text = page(tmp_path / "all")
    assert "Detector: <b>my/bundle</b>. Queries: <b>week.jsonl.gz</b>, <b>&lt;script&gt;" in text
    assert '<p class="aside">3 of 3 models had a profile, and so had 324 of 324 sessions.</p>' in text
    known["metrics"]["profiles"] = told | {"models_without": ["", HOSTILE], "sessions_without": 24}
    write_report(tmp_path / "some", **known)
    text = page(tmp_path / "some")
    assert '<p class="note">1 of 3 models had a profile, and so had 300 of 324 sessions. The other 24 sessions' in text
    assert "were judged by the features that need none ((none), &lt;script&gt;alert(1)&lt;/script&gt;)" in text
    known["metrics"]["profiles"] = told | {"sessions_estimated": 1}
    write_report(tmp_path / "guessed", **known)
    assert "324 sessions. 1 session had one that was estimated from a log" in page(tmp_path / "guessed")


def test_a_rival_that_hardly_wins_is_told_by_as_many_digits_as_that_takes(tmp_path):
    known = quick()
    known["metrics"]["roc_auc"], known["metrics"]["rivals"]["boosting"]["roc_auc"] = 0.96758, 0.96825
    write_report(tmp_path, **known)
    assert "ROC AUC 0.96825 against 0.96758" in page(tmp_path)


def test_a_rival_that_loses_is_said_to_lose(tmp_path):
    write_report(tmp_path, **quick() | {"metrics": arguments(boosting=0.1)["metrics"]})
    assert "No rival does better than Probewatch on ROC AUC or average precision." in page(tmp_path)


def test_each_view_has_a_row_in_words(tmp_path):
    made = arguments()
    whole = made["metrics"]
    poorer = {**whole, "roc_auc": 0.625, "tpr_at_threshold": 0.25, "fpr_at_threshold": None}
    made["metrics"] = {**whole, "views": {"whole": whole, "no_inputs": poorer}}
    write_report(tmp_path, **made)
    text = page(tmp_path)
    section = text.split("One detector, poorer logs")[1].split("</section>")[0]
    assert section.count("<tr") == 3
    row = section.split("a log without input vectors")[1]
    assert row.split('<td class="num">')[1].startswith("0.625<")
    assert "25.0 %" in row
    write_report(tmp_path, **{**made, "metrics": {**whole, "views": {"whole": whole}}})
    assert "poorer logs" not in page(tmp_path)


def test_the_best_of_a_column_is_marked(tmp_path):
    write_report(tmp_path, **quick() | {"metrics": arguments(boosting=3.0)["metrics"]})
    table = re.search(r"<tr class=\"ours\">(.*?)</tbody>", page(tmp_path), re.S).group(1)
    ours, boosting = (re.findall(r'<td class="num( best)?">', row) for row in table.split("</tr>")[:2])
    assert (ours[0], boosting[0]) == ("", " best")
    metrics = arguments(boosting=3.0)["metrics"]
    false, rival = (one["fpr_at_threshold"] for one in (metrics, metrics["rivals"]["boosting"]))
    assert false != rival
    assert (ours[3], boosting[3]) == ((" best", "") if false < rival else ("", " best"))


def test_who_never_alerts_does_not_win_by_the_lowest_fpr(tmp_path):
    known = arguments()
    silent = {**known["metrics"]["rivals"]["boosting"], "tpr_at_threshold": 0.0, "fpr_at_threshold": 0.0}
    write_report(tmp_path, **quick() | {"metrics": {**known["metrics"], "rivals": {"boosting": silent}}})
    table = re.search(r"<tr class=\"ours\">(.*?)</tbody>", page(tmp_path), re.S).group(1)
    ours, boosting = (re.findall(r'<td class="num( best)?">', row) for row in table.split("</tr>")[:2])
    assert (ours[3], boosting[3]) == (" best", "")


@pytest.mark.parametrize(
    ("alerted", "told"),
    [
        (100, "9 in 10 attacks alert within 7 events"),
        (80, "more than 1 in 10 attacks never alert"),
        (50, "half of the attacks or more never alert"),
    ],
)
def test_the_delay_is_told_in_words(tmp_path, alerted, told):
    label, first_alert = np.ones(100, np.int8), np.where(np.arange(100) < alerted, 7, 0)
    client = np.arange(100).astype(str).astype(object)
    metrics = evaluate(label, (first_alert > 0) * 0.9, threshold=0.5, client=client, first_alert=first_alert)
    write_report(tmp_path, **quick() | {"metrics": metrics})
    assert told in page(tmp_path)


def test_one_of_a_kind_is_said_in_the_singular(tmp_path):
    metrics = evaluate(np.array([0, 1]), np.array([0.1, 0.9]), threshold=0.5, client=np.array(["a", "a"], object))
    write_report(tmp_path, **quick() | {"metrics": metrics})
    assert "Tested on 2 sessions of 1 client," in page(tmp_path)
    assert "Of <b>1 attack session</b> the detector alerted on <b>1</b>." in page(tmp_path)
    assert "here is 1" in page(tmp_path)


def test_what_is_missing_leaves_no_hole(tmp_path):
    known = arguments()
    label, score = known["predictions"]["label"], known["predictions"]["score"]
    client = known["predictions"]["client"]
    metrics = evaluate(label, score, threshold=0.5, client=client, probabilities=False)
    predictions = {name: known["predictions"][name] for name in ("session", "client", "label", "score", "split")}
    write_report(tmp_path, metrics=metrics, predictions=predictions, history=[], title="Detector")
    text = page(tmp_path)
    assert list(images(text)) == ["Confusion matrix", "ROC curve", "Precision and recall", "Scores by class"]
    for absent in ("Who is caught", "instead", "Events until", "None", "nan"):
        assert absent not in text


@pytest.mark.parametrize("attack_share", [0.0, 1.0])
def test_one_class_only_is_still_a_page(tmp_path, attack_share):
    write_report(tmp_path, **arguments(attack_share=attack_share))
    tags(page(tmp_path))
    assert "ROC curve" not in images(page(tmp_path))


def test_no_session_at_all_is_still_a_page(tmp_path):
    empty = evaluate(np.zeros(0), np.zeros(0), threshold=0.5, client=np.zeros(0))
    predictions = {name: [] for name in ("session", "client", "label", "score", "split")}
    write_report(tmp_path, metrics=empty, predictions=predictions, history=None, title="Nothing")
    tags(page(tmp_path))


def test_a_threshold_that_never_alerts_is_drawn(tmp_path):
    known = arguments()
    first_alert = np.zeros_like(known["predictions"]["label"])
    known["predictions"]["first_alert"] = first_alert
    label, score, client = (known["predictions"][name] for name in ("label", "score", "client"))
    known["metrics"] = evaluate(label, score, threshold=1.0000001, client=client, first_alert=first_alert)
    write_report(tmp_path, **known)
    # 247 benign sessions of 83 clients: 1 - 0.025 ** (1 / 83) = 4.3 %
    assert "95 %: up to 4.3 %" in page(tmp_path)
    assert ">never<" in page(tmp_path)


def test_a_loss_that_is_not_finite_is_left_out(tmp_path):
    known = arguments()
    write_report(tmp_path, **{**known, "history": [*HISTORY, {"epoch": 13, "train_loss": np.nan, "valid_loss": None}]})
    assert "Loss by epoch" in images(page(tmp_path))


def test_metrics_are_strict_json(tmp_path):
    known = quick()
    known["metrics"] |= {"extra": {"value": np.float32("nan"), "counts": np.arange(2), "pair": (1, np.inf)}}
    write_report(tmp_path, **known)

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert found["extra"] == {"value": None, "counts": [0, 1], "pair": [1, None]}
    assert found["roc_auc"] == known["metrics"]["roc_auc"]


def test_predictions_come_back_from_the_csv_as_they_were(tmp_path):
    known = arguments()
    known["predictions"]["session"][:3] = ["=1+1", 'a,"b"\nc', "-3"]
    known["predictions"]["label"][1] = -1
    write_report(tmp_path, **known)
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["session", "client", "label", "score", "split"]
    assert [row["session"] for row in rows[:3]] == ["'=1+1", 'a,"b"\nc', "-3"]
    assert [unguard_cell(row["session"]) for row in rows] == known["predictions"]["session"].tolist()
    assert [float(row["score"]) for row in rows] == known["predictions"]["score"].tolist()
    assert (rows[0]["label"], rows[1]["label"], rows[-1]["label"]) == ("1", "", "0")


@given(st.text(alphabet="=+-@'\t\r1aé", max_size=6))
def test_a_guarded_cell_is_no_formula_and_comes_back(text):
    cell = guard_cell(text)
    assert cell[:1] not in tuple("=@\t\r")
    assert cell[:1] not in ("+", "-") or re.fullmatch(r"[+-]\d+", cell)
    assert unguard_cell(cell) == text


def test_only_the_test_split_is_drawn(tmp_path):
    known = arguments()
    predictions = {name: np.concatenate([column] * 2) for name, column in known["predictions"].items()}
    predictions["split"] = np.repeat(np.array(["test", "train"], object), len(predictions["split"]) // 2)
    predictions["score"][len(predictions["score"]) // 2 :] = 0.5
    write_report(tmp_path / "both", **{**known, "predictions": predictions})
    write_report(tmp_path / "test", **known)
    assert page(tmp_path / "both") == page(tmp_path / "test")


def test_a_run_that_stops_halfway_leaves_the_old_report_whole(tmp_path, monkeypatch):
    write_report(tmp_path, **quick())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, **quick(seed=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    monkeypatch.undo()
    write_report(tmp_path, **quick(seed=1))
    assert sorted(os.listdir(tmp_path)) == sorted(before)
    assert (tmp_path / "index.html").read_bytes() != before["index.html"]


def test_the_page_takes_its_place_last(tmp_path, monkeypatch):
    placed = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (placed.append(new.name), replace(old, new)))
    write_report(tmp_path, **quick())
    assert placed == ["metrics.json", "predictions.csv", "index.html"]


def test_a_file_in_the_folders_place_is_a_sentence(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(OutputError, match="the report cannot be written there"):
        write_report(tmp_path / "report", **quick())
    assert (tmp_path / "report").read_text() == "mine"


def test_a_missing_column_is_a_sentence(tmp_path):
    known = arguments()
    del known["predictions"]["client"]
    with pytest.raises(DataError, match="predictions lack client"):
        write_report(tmp_path, **known)


def test_a_column_of_another_length_is_a_sentence(tmp_path):
    known = arguments()
    known["predictions"]["client"] = known["predictions"]["client"][:5]
    with pytest.raises(DataError, match="client has 5 rows, score has 330"):
        write_report(tmp_path, **known)


def test_rounding_never_claims_perfection():
    assert [number(value) for value in (1.0, 0.99996, 0.9996, 0.98765)] == [
        "1.000",
        "&gt; 0.9999",
        "0.9996",
        "0.988",
    ]
    assert [percent(value) for value in (1.0, 0.9999, 0.0, 0.0001)] == [
        "100 %",
        "&gt; 99.9 %",
        "0 %",
        "0.01 %",
    ]


def test_page_and_json_tell_the_same_interval(tmp_path):
    label = np.repeat([1, 0], [10, 30])
    metrics = evaluate(label, 0.1 + 0.8 * label, threshold=0.5, client=np.arange(40))
    write_report(tmp_path, **quick() | {"metrics": metrics})
    told = json.loads((tmp_path / "metrics.json").read_text())["intervals"]
    for interval in (f"{told['roc_auc'][0]:.3f} or more", f"{100 * told['tpr_at_threshold'][0]:.1f} % or more"):
        assert f"95 %: {interval}" in page(tmp_path)
    assert f"95 %: up to {100 * told['fpr_at_threshold'][1]:.1f} %" in page(tmp_path)
