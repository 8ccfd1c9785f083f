import dataclasses
import json

import numpy as np
import pytest

from probewatch.data.records import Sessions, offsets_of
from probewatch.data.scales import NOTHING, QUANTILES, Scale, learn_scales, table_of


def sessions_of(vectors: list[list[float]], confidence: list[float], *, model: str = "m") -> Sessions:
    """One session with a query a vector."""
    count = len(vectors)
    names = np.array(["s"], object)
    return Sessions(
        names, names, np.array([model], object), np.array([0, count]), np.arange(count) * 1.0, np.array(confidence),
        np.full(count, -1), np.array([value for row in vectors for value in row], float),
        offsets_of(np.array([len(row) for row in vectors])), np.array([-1], np.int8), np.array([0]), np.array([True]),
    )  # fmt: skip


def test_centre_and_spread_are_the_median_and_the_quartile_range_of_each_input() -> None:
    scale = learn_scales(sessions_of([[float(i), 7.0] for i in range(5)], [0.5] * 5))["m"]
    np.testing.assert_allclose(scale.centre, [2.0, 7.0])
    np.testing.assert_allclose(scale.spread, [2.0 / 1.349, 0.0])  # quartiles 1 and 3; the second never varies


def test_an_input_that_nearly_always_is_the_same_is_scaled_by_its_deviation() -> None:
    vectors = [[float(i), 100.0 * (i == 3)] for i in range(20)]
    scale = learn_scales(sessions_of(vectors, [0.5] * 20))["m"]
    np.testing.assert_allclose(scale.spread[1], 100.0 * np.sqrt(0.05 * 0.95))


def test_a_repeated_query_counts_once() -> None:
    vectors = [[float(i)] for i in range(5)]
    plain = learn_scales(sessions_of(vectors, [0.5] * 5))["m"]
    repeated = learn_scales(sessions_of([*vectors, *[[4.0]] * 1000], [0.5] * 1005))["m"]
    assert repeated.centre == plain.centre
    assert repeated.spread == plain.spread


def test_the_unit_is_the_usual_distance_between_two_queries() -> None:
    scale = learn_scales(sessions_of([[0.0], [1.0]], [0.5, 0.5]))["m"]
    np.testing.assert_allclose(scale.unit, 1.0 / scale.spread[0])  # there is only one distance


def test_confidences_are_kept_as_quantiles_and_missing_ones_left_out() -> None:
    confidence = [*np.linspace(0.2, 0.8, 7).tolist(), np.nan]
    scale = learn_scales(sessions_of([[]] * 8, confidence))["m"]
    np.testing.assert_allclose(scale.confidences, 0.2 + 0.6 * QUANTILES)
    assert len(scale.centre) == len(scale.spread) == 0
    assert scale.unit == 1.0
    assert len(learn_scales(sessions_of([[]], [np.nan]))["m"].confidences) == 0


def test_the_usual_width_is_the_one_that_counts() -> None:
    scale = learn_scales(sessions_of([[1.0, 2.0], [], [1.0], [3.0, 4.0]], [0.5] * 4))["m"]
    np.testing.assert_allclose(scale.centre, [2.0, 3.0])


def test_every_model_has_a_scale_of_its_own_and_the_others_do_not_touch_it() -> None:
    one = sessions_of([[1.0], [2.0], [5.0]], [0.5, 0.6, 0.7], model="one")
    two = sessions_of([[1e6], [2e6]], [0.1, 0.2], model="two")
    both = learn_scales(Sessions.concat([one, two]))
    assert sorted(both) == ["one", "two"]
    assert both["one"].to_json() == learn_scales(one)["one"].to_json()


def test_a_scale_is_the_same_after_json() -> None:
    scale = learn_scales(sessions_of([[0.1, 1e-300], [2 / 3, 5.0], [7.7, 1e300]], [0.1, 0.2, 0.3]))["m"]
    back = Scale.from_json(json.loads(json.dumps(scale.to_json())))
    for field in dataclasses.fields(Scale):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(scale, field.name))


def test_the_table_lays_scales_end_to_end_and_leaves_unknown_models_empty() -> None:
    known = Scale(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 5.0, np.array([0.5]))
    table = table_of([NOTHING, known])
    assert table.inputs.tolist() == [0, 0, 2]
    assert table.quantiles.tolist() == [0, 0, 1]
    assert table.centre.tolist() == [1.0, 2.0]
    assert table.spread.tolist() == [3.0, 4.0]
    assert table.unit.tolist() == [1.0, 5.0]


@pytest.mark.parametrize("value", [1e308, 1e-308, 0.0])
def test_extreme_inputs_give_a_finite_scale(value: float) -> None:
    scale = learn_scales(sessions_of([[-value], [value], [0.5 * value]], [0.5] * 3))["m"]
    assert np.isfinite(scale.spread).all()
    assert np.isfinite(scale.unit)
