"""Views: poorer looks at the same sessions, and shifts by which one threshold serves them all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probewatch.data.columns import DEFAULT, FEATURES
from probewatch.data.estimate import estimate_profile
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.profile import Profiles, Records, build_profile
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions
from probewatch.data.scales import learn_scales
from probewatch.data.sketches import digest_all
from probewatch.learn.dataset import Scaler, split_sessions
from probewatch.learn.graph import build_graph
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.networks import prepare
from probewatch.learn.presets import Config
from probewatch.learn.views import LEAST, VIEWS, WHOLE, shifts_of, shown_in, stack, thinned, view_sessions, without
from probewatch.network import Network


@pytest.fixture(scope="module")
def profiles(labelled: Labelled) -> Profiles:
    """Of the model of the shared log, some of whose queries are training records."""
    random = np.random.default_rng(0)
    train, holdout = (Records(random.normal(size=(80, 6)), random.uniform(0.5, 1.0, 80)) for _ in range(2))
    train.inputs[:40] = labelled.sessions.inputs.reshape(-1, 6)[:400:10]
    return {"credit": build_profile(train, holdout, bytes(16), "credit")}


def _views(labelled: Labelled, profiles: Profiles) -> dict[str, Ragged]:
    return view_sessions(labelled.sessions, DEFAULT, learn_scales(labelled.sessions), profiles, poorer=True)


def _lacking(view: Ragged) -> set[str]:
    return {name for at, name in enumerate(DEFAULT) if np.isnan(view.values[:, at]).all()}


def test_every_view_lacks_its_sign_and_the_whole_lacks_nothing(labelled: Labelled, profiles: Profiles) -> None:
    views = _views(labelled, profiles)
    assert set(views) == {WHOLE, *VIEWS}
    assert not _lacking(views[WHOLE])
    for name, view in VIEWS.items():
        assert view.sign in _lacking(views[name])
        assert {one for one in DEFAULT if FEATURES[one].group in view.lacks} <= _lacking(views[name])
        np.testing.assert_array_equal(views[name].offsets, views[WHOLE].offsets)


def test_a_view_that_would_show_the_whole_again_is_left_out(labelled: Labelled) -> None:
    assert "no_profile" not in _views(labelled, {})
    blind = replace(labelled.sessions, confidence=np.full_like(labelled.sessions.confidence, np.nan))
    assert "no_confidence" not in view_sessions(blind, DEFAULT, {}, {}, poorer=True)
    bare = replace(blind, inputs=np.zeros(0), input_offsets=np.zeros_like(blind.input_offsets))
    assert "no_inputs" not in view_sessions(bare, DEFAULT, {}, {}, poorer=True)
    assert set(view_sessions(labelled.sessions, DEFAULT, {}, {}, poorer=False)) == {WHOLE}


def test_hashed_inputs_show_exact_repeats_and_nothing_else(labelled: Labelled, profiles: Profiles) -> None:
    sessions = _with_repeats(labelled.sessions)
    views = view_sessions(sessions, DEFAULT, learn_scales(sessions), profiles, poorer=True)
    at = DEFAULT.index("repeat")
    repeats = views[WHOLE].values[:, at]
    assert np.nansum(repeats) > 50
    np.testing.assert_array_equal(views["hashed_inputs"].values[:, at], repeats)
    told = set(DEFAULT) - _lacking(views["hashed_inputs"])
    without_any = set(DEFAULT) - _lacking(views["no_inputs"])
    assert told - without_any == {"repeat", *(name for name in DEFAULT if name.startswith("repeat_mean"))}
    assert without_any <= told


def test_a_log_that_hashes_its_inputs_itself_shows_the_same(labelled: Labelled) -> None:
    """Any hash will do: only which are equal counts. Of a vector that is missing there is none."""
    sessions = _with_repeats(labelled.sessions)
    hashed = without(sessions, ("vectors",))
    assert len(np.unique(hashed.digest)) == len(np.unique(sessions.inputs.reshape(-1, 6), axis=0))
    salted = replace(hashed, digest=hashed.digest ^ np.uint64(0xABCDEF))
    np.testing.assert_array_equal(compute(salted, DEFAULT, Known()).values, compute(hashed, DEFAULT, Known()).values)
    offsets = np.array([0, 2, 2, 4, 6])
    found = digest_all(np.array([1.0, -0.0, 1.0, 0.0, 0.0, 1.0]), offsets)
    assert found[1] == 0
    assert found[0] == found[2] != found[3]
    mixed = without(salted, ("vectors",))
    np.testing.assert_array_equal(mixed.digest, salted.digest)


def _with_repeats(sessions: Sessions) -> Sessions:
    """Every third query asks what the one before it asked."""
    inputs = sessions.inputs.reshape(-1, 6).copy()
    inputs[2::3] = inputs[1::3][: len(inputs[2::3])]
    return replace(sessions, inputs=inputs.ravel())


def test_stacked_views_lie_end_to_end() -> None:
    first = Ragged.from_list([np.ones((2, 3)), np.full((4, 3), 2.0)])
    second = Ragged.from_list([np.full((1, 3), 10.0), np.full((4, 3), 20.0)])
    stacked = stack([first, second])
    assert len(stacked) == 4
    for view, one in enumerate((first, second)):
        for s in range(2):
            np.testing.assert_array_equal(stacked[2 * view + s], one[s])


def test_thinned_sessions_lose_queries_near_earlier_ones_and_no_others(labelled: Labelled) -> None:
    sessions = _with_repeats(labelled.sessions)
    scales = learn_scales(sessions)
    fewer = thinned(sessions, scales, {}, 5)
    assert fewer.session.tolist() == sessions.session.tolist()
    near = compute(sessions, ("neighbours",), Known(scales)).values[:, 0] > 0.0
    left = np.isin(sessions.time_s, fewer.time_s)
    assert left[~near].all()
    shares = [1.0 - np.mean(left[one][near[one]]) for one in _pieces(sessions) if near[one].sum() > 5]
    assert {round(share, 1) for share in shares} >= {0.5, 1.0}  # half of them, or all
    for s, one in enumerate(_pieces(sessions)):
        own = slice(*fewer.offsets[s : s + 2])
        np.testing.assert_array_equal(fewer.time_s[own], sessions.time_s[one][left[one]])
    np.testing.assert_array_equal(fewer.inputs.reshape(-1, 6), sessions.inputs.reshape(-1, 6)[left])
    assert thinned(sessions, scales, {}, 6).offsets.tolist() != fewer.offsets.tolist()


def test_a_session_of_repeats_alone_is_not_thinned_away(labelled: Labelled) -> None:
    sessions = labelled.sessions.take(np.arange(3))
    same = replace(sessions, inputs=np.tile(sessions.inputs[:6], len(sessions.time_s)))
    fewer = thinned(same, learn_scales(labelled.sessions), {}, 0)
    assert fewer.lengths.min() >= LEAST


def test_training_learns_from_thinned_sessions_where_inputs_tell_what_is_near(labelled: Labelled) -> None:
    split = split_sessions(labelled.by_actor, labelled.label, labelled.label >= 0, Config())
    ground = prepare(labelled, split, Config(folds=2))
    assert ground.thinned is not None and len(ground.thinned) == len(labelled.sessions)
    assert ground.lessons == [*ground.views.values(), ground.thinned]
    blind = replace(labelled, sessions=without(labelled.sessions, ("inputs",)))
    assert prepare(blind, split, Config(folds=2)).thinned is None


def _pieces(sessions: Sessions) -> list[slice]:
    return [slice(start, end) for start, end in itertools.pairwise(sessions.offsets)]


def test_shifts_make_one_threshold_serve_every_view() -> None:
    """Where several signs are missing, their shifts together bring the view's own threshold to the whole's."""
    thresholds = {
        WHOLE: 1.0, "no_profile": 0.25, "new_model": 0.5, "unknown_model": 2.0, "no_inputs": -1.0, "no_confidence": 3.0
    }  # fmt: skip
    shifts = shifts_of(thresholds, DEFAULT)
    missing = {
        "no_profile": ("member_ratio",),
        "new_model": ("familiar",),
        "unknown_model": ("member_ratio", "familiar", "confidence_rank"),
        "no_inputs": ("centre_distance",),
        "no_confidence": ("member_ratio", "confidence_rank", "log_odds"),
    }
    for view, signs in missing.items():
        assert thresholds[view] + sum(shifts[sign] for sign in signs) == pytest.approx(thresholds[WHOLE])
    for hashed, shift in ((-2.0, 2.0), (0.5, 0.5)):  # two views, one sign: the lower shift alerts less
        assert shifts_of({**thresholds, "hashed_inputs": hashed}, DEFAULT)["centre_distance"] == shift
    assert shifts_of({WHOLE: 1.0}, DEFAULT) == {}
    assert shifts_of(thresholds, ("log_gap",)) == {}


def test_the_signs_that_are_missing_in_a_view_are_those_that_its_shift_counts_on(
    labelled: Labelled, profiles: Profiles
) -> None:
    views = _views(labelled, profiles)
    signs = {view.sign for view in VIEWS.values()}
    assert signs & _lacking(views["no_profile"]) == {"member_ratio"}
    assert signs & _lacking(views["new_model"]) == {"familiar"}
    assert signs & _lacking(views["unknown_model"]) == {"member_ratio", "familiar", "confidence_rank"}
    assert signs & _lacking(views["no_inputs"]) == {"centre_distance"}
    assert signs & _lacking(views["hashed_inputs"]) == {"centre_distance"}
    assert signs & _lacking(views["no_confidence"]) == {"member_ratio", "confidence_rank", "log_odds"}


def test_an_estimated_profile_counts_as_none(labelled: Labelled) -> None:
    """It knows no training records, so the shift of a log without profile applies, and no other."""
    estimated = {"credit": estimate_profile(labelled.sessions, "credit")}
    view = _views(labelled, estimated)[WHOLE]
    lacking = _lacking(view)
    assert {one.sign for one in VIEWS.values()} & lacking == {"member_ratio"}
    assert {one for one in DEFAULT if FEATURES[one].group == "members"} <= lacking
    assert {"nearest_rank", "centre_rank"}.isdisjoint(lacking), "what a log can tell of strangers' queries is used"
    ratio = view.values[:, DEFAULT.index("member_ratio")]
    rank = view.values[:, DEFAULT.index("confidence_rank")]
    assert np.isnan(ratio).all()
    assert not np.isnan(rank).any()


def test_no_shift_hangs_on_what_the_whole_lacks_too(labelled: Labelled) -> None:
    view = _views(labelled, {"credit": estimate_profile(labelled.sessions, "credit")})[WHOLE]
    shown = shown_in(view, DEFAULT)
    assert set(shown) == set(DEFAULT) - _lacking(view)
    assert "member_ratio" not in shifts_of({WHOLE: 1.0, "no_profile": 2.0}, shown)


def test_the_graph_shifts_a_step_exactly_where_a_sign_is_missing() -> None:
    names = ["log_odds", "member_ratio", "log_gap"]
    random = np.random.default_rng(0)
    values = random.normal(size=(9, 3)).astype(np.float32)
    values[[1, 4], 1] = np.nan
    values[[4, 6], 0] = np.nan
    scaler = Scaler(np.zeros(3), np.ones(3), 0.0, np.eye(3, dtype=np.float32))
    model = LSTMClassifier(6, 5)
    sequences = Ragged(values, np.array([0, 3, 9]))

    def logits(shifts: dict[str, float] | None) -> Any:
        graph = build_graph([model], scaler, names, (2.0, 0.5), shifts)
        return Network(graph, names).run(sequences)[0]

    moved = logits({"member_ratio": 0.75, "log_odds": -2.0}) - logits(None)
    expected = np.zeros(9)
    expected[[1, 4]] += 0.75
    expected[[4, 6]] -= 2.0
    np.testing.assert_allclose(moved, expected, atol=1e-6)
