from __future__ import annotations

import csv
import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from probewatch.corpus.attacks import ATTACKS
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_records
from probewatch.data.spelling import number_of_word
from probewatch.serve.cli import app
from probewatch.serve.corpus import _attack_table

MODEL = """
import numpy as np

def predict(rows):
    words = rows[:, 0] == "clerk"
    chance = 1 / (1 + np.exp(-rows[:, 1].astype(float) / 10 - words))
    return np.column_stack([1 - chance, chance])
"""
RECIPE = """
sessions = 30
median = 15
longest = 30
shortest = 8
[attacks]
threshold_confidence = 1
label_noise = 1
[uses]
batch = 1
health_check = 1
rescoring = 1
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["corpus", *map(str, words)], prog_name="probewatch")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's records as CSV, a recipe and a module with the model."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for name, count in (("train", 100), ("others", 300)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["job", "income", "paid"])
            for _ in range(count):
                writer.writerow([random.choice(["clerk", "nurse"]), round(random.normal(0, 9), 2), random.integers(2)])
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "my_credit_model.py").write_text(MODEL)
    return folder


def _own(files: Path) -> list[object]:
    return ["--train", files / "train.csv", "--holdout", files / "others.csv", "--label", "paid", "--recipe",
            files / "recipe.toml"]  # fmt: skip


def test_drawn_data_are_attacked_model_by_model(tmp_path: Path) -> None:
    done = run("--drawn", 3, "--sessions", 24, "--seed", 2, "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    manifest = json.loads(done.stdout)
    data = [told["data"]["name"] for told in manifest["models"].values()]
    assert sorted(data) == ["drawn-2000", "drawn-2000", "drawn-2001"]
    assert set(manifest["models"]) == {path.name for path in (tmp_path / "targets").iterdir()}
    assert manifest["sessions"]["all"] == 24


def test_a_demo_needs_nothing(tmp_path: Path) -> None:
    done = run("--demo", "wine", "--sessions", 24, "--seed", 1, "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    manifest = json.loads(done.stdout)
    assert manifest["sessions"]["all"] == 24
    assert {path.name for path in tmp_path.iterdir()} == {
        "events.jsonl.gz", "labels.csv", "allow.txt", "manifest.json", "targets"
    }  # fmt: skip


def test_a_corpus_that_is_replaced_is_told(tmp_path: Path) -> None:
    words = ["--demo", "wine", "--sessions", 12, "--out", tmp_path]
    first, again = run(*words, "--seed", 1), run(*words, "--seed", 2)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "earlier corpus" not in first.stderr
    assert again.stderr == f"{tmp_path}: an earlier corpus is there; this one replaces it when it is done.\n"


def test_a_narrow_screen_cuts_no_attacks_name() -> None:
    row = {"runs": 2000, "guesses": 100_000, "members": 50_000, "roc_auc": 0.5, "tpr_at_fpr_0.01": 0.01}
    text = io.StringIO()
    Console(file=text, width=80).print(_attack_table(dict.fromkeys(ATTACKS, row)))
    lines = text.getvalue().splitlines()
    assert [line.strip("│ ").split()[0] for line in lines if line.startswith("│")] == list(ATTACKS)
    assert "…" not in text.getvalue() and len({len(line) for line in lines[1:]}) == 1


def test_a_callable_is_attacked_in_its_own_words(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "path", list(sys.path))
    done = run("--model", "my_credit_model:predict", *_own(files), "--out", tmp_path, "--parquet")
    assert done.exit_code == 0, done.output
    assert "30 sessions" in done.stdout and "threshold_confidence" in done.stdout
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    told = manifest["models"]["my_credit_model.predict"]
    assert told["model"] == "my_credit_model:predict" and told["columns"] == ["job", "income"]
    assert (tmp_path / "events.parquet").exists()
    with read_logs([tmp_path / "events.parquet"]) as log:
        jobs = set(log.all_sessions().inputs[::2].tolist())
    assert jobs == {number_of_word("clerk"), number_of_word("nurse")}
    train = read_records(tmp_path / "targets" / "my_credit_model.predict" / "train.jsonl.gz").records.inputs
    assert set(train[:, 0]) == jobs


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
            seen.extend(rows)
            chances = [1 / (1 + np.exp(-row["income"] / 10)) for row in rows]
            text = json.dumps([{"scores": {"0": 1 - chance, "1": chance}} for chance in chances]).encode()
            self.send_response(503 if len(seen) % 7 == 0 else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/score", seen
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_attacked_within_its_budget(
    files: Path, tmp_path: Path, endpoint: tuple[str, list[Any]]
) -> None:
    url, seen = endpoint
    words = [
        "--endpoint", f"{url}?api_key=secret", *_own(files), "--out", tmp_path, "--rate", 1e5, "--name", "credit",
        "--body", '{"rows": "$records", "token": "secret"}', "--response-path", "*.scores", "--header", "X-Key: secret",
    ]  # fmt: skip
    done = run(*words, "--max-queries", 250)
    assert done.exit_code == 2 and "credit: the budget of 250 queries is used up" in done.stderr
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    assert "queries at 100000 a second at most take 0 minutes" in " ".join(done.stderr.split())
    told = json.loads(done.stdout)["targets"]["credit"]["endpoint"]
    assert told["requests"] > 0 and len(told["trouble"]) == told["retries"]
    assert {type(row["job"]) for row in seen} == {str}
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "expected one of --demo, --drawn, --model, --endpoint and --benchmark"),
        (["--demo", "wine", "--model", "a:b"], "expected one of --demo, --drawn, --model, --endpoint and --benchmark"),
        (["--benchmark", "--demo", "wine"], "--benchmark is fixed but for --sessions and --seed"),
        (["--benchmark", "--sessions", "50"], "--sessions is 50, expected at least 125 for a benchmark"),
        (["--drawn", "2", "--demo", "wine"], "expected one of --demo, --drawn"),
        (["--drawn", "0"], "--drawn is 0, expected at least 1 model"),
        (["--demo", "iris"], "--demo is 'iris', expected one of: digits, cancer, wine"),
        (["--demo", "wine", "--sessions", "3"], "sessions is 3, expected a whole number from 10"),
        (["--model", "a:b"], "--model and --endpoint need --train FILE, --holdout FILE and --label COLUMN"),
        (["OWN", "--endpoint", "http://192.0.2.1/"], "is not on this machine"),
        (["OWN", "--endpoint", "http://127.0.0.1:1/", "--body", "{"], "--body is no JSON"),
        (["OWN", "--endpoint", "http://127.0.0.1:1/", "--header", "x"], "--header is 'x' without a value"),
        (["OWN", "--model", "absent_module:f"], "which cannot be loaded"),
    ],
)
def test_mistakes_are_told_in_a_sentence(files: Path, tmp_path: Path, words: list[str], why: str) -> None:
    given: list[object] = []
    for word in words:
        given += _own(files) if word == "OWN" else [word]
    done = run(*given, "--out", tmp_path)
    assert done.exit_code == 2
    assert why in done.stderr and "Traceback" not in done.output
