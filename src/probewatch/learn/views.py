"""Views: the same sessions as a poorer log, or a defender who knows less, would show them.

One detector serves them all: training sees each session now in one view and now in another, and the threshold is
measured in each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import FLOOR, NEAR
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.profile import Profiles
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, offsets_of
from probewatch.data.scales import Scales
from probewatch.data.sketches import digest_all


class View(NamedTuple):
    """What is taken away, and the first feature that is missing then."""

    text: str
    lacks: tuple[str, ...]
    sign: str


VIEWS = {
    "no_profile": View("no profile of the model", ("profile",), "member_ratio"),
    "new_model": View("the model as one that training never saw, with its profile", ("model",), "familiar"),
    "unknown_model": View(
        "the model as one that training never saw, without profile", ("profile", "scale", "model"), "confidence_rank"
    ),
    "no_inputs": View("a log without input vectors", ("inputs",), "centre_distance"),
    "hashed_inputs": View("a log with hashes in the place of input vectors", ("vectors",), "centre_distance"),
    "no_confidence": View("a log without confidences", ("confidence",), "log_odds"),
}
WHOLE = "whole"  # all that the log and the profiles tell
LEAST = 8  # a session of which fewer queries would be left is not thinned


def view_sessions(
    sessions: Sessions, names: Sequence[str], scales: Scales, profiles: Profiles, *, poorer: bool
) -> dict[str, Ragged]:
    """The features of ``sessions`` in each view that differs from the whole, the whole first.

    Args:
        poorer: look at the poorer views too.
    """
    views = {WHOLE: compute(sessions, names, Known(scales, profiles))}
    for name, (_, lacks, _) in VIEWS.items() if poorer else ():
        if sessions.given or (not profiles and lacks in (("profile",), ("model",))):
            continue
        if not {"inputs", "vectors"}.isdisjoint(lacks) and not len(sessions.inputs):
            continue
        if "confidence" in lacks and np.isnan(sessions.confidence).all():
            continue
        known = {} if "model" in lacks else scales
        views[name] = compute(without(sessions, lacks), names, Known(known, {} if "profile" in lacks else profiles))
    return views


def without(sessions: Sessions, lacks: Sequence[str]) -> Sessions:
    """``sessions`` as a log that lacks ``inputs`` or ``confidence`` would show them; without ``vectors`` it still has
    a hash of each, which tells a repeat."""
    if not {"inputs", "vectors"}.isdisjoint(lacks):
        digest: NDArray[np.uint64] = np.zeros(0, np.uint64)
        if "vectors" in lacks:
            digest = digest_all(sessions.inputs, sessions.input_offsets)
            if len(sessions.digest):
                digest = np.asarray(np.where(digest == 0, sessions.digest, digest), np.uint64)
        nothing = np.zeros_like(sessions.input_offsets)
        sessions = replace(sessions, inputs=np.zeros(0), input_offsets=nothing, digest=digest)
    if "confidence" in lacks:
        sessions = replace(sessions, confidence=np.full_like(sessions.confidence, np.nan))
    return sessions


def thinned(sessions: Sessions, scales: Scales, profiles: Profiles, seed: int) -> Sessions:
    """``sessions`` without half of their queries near an earlier one, or without all of them, as it is drawn for each.

    An attack of another kind may ask about the same records with fewer queries around each, or none: who learns from
    these too does not take the repeats themselves for the attack.
    """
    random = np.random.default_rng(seed)
    nearest = compute(sessions, ("nearest_distance",), Known(scales, profiles)).values[:, 0]
    share = np.repeat(random.choice((0.5, 1.0), len(sessions)), sessions.lengths)
    kept = ~((nearest < math.log(NEAR + FLOOR)) & (random.random(len(nearest)) < share))
    left = np.diff(np.append(0, np.cumsum(kept))[sessions.offsets])
    return sessions.keep(kept | np.repeat(left < LEAST, sessions.lengths))


def describe_view(name: str) -> str:
    """A view in words.

    >>> describe_view("no_inputs")
    'a log without input vectors'
    """
    return VIEWS[name].text if name in VIEWS else "all that the log and the profiles tell"


def shown_in(view: Ragged, names: Sequence[str]) -> list[str]:
    """Those of its features, by name, that any step tells."""
    return [name for at, name in enumerate(names) if not np.isnan(view.values[:, at]).all()]


def stack(views: Sequence[Ragged]) -> Ragged:
    """All views end to end: sequence ``s`` of view ``v`` is number ``S * v + s``."""
    return Ragged(
        np.concatenate([view.values for view in views]), offsets_of(np.concatenate([view.lengths for view in views]))
    )


def shifts_of(thresholds: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """What to add to the logit where a feature is missing, so that one threshold serves every view.

    Args:
        thresholds: by view, in log-odds; what is asked for holds for :data:`WHOLE`.
        names: the features that the whole shows; a view whose sign is not among them gets no shift, as the whole
            would get it too. Of two views with the same sign the one that alerts less decides.
    """
    shifts: dict[str, float] = {}
    for name, view in VIEWS.items():
        if name not in thresholds or view.sign not in names:
            continue
        wanted = thresholds[WHOLE] - thresholds[name]
        wanted -= sum(shifts.get(sign, 0.0) for sign in _also_missing(name))
        shifts[view.sign] = min(wanted, shifts.get(view.sign, wanted))
    return shifts


def _also_missing(name: str) -> tuple[str, ...]:
    """The signs of other views that are missing in this one too."""
    return {
        "unknown_model": ("member_ratio", "familiar"),
        "no_confidence": ("member_ratio", "confidence_rank"),
    }.get(name, ())
