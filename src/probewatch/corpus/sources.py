"""Query sources: generators that say what to ask next and are sent the answers.

An attack or a benign use is such a generator. It knows neither time nor client, and an attacker does not know who
was a member. Since it only says *what* to ask, hundreds of them advance in lock-step, and the model answers
all their pending inputs in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[np.float64]
"""(n, D) inputs, a query a row, in the order in which they are asked."""

Answers = NDArray[np.float64]
"""(n, C) probabilities of the classes; a source that sees labels only looks at their argmax alone."""

Predict = Callable[[Inputs], Answers]


@dataclass(frozen=True)
class Guess:
    """What an attack makes of its answers.

    Args:
        record: int64 (R,) rows of the candidates, each at most once.
        score: float64 (R,) finite, high means that the record was trained on.
    """

    record: NDArray[np.int64]
    score: NDArray[np.float64]


Source = Generator[Inputs, Answers, Guess | None]
"""Yields (n, D) inputs, n at least 1, is sent (n, C) answers, and returns its guess, or None if it is no membership
attack."""


def run_together(
    sources: Sequence[Source],
    predict: Predict,
    *,
    seen: Callable[[int, Inputs, Answers], None] | None = None,
) -> list[Guess | None]:
    """Each source's guess, all of them run in lock-step.

    Args:
        sources: not yet started.
        predict: the model, called once a round with the pending inputs of all sources that still run.
        seen: is told of each block when it has been answered: the source's number, (n, D) inputs, (n, C) answers.

    >>> def ask_twice():
    ...     answers = yield np.zeros((2, 3))
    ...     return Guess(np.array([0, 1]), answers[:, 0])
    >>> run_together([ask_twice()], lambda inputs: inputs[:, :2] + 0.5)[0].score
    array([0.5, 0.5])
    """
    guesses: list[Guess | None] = [None] * len(sources)
    pending: dict[int, Inputs] = {}
    for number, source in enumerate(sources):
        _advance(number, source, None, pending, guesses)
    while pending:
        asked = list(pending.items())
        answers = predict(np.concatenate([inputs for _, inputs in asked]))
        pending = {}
        start = 0
        for number, inputs in asked:
            block = answers[start : start + len(inputs)]
            start += len(inputs)
            if seen is not None:
                seen(number, inputs, block)
            _advance(number, sources[number], block, pending, guesses)
    return guesses


def _advance(
    number: int,
    source: Source,
    answers: Answers | None,
    pending: dict[int, Inputs],
    guesses: list[Guess | None],
) -> None:
    try:
        pending[number] = next(source) if answers is None else source.send(answers)
    except StopIteration as end:
        guesses[number] = end.value
