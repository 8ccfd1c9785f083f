"""The bundle's network at work: sequences -> logits by ONNX Runtime, logits -> a verdict on each session."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from probewatch.data.ragged import Ragged
from probewatch.data.records import ranges
from probewatch.errors import BundleError, ConfigError

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
        self._threads = threads or usable_cores()
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


def usable_cores() -> int:
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


def prior_shift(prior: float, share: float) -> float:
    """What to add to log-odds that are probabilities where ``share`` of the sessions are attacks, if ``prior`` are.

    Bayes' rule, as the likelihoods of attack and benign use stay as they are (Saerens, Latinne and Decaestecker 2002).

    >>> round(prior_shift(0.01, 0.5), 4)
    -4.5951

    Raises:
        ConfigError: one is not above 0 and below 1.
    """
    for name, value in (("the stated share of attacks", prior), ("the share of attacks in training", share)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} is {value}, expected one above 0 and below 1.")
    return math.log(prior / (1 - prior)) - math.log(share / (1 - share))


def shifted(score: float, shift: float) -> float:
    """A score whose log-odds are ``shift`` higher; 0 and 1 stay."""
    if shift == 0 or not 0 < score < 1:
        return score
    return float(sigmoid(np.array(math.log(score) - math.log1p(-score) + shift)))


def tell_prior(prior: float, share: float) -> str:
    """What a person should know of scores at another share of attacks than the training's."""
    return (
        f"Scores are probabilities where {100 * prior:.3g} % of the sessions are attacks ({100 * share:.3g} % of the"
        " training's were); the threshold moved with them, so the bundle's alerts stay the same."
    )


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logits as probabilities, float64, without overflow, and exact near 0 too: a rare attack's scores lie there."""
    logits = logits.astype(np.float64)
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits < 0, small, 1.0) / (1.0 + small))


def summarise(
    logits: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float, decision: str, shift: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """From the logit after every query to the verdict on every session.

    Args:
        logits: (N,) of S sessions laid end to end.
        offsets: (S + 1,) where they begin.
        threshold: from 0 to 1, of the logits as they are.
        decision: ``peak`` or ``last``.
        shift: what the log-odds of the scores that are given back are higher, see :func:`prior_shift`.

    Returns:
        (S,) score; (S,) score after the last query; (S,) number of the first query, from 1, that reached
        the threshold (of the last query, if the last decides), 0 for none.
    """
    scores = sigmoid(logits)
    told = sigmoid(logits + np.float64(shift)) if shift else scores
    last = told[offsets[1:] - 1]
    lengths = np.diff(offsets)
    if decision == "last":
        return last, last, np.where(scores[offsets[1:] - 1] >= threshold, lengths, 0)
    peak = np.maximum.reduceat(told, offsets[:-1])
    numbers = ranges(np.ones(len(lengths), np.int64), lengths)
    crossed = np.where(scores >= threshold, numbers, np.iinfo(np.int64).max)
    first = np.minimum.reduceat(crossed, offsets[:-1])
    return peak, last, np.where(np.maximum.reduceat(scores, offsets[:-1]) >= threshold, first, 0)
