"""Profiles: what is known of a model tells members from strangers, survives rounding and holds no record."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probewatch.data.columns import FEATURES
from probewatch.data.features import compute
from probewatch.data.hashes import mark, siphash
from probewatch.data.known import Known
from probewatch.data.profile import Profile, Records, build_profile
from probewatch.data.records import Sessions, offsets_of
from probewatch.data.state import new_state
from probewatch.errors import DataError

KEY = bytes(range(16))
ALL = tuple(FEATURES)
WHOLE = 8  # columns of whole numbers of the records below, then constants, then decimals of several sizes


def records_of(count: int, seed: int, *, shift: float = 0.0) -> Records:
    """Records with whole, constant and decimal columns of several sizes, and answers around a level."""
    random = np.random.default_rng(seed)
    whole = random.integers(0, 17, (count, WHOLE))
    constant = np.tile([0.0, 255.0, 0.1], (count, 1))
    decimals = np.exp(random.normal(size=(count, 6))) * [1e-3, 0.1, 1.0, 10.0, 1e3, 1e5]
    confidence = 1.0 / (1.0 + np.exp(-random.normal(1.0 + shift, 1.0, count)))
    return Records(np.column_stack([whole, constant, decimals.round(6)]), confidence)


@pytest.fixture(scope="module")
def train() -> Records:
    return records_of(300, 1, shift=1.5)


@pytest.fixture(scope="module")
def holdout() -> Records:
    return records_of(300, 2)


@pytest.fixture(scope="module")
def profile(train: Records, holdout: Records) -> Profile:
    return build_profile(train, holdout, KEY, "m")


def session_of(inputs: NDArray[np.float64], confidence: NDArray[np.float64] | None = None) -> Sessions:
    """One session on the model ``m``, a query a second."""
    count, width = inputs.shape
    names = np.array(["s"], object)
    return Sessions(
        names, names, np.array(["m"], object), np.array([0, count]), np.arange(count) * 1.0,
        np.full(count, np.nan) if confidence is None else confidence, np.full(count, -1), inputs.reshape(-1),
        offsets_of(np.full(count, width)), np.array([-1], np.int8), np.array([0]), np.array([True]),
    )  # fmt: skip


def column(name: str, inputs: NDArray[np.float64], profile: Profile) -> NDArray[np.float32]:
    return compute(session_of(inputs), [name], Known({}, {"m": profile})).values[:, 0]


def test_siphash_has_its_papers_test_vector() -> None:
    """SipHash-2-4 of the bytes 00 to 07 under the key 00 to 0f, from the reference's vectors.h."""
    key = np.frombuffer(KEY, "<u8").astype(np.uint64)
    (word,) = struct.unpack("<Q", bytes(range(8)))
    assert int(siphash(np.uint64(word), key)) == 0x93F5F5799A932462


def test_training_records_are_members_and_strangers_are_not(train: Records, holdout: Records, profile: Profile) -> None:
    assert column("on_record", train.inputs, profile).all()
    assert not column("on_record", holdout.inputs, profile).any()
    assert profile.rate == 0.0


@pytest.mark.parametrize(
    "printed",
    [
        lambda value: float(np.float32(value)),
        lambda value: float(f"{value:.4g}"),
        lambda value: float(f"{value:.6f}"),
        lambda value: float(repr(float(value))),
        lambda value: float(int(value)) if value == int(value) else value,
        lambda value: -0.0 if value == 0.0 else value,
    ],
    ids=["float32", "4 digits", "6 places", "repr", "ints", "minus zero"],
)
def test_a_record_is_known_again_however_a_log_prints_it(
    train: Records, profile: Profile, printed: Callable[[float], float]
) -> None:
    assert column("on_record", np.vectorize(printed)(train.inputs), profile).mean() > 0.99


def test_a_record_that_was_changed_is_not_one(train: Records, profile: Profile) -> None:
    step = np.zeros(train.inputs.shape[1])
    step[0] = 1.0
    assert not column("on_record", train.inputs + step, profile).any()
    constant = train.inputs.copy()
    constant[:, WHOLE + 1] = 254.0
    assert not column("on_record", constant, profile).any()


def test_a_query_beside_a_training_record_just_asked_for_is_near_one(train: Records, profile: Profile) -> None:
    beside = train.inputs[0].copy()
    beside[-1] += 0.1 * profile.scale.spread[-1]
    rows = np.array([train.inputs[0], beside, train.inputs[0] + 8.0])
    np.testing.assert_array_equal(column("on_record", rows, profile), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(column("near_record", rows, profile), [1.0, 1.0, 0.0])


def test_a_record_counts_once_however_often_and_in_whatever_form_it_is_asked_for(
    train: Records, profile: Profile
) -> None:
    once = column("records_touched", train.inputs[:20], profile)[-1]
    again = np.concatenate([train.inputs[:20], train.inputs[:20].astype(np.float32), train.inputs[:20]])
    assert column("records_touched", again, profile)[-1] == once
    assert np.expm1(once) == pytest.approx(20, rel=0.1)


def test_records_beyond_chance_are_counted_against_what_strangers_meet(train: Records, holdout: Records) -> None:
    """Half of the strangers coincide with training records, so half is what is expected of an honest client."""
    discrete = Records(np.concatenate([holdout.inputs[:50], train.inputs[:50]]), holdout.confidence[:100])
    half = build_profile(train, discrete, KEY, "m")
    assert half.rate == 0.5
    random = np.random.default_rng(0)
    honest = random.permutation(np.concatenate([holdout.inputs[50:130], train.inputs[50:130]]))
    assert abs(np.sinh(column("records_excess", honest, half)[-1])) < 2.0  # deviations
    assert np.sinh(column("records_excess", train.inputs[:160], half)[-1]) > 8.0
    assert np.sinh(column("records_excess", holdout.inputs[50:210], half)[-1]) < -8.0


def test_the_holdout_fixes_rates_and_is_no_feature(train: Records, holdout: Records, profile: Profile) -> None:
    """With other strangers in the same places of the distributions, no feature of a holdout record differs."""
    other = build_profile(train, Records(holdout.inputs[::-1], holdout.confidence[::-1]), KEY, "m")
    session = session_of(holdout.inputs[:50], holdout.confidence[:50])
    ours, theirs = (compute(session, ALL, Known({}, {"m": one})).values for one in (profile, other))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [100, 1000])
def test_the_linear_counter_is_right_within_a_tenth(count: int) -> None:
    random = np.random.default_rng(count)
    counter = new_state(1).different
    hashes = random.integers(0, 2**63, count, np.uint64)
    total = sum(mark(counter, 0, value) for value in np.concatenate([hashes, hashes]))
    assert total == pytest.approx(count, rel=0.1)


def test_the_ratio_is_high_where_training_records_answers_lie(profile: Profile) -> None:
    """Members' log-odds are 2.5 ± 1 and strangers' 1 ± 1, so a ratio at x is about 1.5 x - 2.625."""
    inputs, odds = np.zeros((3, profile.widths.size)), np.array([-0.5, 1.75, 4.0])
    session = session_of(inputs, 1.0 / (1.0 + np.exp(-odds)))
    ratio = compute(session, ["member_ratio"], Known({}, {"m": profile})).values[:, 0]
    assert ratio[0] < -1.0
    assert abs(ratio[1]) < 0.7
    assert ratio[2] > 1.0


def test_ranks_are_even_over_strangers(holdout: Records, profile: Profile) -> None:
    rank = column("centre_rank", records_of(2000, 7).inputs, profile)
    np.testing.assert_allclose(np.quantile(rank, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.08)
    nearest = column("nearest_rank", records_of(2000, 8).inputs, profile)[32:]
    np.testing.assert_allclose(np.quantile(nearest, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.12)


def test_a_profile_is_the_same_after_json_and_its_key_is_not_in_it(train: Records, profile: Profile) -> None:
    text = json.dumps(profile.to_json(), allow_nan=False)
    again = Profile.from_json(json.loads(text), profile.key)
    session = session_of(train.inputs, train.confidence)
    ours, theirs = (compute(session, ALL, Known({}, {"m": one})).values for one in (profile, again))
    np.testing.assert_array_equal(ours, theirs)
    assert again.records == profile.records
    for secret in (KEY, profile.key):
        assert secret.hex() not in text
        assert repr(secret) not in text


def test_with_another_key_or_another_models_no_record_is_known(train: Records, profile: Profile) -> None:
    form = profile.to_json()
    for key in (bytes(16), KEY, build_profile(train, train, KEY, "other").key):
        assert not column("on_record", train.inputs, Profile.from_json(form, key)).any()


def test_two_models_with_the_same_records_share_no_hash(train: Records, holdout: Records) -> None:
    one, two = (build_profile(train, holdout, KEY, name) for name in ("m", "n"))
    assert not set(one.hashes.ravel().tolist()) & set(two.hashes.ravel().tolist())


def test_a_profile_of_many_records_is_small_and_holds_none_of_them() -> None:
    random = np.random.default_rng(0)
    train, holdout = (Records(random.normal(size=(count, 30)), random.random(count)) for count in (10_000, 5_000))
    text = json.dumps(build_profile(train, holdout, KEY, "m").to_json())
    assert len(text) < 1_000_000
    kept = {float(value) for value in np.unique(np.concatenate([train.inputs, holdout.inputs]))}
    told = build_profile(train, holdout, KEY, "m")
    numbers = np.concatenate([told.scale.spread, told.edges, told.ratios, told.nearest, told.centre, told.widths])
    assert not kept & set(numbers.tolist())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.data())
def test_features_with_a_profile_are_those_of_a_prefix_and_of_a_stream(
    seed: int, length: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    train, holdout = records_of(40, seed + 1), records_of(40, seed + 2)
    profiles = {"m": build_profile(train, holdout, KEY, "m")}
    pool = np.concatenate([train.inputs, holdout.inputs, train.inputs * 1.01])
    session = session_of(pool[random.integers(0, len(pool), length)], random.random(length))
    whole = compute(session, ALL, Known({}, profiles)).values
    cut = data.draw(st.integers(1, length - 1))
    state, width = new_state(1, session.inputs.size // length), session.inputs.size // length
    for start, stop in ((0, cut), (cut, length)):
        part = dataclasses.replace(
            session_of(session.inputs.reshape(-1, width)[start:stop], session.confidence[start:stop]),
            time_s=session.time_s[start:stop], before=np.array([start]),
        )  # fmt: skip
        values = compute(part, ALL, Known({}, profiles), state, np.array([0])).values
        np.testing.assert_array_equal(values, whole[start:stop])


def test_vectors_of_another_width_than_the_profiles_are_compared_without_it(profile: Profile) -> None:
    random = np.random.default_rng(3)
    session = session_of(random.normal(size=(20, 4)), random.random(20))
    values = compute(session, ALL, Known({}, {"m": profile})).values
    plain = compute(session, ALL, Known()).values
    lacking = {name for name in ALL if FEATURES[name].group in ("profile", "members")}
    for at, name in enumerate(ALL):
        if name.startswith(("member_ratio", "ratio", "rank", "confidence_rank")):
            assert not np.isnan(values[1:, at]).all()  # answers need no vector
        elif name in lacking:
            assert np.isnan(values[:, at]).all(), name
        else:
            np.testing.assert_array_equal(values[:, at], plain[:, at])


def test_a_profile_without_training_records_tells_of_distances_alone(holdout: Records) -> None:
    nothing = Records(np.zeros((0, holdout.inputs.shape[1])), np.zeros(0))
    profile = build_profile(nothing, holdout, KEY, "m")
    assert np.isnan(profile.rate)
    values = compute(session_of(holdout.inputs, holdout.confidence), ALL, Known({}, {"m": profile})).values
    known = {name for at, name in enumerate(ALL) if not np.isnan(values[:, at]).all()}
    assert {"centre_rank", "nearest_rank", "confidence_rank"} <= known
    assert not {"member_ratio", "on_record", "records_excess", "touch_mean_32"} & known


def test_records_that_make_no_profile_are_refused(train: Records, holdout: Records) -> None:
    with pytest.raises(DataError, match="m: the holdout has 1 records, expected at least 2"):
        build_profile(train, Records(holdout.inputs[:1], holdout.confidence[:1]), KEY, "m")
    with pytest.raises(DataError, match="has 17 inputs and one of the holdout 16, expected as many"):
        build_profile(train, Records(holdout.inputs[:, 1:], holdout.confidence), KEY, "m")
    broken = train.inputs.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataError, match="1 training records have inputs that are not finite"):
        build_profile(Records(broken, train.confidence), holdout, KEY, "m")


def test_a_holdout_of_one_record_again_and_again_makes_a_profile() -> None:
    same = Records(np.ones((50, 3)), np.full(50, 0.7))
    profile = build_profile(same, same, bytes(16), "m")
    assert np.isfinite(profile.nearest).all()
