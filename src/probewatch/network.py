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

BATCH = 12  # sequences go into a graph call by dozens: so many rows MLAS multiplies at once
STEPS = 1200  # steps of a graph call, as near as dozens come: more would outgrow a core's cache
PIECE = 1024  # steps of a sequence that one graph call takes; a longer one carries its state on


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
        self._threads = threads or _cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a batch a thread: no thread waits for another inside a batch
        options.enable_mem_pattern = False  # a plan for each shape, and hardly a shape comes twice
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
        left_over = iter(_batches(order, lengths))  # whichever thread is free takes the next

        def work(_: int) -> None:
            for chosen in left_over:
                self._follow(sequences, lengths, chosen, logits, state)

        threads = min(self._threads, -(-len(order) // BATCH))
        if threads < 2:
            work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(threads)))  # the list raises what a thread raised
        return logits, state

    def _follow(
        self,
        sequences: Ragged,
        lengths: NDArray[np.int64],
        chosen: NDArray[np.int64],
        logits: NDArray[np.float32],
        state: NDArray[np.float32],
    ) -> None:
        """Write the logits and the final state of the ``chosen`` sequences, a piece after the other."""
        begins, left = sequences.offsets[chosen], lengths[chosen]
        piece = PIECE if self.state_width else int(left.max(initial=0))  # both directions need the whole
        while len(chosen):
            taken = np.minimum(left, piece)
            steps = np.arange(int(taken.max()))
            inside = steps < taken[:, None]  # (B, T)
            rows = begins[:, None] + np.minimum(steps, taken[:, None] - 1)  # behind the end: the last step again
            events = sequences.values.take(rows, axis=0)  # (B, T, F)
            feed = {"events": events, "lengths": taken.astype(np.int32), "state": state[chosen]}
            out, state[chosen] = self._session.run(["logits", "new_state"], feed)
            logits[rows[inside]] = out[inside]
            more = left > taken
            chosen, begins, left = chosen[more], (begins + taken)[more], (left - taken)[more]


def _cores() -> int:
    """Cores that this process may use; not every system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(order: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """``order`` cut into graph calls; the lengths fall along it."""
    batches, start = [], 0
    while start < len(order):
        size = BATCH * max(1, STEPS // (BATCH * int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


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
