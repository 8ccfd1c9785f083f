"""A profile from a reference period: usual queries, whatever a few clients do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from probewatch.data.columns import FEATURES
from probewatch.data.estimate import estimate_profile
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.records import Sessions, offsets_of
from probewatch.errors import ProfileError


def sessions_of(parts: list[NDArray[np.float64]], model: str = "m") -> Sessions:
    """A session for each client, with these queries and even confidences."""
    lengths = np.array([len(part) for part in parts])
    total, width = int(lengths.sum()), parts[0].shape[1]
    names = np.array([f"client-{at}" for at in range(len(parts))], object)
    return Sessions(
        names, names, np.full(len(parts), model, object), offsets_of(lengths), np.arange(total) * 1.0,
        np.linspace(0.5, 1.0, total), np.full(total, -1), np.concatenate(parts).reshape(-1),
        offsets_of(np.full(total, width)), np.full(len(parts), -1, np.int8), np.zeros(len(parts), np.int64),
        np.ones(len(parts), bool),
    )  # fmt: skip


def usual(seed: int, clients: int = 20) -> list[NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return [random.normal([5.0, -3.0, 0.0], [1.0, 2.0, 0.5], (40, 3)) for _ in range(clients)]


def test_an_estimate_knows_the_usual_queries_and_no_member() -> None:
    profile = estimate_profile(sessions_of(usual(0)), "m")
    assert profile.estimated
    assert profile.records[0] == 0
    assert profile.key == b""
    np.testing.assert_allclose(profile.scale.centre, [5.0, -3.0, 0.0], atol=0.2)
    np.testing.assert_allclose(profile.scale.spread, [1.0, 2.0, 0.5], rtol=0.15)
    values = compute(sessions_of(usual(1, 2)), tuple(FEATURES), Known({}, {"m": profile})).values
    told = {name for at, name in enumerate(FEATURES) if not np.isnan(values[:, at]).all()}
    assert {"centre_rank", "nearest_rank", "confidence_rank"} <= told
    assert not {"member_ratio", "on_record"} & told


def test_a_few_clients_do_not_become_the_norm() -> None:
    """One repeats a query ten thousand times, one scans a far corner, and one goes far outside."""
    clean = estimate_profile(sessions_of(usual(0)), "m")
    random = np.random.default_rng(9)
    odd = [np.tile([[50.0, 50.0, 50.0]], (10_000, 1)), random.normal(20.0, 0.1, (3000, 3)), np.full((2, 3), 1e9)]
    robust = estimate_profile(sessions_of([*usual(0), *odd]), "m")
    np.testing.assert_allclose(robust.scale.centre, clean.scale.centre, atol=0.6)
    assert (robust.scale.spread < 2.0 * clean.scale.spread).all()
    assert robust.scale.unit < 2.0 * clean.scale.unit


def test_too_few_queries_are_refused_with_the_models_there_are() -> None:
    sessions = sessions_of([part[:2] for part in usual(0)])
    with pytest.raises(ProfileError, match=r"40 different queries of 'm' with an input vector, expected at least 50"):
        estimate_profile(sessions, "m")
    with pytest.raises(ProfileError, match=r"0 different queries of 'other' .* \(the log has m\)"):
        estimate_profile(sessions, "other")
