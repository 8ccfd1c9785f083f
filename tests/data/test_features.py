import dataclasses
import math
import runpy
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probewatch.data.columns import ARTICLE, DEFAULT, FEATURES, FLOOR, WINDOW
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.profile import Profiles, Records, build_profile
from probewatch.data.records import Sessions, offsets_of
from probewatch.data.scales import Scale, learn_scales
from probewatch.data.state import State, new_state
from probewatch.errors import ConfigError, DataError

BENCH = Path(__file__).parents[2] / "bench"
compute_by_row = runpy.run_path(str(BENCH / "rows.py"))["compute_by_row"]
make_sessions = runpy.run_path(str(BENCH / "generate.py"))["make_sessions"]
ALL = tuple(FEATURES)
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)


def session_of(
    inputs: Sequence[Sequence[float]],
    *,
    time_s: Sequence[float] | None = None,
    confidence: Sequence[float] | None = None,
    predicted_class: Sequence[int] | None = None,
    model: str = "m",
) -> Sessions:
    """One session; what is not given is absent."""
    count = len(inputs)
    names = np.array(["s"], object)
    return Sessions(
        names, names, np.array([model], object), np.array([0, count]),
        np.arange(count) * 1.0 if time_s is None else np.array(time_s, float),
        np.full(count, np.nan) if confidence is None else np.array(confidence, float),
        np.full(count, -1) if predicted_class is None else np.array(predicted_class),
        np.array([value for row in inputs for value in row], float), offsets_of(np.array([len(row) for row in inputs])),
        np.array([-1], np.int8), np.array([0]), np.array([True]),
    )  # fmt: skip


def piece(sessions: Sessions, index: int, start: int, stop: int) -> Sessions:
    """Queries ``start`` to ``stop`` of one session, as a chunk that goes on with it."""
    one = sessions.take(np.array([index]))
    ends = one.input_offsets[start : stop + 1]
    return dataclasses.replace(
        one, offsets=np.array([0, stop - start]), time_s=one.time_s[start:stop], confidence=one.confidence[start:stop],
        predicted_class=one.predicted_class[start:stop], inputs=one.inputs[ends[0] : ends[-1]],
        input_offsets=ends - ends[0], before=np.array([start]), ends=np.array([stop == len(one.time_s)]),
    )  # fmt: skip


def column(name: str, sessions: Sessions, scales: dict[str, Scale] | None = None) -> NDArray[np.float32]:
    return compute(sessions, [name], Known(scales or {})).values[:, 0]


@pytest.mark.parametrize("inputs", [30, 5])
def test_with_profiles_too_the_compiled_features_are_those_of_plain_numpy(inputs: int) -> None:
    sessions = make_sessions(6, 70, inputs=inputs, seed=inputs)
    vectors = sessions.inputs.reshape(-1, inputs)
    random = np.random.default_rng(0)
    others = vectors * random.uniform(0.9, 1.1, vectors.shape)  # else a rank may hang on the last bit of a distance
    profiles = {
        f"model_{at}": build_profile(
            Records(vectors[at::7], random.uniform(0.6, 1.0, len(vectors[at::7]))),
            Records(others[at + 2 :: 7], random.uniform(0.4, 1.0, len(vectors[at + 2 :: 7]))),
            b"0123456789abcdef", f"model_{at}",
        )
        for at in range(2)
    }  # fmt: skip
    ours = compute(sessions, ALL, Known({}, profiles)).values
    rows = compute_by_row(sessions, ALL, {}, profiles)
    np.testing.assert_allclose(ours, rows, rtol=1e-4, atol=1e-4)
    assert np.nanmax(ours[:, ALL.index("records_touched")]) > 1.0


@pytest.mark.parametrize("inputs", [30, 5, 80])
@pytest.mark.parametrize("known", [True, False])
def test_the_compiled_features_are_those_of_plain_numpy_row_by_row(inputs: int, known: bool) -> None:
    sessions = make_sessions(6, 70, inputs=inputs, seed=inputs)
    scales = learn_scales(sessions) if known else {}
    ours = compute(sessions, ALL, Known(scales)).values
    np.testing.assert_allclose(ours, compute_by_row(sessions, ALL, scales), rtol=1e-4, atol=1e-4)


@quick
@given(seeds, st.data())
def test_the_features_of_a_prefix_are_those_of_the_whole(seed: int, data: st.DataObject) -> None:
    sessions = make_sessions(2, 60, inputs=20, seed=seed)
    scales = learn_scales(sessions)
    length = data.draw(st.integers(1, int(sessions.lengths[0])))
    whole = compute(sessions, ALL, Known(scales)).values[:length]
    np.testing.assert_array_equal(compute(piece(sessions, 0, 0, length), ALL, Known(scales)).values, whole)


@quick
@given(seeds, st.data())
def test_a_session_cut_anywhere_has_the_features_of_the_whole(seed: int, data: st.DataObject) -> None:
    sessions = make_sessions(3, 50, inputs=20, seed=seed)
    scales = learn_scales(sessions)
    whole = compute(sessions, ALL, Known(scales))
    cuts = [
        [0, *sorted(data.draw(st.sets(st.integers(1, int(length) - 1), max_size=4))), int(length)]
        for length in sessions.lengths
    ]
    state = new_state(5, 20)
    slots = [4, 0, 2]
    found: list[list[NDArray[np.float32]]] = [[], [], []]
    for turn in range(max(map(len, cuts)) - 1):  # the sessions take turns, each in a slot of its own
        for index, ends in enumerate(cuts):
            if turn + 1 < len(ends):
                part = piece(sessions, index, ends[turn], ends[turn + 1])
                found[index].append(compute(part, ALL, Known(scales), state, np.array([slots[index]])).values)
    for index in range(3):
        np.testing.assert_array_equal(np.concatenate(found[index]), whole[index])


@quick
@given(seeds, st.permutations(range(4)), st.integers(1, 4))
def test_the_features_of_a_session_do_not_depend_on_other_sessions(seed: int, order: list[int], kept: int) -> None:
    sessions = make_sessions(4, 30, inputs=20, seed=seed)
    scales = learn_scales(sessions)
    whole = compute(sessions, ALL, Known(scales))
    chosen = order[:kept]
    alone = compute(sessions.take(np.array(chosen)), ALL, Known(scales))
    for place, index in enumerate(chosen):
        np.testing.assert_array_equal(alone[place], whole[index])


def test_nothing_that_is_given_is_changed() -> None:
    sessions = make_sessions(2, 40, seed=3)
    scales = learn_scales(sessions)
    arrays = [value for value in vars(sessions).values() if isinstance(value, np.ndarray)]
    arrays += [value for scale in scales.values() for value in vars(scale).values() if isinstance(value, np.ndarray)]
    before = [array.copy() for array in arrays]
    compute(sessions, ALL, Known(scales))
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_articles_three_features_by_hand() -> None:
    session = session_of(
        [[0, 0], [3, 4], [3, 0], [0, 1], [6, 8]],
        time_s=[100.0, 100.5, 103.5, 103.5, 104.0],
        confidence=[0.6, 0.9, 0.7, 0.9, 0.95],
    )
    expected = [  # the anchor is the first query, then the second (a tie keeps it), then the fifth
        [0.6, 0.0, 0.0],
        [0.9, 0.5, 0.0],
        [0.7, 3.0, 4.0],
        [0.9, 0.0, math.hypot(3, 3)],
        [0.95, 0.5, 0.0],
    ]
    np.testing.assert_allclose(compute(session, ARTICLE, Known()).values, expected, rtol=1e-6)


def test_ready_made_columns_are_taken_as_they_are() -> None:
    ready = {name: np.array([7.0, 8.0]) for name in ARTICLE}
    session = dataclasses.replace(session_of([[], []]), given=ready)
    np.testing.assert_array_equal(compute(session, ARTICLE, Known()).values, [[7.0] * 3, [8.0] * 3])
    with pytest.raises(DataError, match="no column"):
        compute(dataclasses.replace(session, given={ARTICLE[0]: ready[ARTICLE[0]]}), ARTICLE, Known())


def same(left: NDArray[np.float32], right: NDArray[np.float32]) -> set[str]:
    """The features whose whole columns are equal."""
    equal = (left == right) | (np.isnan(left) & np.isnan(right))
    return {name for name, holds in zip(ALL, equal.all(axis=0), strict=True) if holds}


def absent(values: NDArray[np.float32]) -> set[str]:
    return {name for name, gone in zip(ALL, np.isnan(values).all(axis=0), strict=True) if gone}


@pytest.fixture(scope="module")
def complete() -> Sessions:
    """A session that tells everything at every query."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(40, 6))
    inputs[7] = inputs[3]
    return session_of(
        inputs.tolist(),
        time_s=np.cumsum(random.random(40)).tolist(),
        confidence=random.uniform(0.4, 1, 40).tolist(),
        predicted_class=random.integers(0, 3, 40).tolist(),
    )


@pytest.fixture(scope="module")
def profiles(complete: Sessions) -> Profiles:
    """Of the model of the complete session, which has asked for half of the training records."""
    inputs = complete.inputs.reshape(40, 6)
    records = Records(inputs[::2], complete.confidence[::2]), Records(inputs[1::2], complete.confidence[1::2])
    return {"m": build_profile(*records, b"0123456789abcdef", "m")}


def in_group(*groups: str) -> set[str]:
    return {name for name in ALL if FEATURES[name].group in groups}


def test_a_log_without_inputs_lacks_what_is_made_of_inputs_and_no_more(complete: Sessions, profiles: Profiles) -> None:
    whole = compute(complete, ALL, Known({}, profiles)).values
    bare = dataclasses.replace(complete, inputs=np.zeros(0), input_offsets=np.zeros(41, np.int64))
    values = compute(bare, ALL, Known({}, profiles)).values
    lacking = in_group("inputs", "members", "model") | {
        "constant_change",
        "nearest_rank",
        "centre_rank",
        "anchors",
        "answer_evidence",
    }
    lacking |= {name for name in ALL if name.startswith("nearness")}
    assert absent(whole) == in_group("model")
    assert absent(values) == lacking
    assert same(values, whole) >= set(ALL) - lacking


def test_a_log_without_classes_lacks_what_is_made_of_classes_and_no_more(
    complete: Sessions, profiles: Profiles
) -> None:
    whole = compute(complete, ALL, Known({}, profiles)).values
    values = compute(dataclasses.replace(complete, predicted_class=np.full(40, -1)), ALL, Known({}, profiles)).values
    lacking = in_group("class", "model") | {"nearest_class_change"}
    assert absent(values) == lacking
    assert same(values, whole) >= set(ALL) - lacking


def test_a_log_without_confidences_lacks_what_is_made_of_confidences_and_no_more(
    complete: Sessions, profiles: Profiles
) -> None:
    whole = compute(complete, ALL, Known({}, profiles)).values
    values = compute(dataclasses.replace(complete, confidence=np.full(40, np.nan)), ALL, Known({}, profiles)).values
    lacking = in_group("confidence", "model") | {
        name for name in ALL if name.startswith(("confidence", "rank", "ratio", "jump"))
    }
    lacking |= {
        "member_ratio",
        "answer_evidence",
        "distance_from_anchor_vector",
        "anchor_distance",
        "nearest_confidence_change",
    }
    assert absent(values) == lacking
    assert same(values, whole) >= set(ALL) - lacking


def test_one_missing_confidence_leaves_the_running_means_where_they_are(complete: Sessions) -> None:
    confidence = complete.confidence.copy()
    confidence[20] = np.nan
    values = compute(dataclasses.replace(complete, confidence=confidence), ALL, Known()).values
    mean = ALL.index("confidence_mean_4")
    assert np.isnan(values[20, ALL.index("log_odds")])
    assert values[20, mean] == values[19, mean]
    assert np.isfinite(values[21]).sum() > np.isfinite(values[20]).sum()


def test_vectors_of_another_width_are_not_compared_with_those_before() -> None:
    random = np.random.default_rng(1)
    narrow, wide = random.normal(size=(9, 3)).tolist(), random.normal(size=(9, 20)).tolist()
    confidence = random.random(18)
    fresh = [
        "nearest_distance", "previous_distance", "anchor_distance", "distance_from_anchor_vector", "repeat",
        "neighbours", "changed_share", "centre_distance", "lowest_nearest", "farthest", "nearest_confidence_change",
    ]  # fmt: skip
    mixed = compute(session_of(narrow + wide, confidence=confidence.tolist()), fresh, Known()).values
    alone = compute(session_of(wide, confidence=confidence[9:].tolist()), fresh, Known()).values
    np.testing.assert_array_equal(mixed[9:], alone)
    assert np.isnan(mixed[9, 0])


def test_a_missing_vector_does_not_break_the_comparison_with_those_before() -> None:
    session = session_of([[1.0, 2.0], [], [1.0, 2.0]])
    np.testing.assert_array_equal(column("repeat", session), [np.nan, np.nan, 1.0])


def test_a_constant_column_gives_no_distance_and_a_change_to_it_is_told() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(50, 4))
    vectors[:, 2] = 5.0
    scales = learn_scales(session_of(vectors.tolist()))
    changed = vectors.copy()
    changed[30, 2] = 1e6
    usual, odd = session_of(vectors.tolist()), session_of(changed.tolist())
    for name in ("nearest_distance", "previous_distance", "centre_distance"):
        np.testing.assert_array_equal(column(name, odd, scales), column(name, usual, scales))
    told = np.zeros(50)
    told[30] = 0.25
    np.testing.assert_array_equal(column("constant_change", odd, scales), told)


def test_an_unknown_model_is_scaled_by_the_sessions_own_spread() -> None:
    session = session_of([[0.0, 0.0], [math.sinh(0.25), math.sinh(0.5)]], model="new")
    # two points at distance d spread by d / sqrt(2), whatever d is
    nearest = column("nearest_distance", session, {"other": Scale(np.ones(2), np.ones(2), 9.0, np.ones(1))})
    np.testing.assert_allclose(nearest, [np.nan, math.log(FLOOR + math.sqrt(2.0))], rtol=1e-6)
    assert np.isnan(column("confidence_rank", session)).all()


def test_distances_are_in_usual_distances_of_the_model() -> None:
    scale = Scale(np.array([10.0, 0.0]), np.array([2.0, 1.0]), 2.5, np.array([0.5, 0.8, 0.9, 1.0]))
    session = session_of([[10, 0], [16, 4], [10, 0]], confidence=[0.8, 0.4, 0.95])
    near = math.log(FLOOR)
    far = math.log(FLOOR + 5.0 / 2.5)  # (6 / 2, 4 / 1) is 5 long
    np.testing.assert_allclose(column("nearest_distance", session, {"m": scale}), [np.nan, far, near], rtol=1e-6)
    np.testing.assert_allclose(column("previous_distance", session, {"m": scale}), [np.nan, far, far], rtol=1e-6)
    centre = [0.0, 5.0 / math.sqrt(2.0), 0.0]
    np.testing.assert_allclose(column("centre_distance", session, {"m": scale}), centre, rtol=1e-6)
    np.testing.assert_allclose(column("confidence_rank", session, {"m": scale}), [0.5, 0.0, 0.75])


def test_a_repeat_is_seen_within_the_window_and_not_beyond() -> None:
    fresh = [[float(index), 1.0] for index in range(1, WINDOW)]
    within = session_of([[0.0, 1.0], *fresh, [-0.0, 1.0]])
    beyond = session_of([[0.0, 1.0], *fresh, [99.0, 1.0], [0.0, 1.0]])
    assert column("repeat", within)[-1] == 1.0
    assert column("repeat", beyond)[-1] == 0.0


def test_running_means_by_hand() -> None:
    session = session_of([[]] * 3, predicted_class=[1, 2, 2])
    decay = 0.5**0.25
    mean = (1.0 * decay) / (1.0 + decay)  # of a change, then none: a weighted mean
    np.testing.assert_allclose(column("class_change_mean_4", session), [np.nan, 1.0, mean], rtol=1e-6)


@quick
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 1e-320, -5e-324, 1e300, -1.7e308, 1e20, -1e-200]),
            st.floats(-1.7e308, 1.7e308),
            st.sampled_from([0.0, 1.0, 0.5, 1e-300]),
            st.sampled_from([0.0, 1e-9, 1.0, 1e9]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
def test_huge_and_denormal_values_give_finite_features(
    queries: list[tuple[float, float, float, float]], known: bool
) -> None:
    first, second, confidence, gaps = zip(*queries, strict=True)
    session = session_of(
        list(zip(first, second, strict=True)), time_s=np.cumsum(gaps).tolist(), confidence=confidence,
        predicted_class=[2**62] * len(queries),
    )  # fmt: skip
    scales = {"m": Scale(np.zeros(2), np.array([1e-300, 1e300]), 1e-3, np.linspace(0, 1, 5))} if known else {}
    assert not np.isinf(compute(session, ALL, Known(scales)).values).any()


def test_the_state_of_a_session_is_small() -> None:
    """2.6 KiB at most, without the exact anchor, which only the article's distance needs."""
    size_bytes = sum(array.nbytes for array in new_state(100)) / 100
    assert size_bytes <= 2.6 * 1024
    assert {array.shape[0] for array in new_state(100)} == {100}
    assert isinstance(new_state(1), State)


def test_the_table_tells_every_feature_once_and_the_default_leaves_the_articles_out() -> None:
    assert ARTICLE == ("response_confidence", "time_delta_since_last_query", "distance_from_anchor_vector")
    assert not set(ARTICLE) & set(DEFAULT)
    assert len({feature.text for feature in FEATURES.values()}) == len(FEATURES)


def test_unknown_and_repeated_names_are_refused() -> None:
    session = session_of([[1.0]])
    with pytest.raises(ConfigError, match="unknown features \\['nonsense'\\]"):
        compute(session, ["log_gap", "nonsense"], Known())
    with pytest.raises(ConfigError, match="named twice"):
        compute(session, ["log_gap", "log_gap"], Known())
    with pytest.raises(ConfigError, match="unknown features"):
        compute(session, [], Known())


def test_one_long_name_of_a_model_costs_no_more_than_itself() -> None:
    sessions = make_sessions(2000, 5, inputs=5, seed=0)
    named = np.array(["m" * 1_000_000, *["m"] * 1999], object)
    tracemalloc.start()
    compute(dataclasses.replace(sessions, model=named), ["log_odds"], Known())
    learn_scales(dataclasses.replace(sessions, model=named))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # as an array of text: 8 GB
