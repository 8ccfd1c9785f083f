"""Small logs and a small trained detector that several tests share."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

START = 1_772_323_200.0  # 2026-03-01T00:00:00Z


@dataclass(frozen=True)
class Made:
    """A made log: its events (A19), and the attackers' tasks."""

    events: list[dict[str, Any]]
    malicious: dict[str, bool]
    clients: dict[str, str]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """(log, labels) as files."""
        folder.mkdir(parents=True, exist_ok=True)
        log, labels = folder / "events.jsonl.gz", folder / "labels.csv"
        with gzip.open(log, "wt") as file:
            file.writelines(json.dumps(event) + "\n" for event in self.events)
        rows = [f"{task},{int(bad)},{'probing' if bad else 'people'}" for task, bad in self.malicious.items()]
        labels.write_text("\n".join(["task_id,is_malicious,family", *rows]) + "\n")
        return log, labels


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: networks as small as those of tests are slower on more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_log() -> Callable[..., Made]:
    """A maker of logs in which attackers perturb one record a little, and people ask for another each time."""

    def make(seed: int = 0, clients: int = 24, tasks: int = 3, inputs: int = 6, longest: int = 30) -> Made:
        random = np.random.default_rng(seed)
        events, malicious, owner = [], {}, {}
        for client in range(clients):
            bad = client % 3 == 0
            for task in range(tasks):
                name = f"task-{client}-{task}"
                malicious[name], owner[name] = bad, f"user-{client}"
                anchor = random.normal(size=inputs)
                time = START + random.uniform(0, 86_400)
                for _ in range(random.integers(5, longest)):
                    record = anchor + 0.05 * random.normal(size=inputs) if bad else random.normal(size=inputs)
                    time += random.exponential(3.0)
                    confidence = 0.5 + 0.5 / (1.0 + np.exp(-record[0] - record[1]))
                    events.append(_event(time, owner[name], name, record, confidence))
        events.sort(key=lambda event: event["timestamp"])
        return Made(events, malicious, owner)

    return make


def _event(time: float, client: str, task: str, record: Any, confidence: float) -> dict[str, Any]:
    stamp = np.datetime64(round(time * 1e6), "us").astype(str) + "Z"
    return {
        "timestamp": stamp,
        "eventType": "model_query",
        "context": {"userId": client, "taskId": task, "jobId": "job", "sourceIp": "203.0.113.9"},
        "details": {
            "modelName": "credit",
            "queryInput": {"featureVector": [round(float(value), 5) for value in record]},
            "queryResponse": {"confidence": round(float(confidence), 6), "predictedClass": int(record[0] > 0)},
        },
    }


@pytest.fixture(scope="session")
def made(make_log: Callable[..., Made]) -> Made:
    """A log of 72 tasks of 24 clients."""
    return make_log()


@pytest.fixture(scope="session")
def log_files(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The log and its labels as files."""
    return made.write(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="session")
def quick() -> Any:
    """The default preset, made small enough for a test."""
    from probewatch.learn.presets import PRESETS

    return replace(PRESETS["default"], theme_dropout=0.0, hidden=8, folds=2, epochs=4, patience=4, learning_rate=1e-2)


@pytest.fixture(scope="session")
def labelled(log_files: tuple[Path, Path]) -> Any:
    """The log's sessions with their labels."""
    from probewatch.data.labels import read_labels
    from probewatch.data.logs import read_logs
    from probewatch.learn.labelled import Labelled

    log, labels = log_files
    with read_logs([log]) as opened:
        sessions = opened.all_sessions()
        sha256 = opened.sha256
    matched = read_labels(labels).match(sessions.session, sessions.client)
    return Labelled(sessions, matched.label, matched.family, np.zeros(len(sessions), bool), sha256)


@pytest.fixture(scope="session")
def bundle(labelled: Any, quick: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small trained detector; do not change its files."""
    from probewatch.learn.detector import train_detector

    return train_detector(labelled, quick, tmp_path_factory.mktemp("bundle"), rivals=False)[0]
