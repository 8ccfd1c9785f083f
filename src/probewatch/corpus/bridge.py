"""Lets a function that calls a model drive a source, without knowing that it waits for others in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from probewatch.corpus.sources import Answers, Guess, Inputs, Predict, Source


class _StoppedError(BaseException):
    """Ends the function's thread when its source is closed. Not an Exception, so that no one in between keeps it."""


def ask_by_calls(run: Callable[[Predict], Guess | None], seed: int) -> Source:
    """A source of whatever ``run`` asks of the model it is given.

    ``run`` goes in a thread of its own, but never at the same time as the source's owner. NumPy's global random state,
    which attack libraries draw from, is the function's own while it runs and as before afterwards, so sources neither
    change each other's draws nor their owner's.

    Args:
        run: calls the model with (n, D) inputs, n at least 1, as often as it likes.
        seed: of the global random state, from 0 to 2**32 - 1.
    """
    asked: SimpleQueue[Inputs | None] = SimpleQueue()
    answered: SimpleQueue[Answers | None] = SimpleQueue()
    outcome: list[Guess | BaseException | None] = []

    def predict(inputs: Inputs) -> Answers:
        asked.put(inputs)
        answers = answered.get()
        if answers is None:
            raise _StoppedError
        return answers

    def work() -> None:
        try:
            outcome.append(run(predict))
        except BaseException as error:  # raised again in the owner's thread
            outcome.append(error)
        asked.put(None)

    thread = threading.Thread(target=work, daemon=True)
    shared: Any = np.random  # its types leave out the two functions used here
    mine = np.random.MT19937(seed)
    answers: Answers | None = None
    try:
        while True:
            before = shared.get_bit_generator()
            shared.set_bit_generator(mine)
            if answers is None:
                thread.start()
            else:
                answered.put(answers)
            inputs = asked.get()
            shared.set_bit_generator(before)
            if inputs is None:
                break
            answers = yield inputs
    finally:
        answered.put(None)
        if thread.ident is not None:
            thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
