"""Sessions -> features: the compiled step over whole sessions, or over what a stream brings of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import ARTICLE, DEFAULT, FAMILIAR, FEATURES, SIGNALS, WINDOW, check_names
from probewatch.data.known import Known
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions
from probewatch.data.scales import SKETCH
from probewatch.data.sketches import signs_of
from probewatch.data.state import Room, State, new_state
from probewatch.data.step import run
from probewatch.errors import DataError


def compute(
    sessions: Sessions,
    names: Sequence[str],
    known: Known,
    state: State | None = None,
    slots: NDArray[np.int64] | None = None,
) -> Ragged:
    """The features of every query of ``sessions``.

    Args:
        sessions: S sessions over N queries; one with ``before`` > 0 goes on from ``state``.
        names: F names out of :data:`FEATURES`, the order of the columns.
        known: of the models; one that is not in it is scaled by each session's own running spread.
        state: what is remembered of each slot, changed in place; needed to go on with sessions.
        slots: (S,) place of each session in ``state``; without it all take turns in the first.

    Returns:
        (N, F) float32 values, NaN where the log does not tell, with the offsets of the sessions.

    Raises:
        ConfigError: an unknown feature.
        DataError: the log has ready-made features but not one of those asked for.
    """
    places = _places(tuple(names))
    missing = [name for name in ARTICLE if name in names and sessions.given and name not in sessions.given]
    if missing:
        raise DataError(f"the log has no column {missing}, expected all of {list(ARTICLE)}; add what is missing.")
    state = state or new_state(1, anchor_width(sessions, names))
    slots = np.zeros(len(sessions), np.int64) if slots is None else slots
    rows = known.rows(sessions.model)
    out = np.empty((len(sessions.time_s), len(names)), np.float32)
    digest = sessions.digest if len(sessions.digest) else np.zeros(len(sessions.time_s), np.uint64)
    told = sessions.time_s, sessions.confidence, sessions.predicted_class, sessions.inputs, sessions.input_offsets
    run(
        state, slots, sessions.before == 0, sessions.offsets, rows, *map(_read_only, told), digest,
        known.table, known.reference, places, _room(sessions), out,
    )  # fmt: skip
    if FAMILIAR in names:
        out[:, list(names).index(FAMILIAR)] = np.repeat(known.familiar[rows], sessions.lengths)
    for name, column in sessions.given.items():
        if name in names:
            out[:, list(names).index(name)] = column
    return Ragged(out, sessions.offsets)


def compile_ahead() -> None:
    """Have the step compiled, or fetched from where it is kept, by a thread of its own while a log is being read.

    The first call of :func:`compute` waits for it. A process that ends before does so too.
    """
    threading.Thread(target=compute, args=(Sessions.concat([]), DEFAULT, Known())).start()


@lru_cache
def _places(names: tuple[str, ...]) -> NDArray[np.int64]:
    """Where the features stand in a row of the step; an unknown one is refused."""
    check_names(names)
    return np.array([list(FEATURES).index(name) for name in names], np.int64)


def anchor_width(sessions: Sessions, names: Sequence[str]) -> int:
    """How wide :attr:`State.anchor` must be for these sessions and features; 0 if the anchor is not needed."""
    return int(np.diff(sessions.input_offsets).max(initial=0)) if ARTICLE[2] in names else 0


def _read_only(column: NDArray[Any]) -> NDArray[Any]:
    """The column as an array that may not be written to: Numba compiles anew for one that may."""
    view = column.view()
    view.flags.writeable = False
    return view


def _room(sessions: Sessions) -> Room:
    """What the step works in; compiled code allocates nothing."""
    widest = int(np.diff(sessions.input_offsets).max(initial=0))
    return Room(
        np.empty(len(FEATURES)), np.empty(len(SIGNALS), np.float32), signs_of(widest), np.empty(widest),
        np.empty(SKETCH), np.empty(SKETCH, np.int16), np.empty(WINDOW, np.float32),
    )  # fmt: skip
