"""Sessions to a log in the article's raw form (A19), in time order: JSON lines or Parquet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

CHUNK = 50_000  # events in memory as text
LEVEL = 6  # of gzip


@dataclass(frozen=True)
class Session:
    """One session as it was asked and answered.

    Attributes:
        task, client, actor: names; the keys of one attacker share an actor.
        job, address: more of the log's context, which says nothing.
        target: the log's ``modelName``.
        attack: none, membership, extraction or evasion.
        family: of the attack or benign use.
        evasion: what hides the attack, none otherwise.
        time_s: (n,) ascending seconds since the log's beginning.
        inputs: (n, D).
        confidence: (n,) of the predicted class.
        predicted: int64 (n,) number of the class.
    """

    task: str
    client: str
    actor: str
    job: str
    address: str
    target: str
    attack: str
    family: str
    evasion: str
    time_s: NDArray[np.float64]
    inputs: NDArray[np.float64]
    confidence: NDArray[np.float64]
    predicted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True)
class _Chunk:
    """Columns of n events in time order."""

    stamp: NDArray[Any]  # (n,) text
    session: NDArray[np.int64]  # (n,)
    rows: list[list[float]]  # (n) inputs
    vectors: list[str]  # (n) inputs as JSON
    confidence: NDArray[np.float64]
    predicted: list[Any]


def write_events(
    path: Path, sessions: Sequence[Session], start: np.datetime64, classes: Mapping[str, Sequence[Any]]
) -> None:
    """Write all events in the order of their time; the same sessions give the same bytes.

    Args:
        path: ``….jsonl.gz`` or ``….parquet``.
        start: of the log, UTC.
        classes: for each target its classes; whole numbers are written as they are, others as text.
    """
    chunks = _chunks(sessions, start, classes)
    if path.suffix == ".parquet":
        _write_parquet(path, sessions, chunks, classes)
        return
    heads = [_head(session) for session in sessions]
    with path.open("wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
        for chunk in chunks:
            confidence = number_texts(chunk.confidence)
            lines = [
                f'{{"timestamp":"{stamp}Z","eventType":"model_query",{heads[session]}{vector}]}},'
                f'"queryResponse":{{"confidence":{sure},"predictedClass":{predicted}}}}}}}\n'
                for stamp, session, vector, sure, predicted in zip(
                    chunk.stamp.tolist(), chunk.session.tolist(), chunk.vectors, confidence.tolist(),
                    map(json.dumps, chunk.predicted), strict=True,
                )
            ]  # fmt: skip
            file.write("".join(lines).encode())


def write_records(
    path: Path, inputs: NDArray[np.float64], answers: NDArray[np.float64], classes: Sequence[Any]
) -> None:
    """What an owner has: (R, D) records with the model's own (R, C) answers, as gzipped JSON lines."""
    confidence, predicted = answers.max(axis=1), answers.argmax(axis=1).tolist()
    names = [json.dumps(class_value(classes, code)) for code in range(len(classes))]
    lines = [
        f'{{"featureVector":[{vector}],"confidence":{sure},"predictedClass":{names[code]}}}\n'
        for vector, sure, code in zip(row_texts(inputs), number_texts(confidence).tolist(), predicted, strict=True)
    ]
    with path.open("wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
        file.write("".join(lines).encode())


def class_value(classes: Sequence[Any], code: int) -> int | str:
    """What the log says for a class: a whole number as it is, anything else as text."""
    value = classes[code]
    return int(value) if isinstance(value, int) else str(value)


def number_texts(values: NDArray[np.float64]) -> NDArray[np.object_]:
    """Numbers as JSON, each distinct one written once."""
    distinct, place = np.unique(values, return_inverse=True)
    texts = np.empty(len(distinct), object)
    texts[:] = list(map(repr, distinct.tolist()))
    found: NDArray[np.object_] = texts[place.reshape(values.shape)]
    return found


def row_texts(rows: NDArray[np.float64]) -> list[str]:
    """(n, D) rows as JSON without brackets."""
    return [",".join(row) for row in number_texts(rows).tolist()]


def _head(session: Session) -> str:
    context = {
        "userId": session.client, "jobId": session.job, "taskId": session.task, "sourceIp": session.address
    }  # fmt: skip
    named = json.dumps({"context": context, "details": {"modelName": session.target}}, separators=(",", ":"))
    return named[1:-2] + ',"queryInput":{"featureVector":['


def _chunks(
    sessions: Sequence[Session], start: np.datetime64, classes: Mapping[str, Sequence[Any]]
) -> Iterator[_Chunk]:
    lengths = np.array([len(session) for session in sessions], np.int64)
    owner = np.repeat(np.arange(len(sessions)), lengths)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    time_s = np.concatenate([session.time_s for session in sessions])
    order = np.argsort(time_s, kind="stable")
    for begin in range(0, len(order), CHUNK):
        chosen = order[begin : begin + CHUNK]
        micros = np.rint(time_s[chosen] * 1e6).astype(np.int64).astype("timedelta64[us]")
        yield _Chunk(
            np.datetime_as_string(start.astype("datetime64[us]") + micros, unit="us"),
            owner[chosen],
            *_gathered(sessions, owner[chosen], step[chosen], classes),
        )


def _gathered(
    sessions: Sequence[Session],
    owner: NDArray[np.int64],
    step: NDArray[np.int64],
    classes: Mapping[str, Sequence[Any]],
) -> tuple[list[list[float]], list[str], NDArray[np.float64], list[Any]]:
    """Inputs, their texts, confidences and predicted classes of these events."""
    targets = np.array([session.target for session in sessions], object)[owner]
    rows: list[list[float]] = [[]] * len(owner)
    vectors, predicted = [""] * len(owner), [None] * len(owner)
    confidence = np.empty(len(owner))
    for target in sorted(set(targets.tolist())):
        places = np.flatnonzero(targets == target)
        by_session = places[np.argsort(owner[places], kind="stable")]
        groups = np.split(by_session, np.flatnonzero(np.diff(owner[by_session])) + 1)
        inputs = np.concatenate([sessions[owner[group[0]]].inputs[step[group]] for group in groups])
        codes = np.concatenate([sessions[owner[group[0]]].predicted[step[group]] for group in groups])
        confidence[by_session] = np.concatenate([sessions[owner[group[0]]].confidence[step[group]] for group in groups])
        values = [class_value(classes[target], code) for code in range(len(classes[target]))]
        for place, row, text, code in zip(
            by_session.tolist(), inputs.tolist(), row_texts(inputs), codes.tolist(), strict=True
        ):
            rows[place], vectors[place], predicted[place] = row, text, values[code]
    return rows, vectors, confidence, predicted


def _write_parquet(
    path: Path, sessions: Sequence[Session], chunks: Iterator[_Chunk], classes: Mapping[str, Sequence[Any]]
) -> None:
    whole = all(isinstance(class_value(names, code), int) for names in classes.values() for code in range(len(names)))
    kind = pa.int64() if whole else pa.string()
    writer = None
    for chunk in chunks:
        own = [sessions[number] for number in chunk.session.tolist()]
        context = pa.StructArray.from_arrays(
            [pa.array([getattr(one, name) for one in own]) for name in ("client", "job", "task", "address")],
            names=["userId", "jobId", "taskId", "sourceIp"],
        )
        vector = pa.StructArray.from_arrays([pa.array(chunk.rows, pa.list_(pa.float64()))], names=["featureVector"])
        predicted = pa.array(chunk.predicted if whole else [str(value) for value in chunk.predicted], kind)
        response = pa.StructArray.from_arrays(
            [pa.array(chunk.confidence), predicted], names=["confidence", "predictedClass"]
        )
        details = pa.StructArray.from_arrays(
            [pa.array([one.target for one in own]), vector, response],
            names=["modelName", "queryInput", "queryResponse"],
        )
        table = pa.table({
            "timestamp": pa.array([f"{stamp}Z" for stamp in chunk.stamp.tolist()]),
            "eventType": pa.array(["model_query"] * len(own)), "context": context, "details": details,
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
