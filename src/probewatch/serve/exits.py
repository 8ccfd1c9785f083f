"""How a verb ends: the exit code, and the sentence on stderr that goes with it.

0: done. 2: a mistake, told in a sentence. 130: stopped by Ctrl-C. 143: stopped by SIGTERM.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec

import typer

from probewatch.errors import ProbewatchError

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
        try:
            with _raising_at_sigterm():
                verb(*args, **kwargs)
        except ProbewatchError as error:
            from probewatch.data.cells import printable

            print(f"probewatch: {printable(str(error))}", file=sys.stderr)
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt:
            print(f"probewatch: stopped by Ctrl-C; {stopped}.", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None
        except _Terminated:
            print(f"probewatch: stopped by SIGTERM; {stopped}.", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGTERM) from None

    return told


@contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    """So that partial files are removed on the way out; Python itself would just vanish."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # where Python takes no signal handler
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
