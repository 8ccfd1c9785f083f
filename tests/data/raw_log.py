"""What a log holds, for tests of what reads it: raw events, and the article's feature JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from probewatch.data.logs import Log

ARTICLE = {
    "t1": {
        "task_id": "t1",
        "is_malicious": True,
        "global_features": {"n": 2},
        "sequence": [
            {
                "timestep": 0,
                "response_confidence": 0.5,
                "time_delta_since_last_query": 0.0,
                "distance_from_anchor_vector": 2.0,
                "note": "x",
            },
            {
                "timestep": 1,
                "response_confidence": 0.75,
                "time_delta_since_last_query": 1.5,
                "distance_from_anchor_vector": 0.0,
            },
            {
                "timestep": 2,
                "response_confidence": 0.25,
                "time_delta_since_last_query": 2.0,
                "distance_from_anchor_vector": 1.0,
            },
        ],
    },
    "t2": {"is_malicious": False, "sequence": [{"response_confidence": 0.5, "time_delta_since_last_query": 0}]},
}


def event(step: int = 0, **changes: Any) -> dict[str, Any]:
    """One raw event of the article's form; ``changes`` are by the log's own field names."""
    value = {"user": "u1", "task": "t1", "model": "m", "vector": [1.0, 2.0], "confidence": 0.9, "answer": 1}
    value |= {"time": f"2026-03-01T00:00:{step:02d}Z", "type": "model_query"} | changes
    return {
        "timestamp": value["time"],
        "eventType": value["type"],
        "context": {"userId": value["user"], "taskId": value["task"], "jobId": "j", "sourceIp": "192.0.2.1"},
        "details": {
            "modelName": value["model"],
            "queryInput": {"featureVector": value["vector"]},
            "queryResponse": {"confidence": value["confidence"], "predictedClass": value["answer"]},
        },
    }


def write(path: Path, lines: list[Any]) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", "utf-8")
    return path


def assert_balanced(log: Log) -> None:
    counts = log.counts
    assert counts.read == counts.events + counts.duplicates + counts.skipped + counts.rejects
