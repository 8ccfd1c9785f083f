"""How a verb ends: the exit code, and the sentence on stderr that goes with it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from probewatch.errors import ProbewatchError

P = ParamSpec("P")


def sentences(verb: Callable[P, None]) -> Callable[P, None]:
    """Turn what Probewatch raises on purpose into a sentence on stderr and exit code 2."""

    @functools.wraps(verb)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except ProbewatchError as error:
            from probewatch.data.cells import printable

            print(f"probewatch: {printable(str(error))}", file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            print("probewatch: stopped; nothing was half-written.", file=sys.stderr)
            raise typer.Exit(130) from None

    return told
