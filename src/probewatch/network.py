"""The bundle's network at work: sequences -> logits by ONNX Runtime, logits -> a verdict on each session."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from probewatch.data.ragged import Ragged
from probewatch.data.records import ranges
from probewatch.errors import BundleError

BATCH = 64  # sequences a graph call: the fastest of 16, 64 and 256
PIECE = 4096  # steps of a sequence that one graph call takes; a longer one carries its state on


class Network:
    """The bundle's network, ready to run; holds an ONNX Runtime session.

    Args:
        graph: what ``learn.graph.build_graph`` gave.
        features: the names and order that the graph must have been built for.
        threads: batches computed at a time, 0 for one a core; the scores are the same with any number.

    Raises:
        BundleError: the graph is damaged, or was built for other features.
    """

    def __init__(self, graph: bytes, features: list[str], *, threads: int = 0) -> None:
        self._threads = threads or len(os.sched_getaffinity(0))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a batch a thread: no thread waits for another inside a batch
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            properties = self._session.get_modelmeta().custom_metadata_map
            told = json.loads(properties["features"])
            self.state_width = int(properties["state"])
        except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
            raise BundleError(f"the graph cannot be loaded ({error}); train the bundle again.") from error
        if told != features:
            raise BundleError(
                f"the graph expects the features {told}, the manifest names {features}; train the bundle again."
            )

    def run(
        self, sequences: Ragged, state: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The logit after every step.

        Args:
            sequences: S sequences of F raw features, NaN where missing, none empty.
            state: (S, K) float32, where each sequence left off; zeros at its beginning.

        Returns:
            (N,) float32 logits, high = attack, and the (S, K) state after the last step.
        """
        lengths = sequences.lengths
        state = np.zeros((len(sequences), self.state_width), np.float32) if state is None else state.copy()
        logits = np.empty(len(sequences.values), np.float32)
        order = np.argsort(-lengths, kind="stable")  # the longest first: the threads end together
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

        def take(chosen: NDArray[np.int64]) -> None:
            begins, left = sequences.offsets[chosen], lengths[chosen]
            while len(chosen):
                taken = np.minimum(left, PIECE)
                out, after = self._call(sequences.values, begins, taken, state[chosen])
                logits[ranges(begins, taken)] = out
                state[chosen] = after
                more = left > taken
                chosen, begins, left = chosen[more], (begins + taken)[more], (left - taken)[more]

        if len(batches) < 2 or self._threads < 2:
            for batch in batches:
                take(batch)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(take, batches))  # the list raises what a thread raised
        return logits, state

    def _call(
        self, values: NDArray[np.float32], begins: NDArray[np.int64], lengths: NDArray[np.int64], state: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        steps = np.arange(int(lengths.max()))
        rows = begins[:, None] + np.minimum(steps, lengths[:, None] - 1)  # (B, T)
        events = values.take(rows, axis=0)  # (B, T, F), padded with each sequence's last step
        feed = {"events": events, "lengths": lengths.astype(np.int32), "state": state}
        logits, after = self._session.run(["logits", "new_state"], feed)
        return logits[steps < lengths[:, None]], after


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logits as probabilities, float64, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))


def summarise(
    logits: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float, decision: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """From the logit after every query to the verdict on every session.

    Args:
        logits: (N,) of S sessions laid end to end.
        offsets: (S + 1,) where they begin.
        threshold: from 0 to 1.
        decision: ``peak`` or ``last``.

    Returns:
        (S,) score; (S,) score after the last query; (S,) number of the first query, from 1, that reached
        the threshold (of the last query, if the last decides), 0 for none.
    """
    scores = sigmoid(logits)
    last = scores[offsets[1:] - 1]
    lengths = np.diff(offsets)
    if decision == "last":
        return last, last, np.where(last >= threshold, lengths, 0)
    peak = np.maximum.reduceat(scores, offsets[:-1])
    numbers = ranges(np.ones(len(lengths), np.int64), lengths)
    crossed = np.where(scores >= threshold, numbers, np.iinfo(np.int64).max)
    first = np.minimum.reduceat(crossed, offsets[:-1])
    return peak, last, np.where(peak >= threshold, first, 0)
