"""How a verb ends: the exit code, and the sentence on stderr that goes with it.

0: done. 2: a mistake, told in a sentence. 130: stopped by Ctrl-C. 143: stopped by SIGTERM.
"""

from __future__ import annotations

import functools
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec

import typer

from probewatch.errors import ProbewatchError
from probewatch.serve.apart import refuse_clashes

MISTAKE = 2
P = ParamSpec("P")


class _Terminated(BaseException):
    """SIGTERM came."""


def sentences(verb: Callable[P, None]) -> Callable[P, None]:
    """Turn what Probewatch raises on purpose, Ctrl-C and SIGTERM into a sentence on stderr and an exit code."""
    resumes = "resume" in verb.__annotations__
    stopped = "go on with the same command and --resume" if resumes else "nothing was half-written"

    @functools.wraps(verb)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        came: list[int] = []
        try:
            with _raising_at_signals(came):
                _replace_unprintable()
                refuse_clashes(kwargs)
                verb(*args, **kwargs)
        except KeyboardInterrupt:
            came.append(signal.SIGINT)
        except ProbewatchError as error:
            if not came:
                from probewatch.data.cells import printable

                print(f"probewatch: {printable(str(error))}", file=sys.stderr)
                raise typer.Exit(MISTAKE) from error
        except BaseException:  # libraries make errors of their own of a signal that comes while they work
            if not came:
                raise
        if came:
            print(f"probewatch: stopped by {name_of(came[0])}; {stopped}.", file=sys.stderr)
            raise typer.Exit(128 + came[0])

    return told


def _replace_unprintable() -> None:
    """A stream of fewer characters than a log has shows marks in their place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def name_of(number: int) -> str:
    """What a person calls a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def _raising_at_signals(came: list[int]) -> Iterator[None]:
    """So that partial files are removed on the way out; ``came`` gets the signals' numbers."""

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    if threading.current_thread() is not threading.main_thread():  # where Python takes no signal handler
        yield
        return
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
