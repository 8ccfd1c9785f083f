"""A profile of a model whose owner has no records of it: from what clients asked in a reference period."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from probewatch.data.profile import Profile, Records, build_profile
from probewatch.data.records import Sessions, coded, ranges
from probewatch.data.scales import CLIP
from probewatch.errors import ProfileError

MOST_QUERIES = 200  # different ones of a client that count, so that no client is the norm
TRIMMED = 0.02  # share of the queries farthest from the centre that are left out
LEAST_QUERIES = 50  # different ones, with fewer there is no telling what is usual


def estimate_profile(sessions: Sessions, model: str, *, seed: int = 0) -> Profile:
    """A profile of the usual queries: without training records, so it tells nothing of membership.

    A repeat counts once, a client counts for :data:`MOST_QUERIES` at most, and what lies farthest out is left out,
    so that a few clients who probe do not become the norm.

    Args:
        sessions: of a reference period, never those that will be scored.
        model: its name in the log.
        seed: of the choice among a client's queries.

    Raises:
        ProfileError: the log has too few different queries of the model with an input vector.
    """
    random = np.random.default_rng(seed)
    inputs, confidence = _distinct(sessions.take(sessions.model == model), random)
    if len(inputs) < LEAST_QUERIES:
        models = ", ".join(sorted(set(sessions.model.tolist()))[:10])
        raise ProfileError(
            f"the log has {len(inputs)} different queries of {model!r} with an input vector, expected at least"
            f" {LEAST_QUERIES}; give a longer period, or another --model (the log has {models})."
        )
    low, middle, high = np.quantile(inputs, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, (high - low) / 1.349, np.inf)
    far = np.sqrt(np.mean(np.clip((inputs - middle) / spread, -CLIP, CLIP) ** 2, axis=1))
    kept = far <= np.quantile(far, 1.0 - TRIMMED)
    nothing = Records(np.zeros((0, inputs.shape[1])), np.zeros(0))
    profile = build_profile(nothing, Records(inputs[kept], confidence[kept]), b"", model, seed=seed)
    return replace(profile, key=b"", estimated=True)


def _distinct(sessions: Sessions, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each client's different queries of the usual width, and the answers to them."""
    widths = np.diff(sessions.input_offsets)
    if not np.any(widths):
        return np.zeros((0, 0)), np.zeros(0)
    width = int(np.bincount(widths[widths > 0]).argmax())
    clients, of = coded(sessions.client)
    client = np.repeat(of, sessions.lengths)
    parts = []
    for place in range(len(clients)):
        queries = np.flatnonzero((client == place) & (widths == width))
        starts = sessions.input_offsets[:-1][queries]
        vectors = sessions.inputs[ranges(starts, np.full(len(starts), width))].reshape(-1, width)
        first = np.unique(vectors, axis=0, return_index=True)[1]
        if len(first) > MOST_QUERIES:
            first = np.sort(random.choice(first, MOST_QUERIES, replace=False))
        parts.append((vectors[first], sessions.confidence[queries[first]]))
    inputs = np.concatenate([vectors for vectors, _ in parts])
    confidence = np.concatenate([answers for _, answers in parts])
    first = np.sort(np.unique(inputs, axis=0, return_index=True)[1])
    return inputs[first], confidence[first]
