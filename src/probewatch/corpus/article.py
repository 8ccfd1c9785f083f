"""The article's kind of toy data: tasks drawn from a random-number generator, benign or malicious.

One feature alone tells the two apart (the mean over a task of any of the article's three does): a
detector that does not reach ROC AUC 1.0 on it is broken, and one that does has shown nothing. Real
attacks do not look like this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.errors import ConfigError

ATTACK_SHARE = 0.4
STEPS = {False: (50, 150), True: (150, 250)}  # fewest and most queries of a task, benign and malicious
GAP_S = (0.5, 5.0)  # between two queries of a benign task
SPEED = (3.0, 50.0)  # a malicious task queries so many times faster
CONFIDENCE = {False: (0.6, 0.85), True: (0.4, 0.65)}
HIT_CONFIDENCE = (0.95, 0.99)  # of the few queries where a malicious task meets a training record
HIT_SHARE = 0.055
INPUTS = 10  # benign queries are anywhere in the unit cube of so many axes, about 1.25 apart
NEAR = 0.05  # deviation on each axis of malicious queries around their candidate, about 0.21 apart
MODEL = "toy-classifier"
START = datetime(2026, 3, 1, tzinfo=UTC)
SPAN_S = 86_400  # in which the tasks begin
ACTIVITY_EVERY = 40  # queries for one internal activity


@dataclass(frozen=True)
class _Task:
    """One task's T queries, rounded as a log would hold them."""

    name: str
    malicious: bool
    user: str
    begins: datetime
    gap_s: NDArray[np.float64]  # (T,) since the previous query, 0 for the first
    confidence: NDArray[np.float64]  # (T,)
    inputs: NDArray[np.float64]  # (T, INPUTS)
    output_size_bytes: int


def draw_tasks(tasks: int = 200, seed: int = 42) -> dict[str, Any]:
    """Tasks in the article's feature JSON (A1, A2), ready for ``json.dump``.

    The same arguments give the same tasks, here and in :func:`draw_events`. Two in five are malicious, the
    order is random. The anchor is the article's, the most confident query of the *whole* task.

    >>> found = draw_tasks(tasks=5, seed=1)
    >>> sum(task["is_malicious"] for task in found.values())
    2
    >>> [event["timestep"] for event in next(iter(found.values()))["sequence"][:3]]
    [0, 1, 2]

    Args:
        tasks: how many, at least 1.
        seed: from 0.

    Returns:
        ``{task_id: {"task_id", "is_malicious", "global_features", "sequence": [event, …]}}``; gaps are in
        seconds.

    Raises:
        ConfigError: fewer than one task, or a negative seed.
    """
    return {
        task.name: {
            "task_id": task.name,
            "is_malicious": task.malicious,
            "global_features": {
                "attack_model_trained": task.malicious,
                "total_query_count": len(task.gap_s),
                "final_output_size_bytes": task.output_size_bytes,
            },
            "sequence": _steps(task),
        }
        for task in _draw(tasks, seed)
    }


def draw_events(tasks: int = 200, seed: int = 42) -> list[dict[str, Any]]:
    """The same tasks in the article's raw form (A19), in time order.

    A line of the log is ``json.dumps`` of one of them. Whether a task is malicious is not in them:
    :func:`draw_tasks` tells, by the same ``taskId``.

    >>> [event["eventType"] for event in draw_events(tasks=1)[:2]]
    ['task_start', 'model_query']

    Args:
        tasks: how many, at least 1.
        seed: from 0.

    Raises:
        ConfigError: fewer than one task, or a negative seed.
    """
    events = [event for task in _draw(tasks, seed) for event in _events(task)]
    return [event for _, event in sorted(events, key=lambda timed: timed[0])]


def _draw(tasks: int, seed: int) -> Iterator[_Task]:
    if tasks < 1 or seed < 0:
        raise ConfigError(f"tasks is {tasks} and seed {seed}, expected at least 1 task and a seed from 0.")
    random = np.random.default_rng(seed)
    malicious = random.permutation(np.arange(tasks) < round(ATTACK_SHARE * tasks))
    for number, attack in enumerate(malicious.tolist()):
        yield _draw_task(number, attack, random)


def _draw_task(number: int, malicious: bool, random: np.random.Generator) -> _Task:
    low, high = STEPS[malicious]
    steps = int(random.integers(low, high, endpoint=True))
    gap_s = random.uniform(*GAP_S, steps)
    confidence = random.uniform(*CONFIDENCE[malicious], steps)
    inputs = random.uniform(0.0, 1.0, (steps, INPUTS))
    if malicious:
        gap_s /= np.exp(random.uniform(*np.log(SPEED)))
        hits = random.random(steps) < HIT_SHARE
        confidence[hits] = random.uniform(*HIT_CONFIDENCE, int(hits.sum()))
        inputs = random.uniform(0.0, 1.0, INPUTS) + NEAR * random.normal(size=(steps, INPUTS))
    gap_s[0] = 0.0
    size = random.integers(50, 300) if malicious else random.integers(5_000, 20_000)
    return _Task(
        name=f"task_{random.integers(2**40):010x}",
        malicious=malicious,
        user=f"user_{random.integers(2**32):08x}",
        begins=START + timedelta(seconds=int(random.integers(SPAN_S))),
        gap_s=gap_s.round(4),
        confidence=confidence.round(4),
        inputs=inputs.round(6),
        output_size_bytes=int(size),
    )


def _steps(task: _Task) -> list[dict[str, Any]]:
    anchor = task.inputs[np.argmax(task.confidence)]
    distance = np.linalg.norm(task.inputs - anchor, axis=1).round(4)
    columns = zip(task.confidence.tolist(), task.gap_s.tolist(), distance.tolist(), strict=True)
    return [
        {
            "timestep": step,
            "response_confidence": confidence,
            "time_delta_since_last_query": gap_s,
            "distance_from_anchor_vector": far,
        }
        for step, (confidence, gap_s, far) in enumerate(columns)
    ]


def _events(task: _Task) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Each event of a task with its time."""
    context = {
        "userId": task.user,
        "jobId": f"job_{task.name[-4:]}",
        "taskId": task.name,
        "sourceIp": f"203.0.113.{int(task.user[-2:], 16)}",  # an address for documentation (RFC 5737)
    }

    def event(time: datetime, kind: str, **details: Any) -> tuple[datetime, dict[str, Any]]:
        stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return time, {"timestamp": stamp, "eventType": kind, "context": context, "details": details}

    soon = timedelta(milliseconds=1)
    time = task.begins
    yield event(time - soon, "task_start")
    for step, (gap_s, confidence, inputs) in enumerate(zip(task.gap_s, task.confidence, task.inputs, strict=True)):
        time += timedelta(seconds=float(gap_s))
        answer = {"confidence": float(confidence), "predictedClass": int(inputs[0] > 0.5)}
        yield event(
            time, "model_query", modelName=MODEL, queryInput={"featureVector": inputs.tolist()}, queryResponse=answer
        )  # fmt: skip
        if step % ACTIVITY_EVERY == ACTIVITY_EVERY - 1:
            yield event(time + soon, "internal_activity", activityType="intermediate_result")
    yield event(time + 2 * soon, "task_end", outputSizeBytes=task.output_size_bytes)
