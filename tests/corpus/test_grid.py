from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from probewatch.corpus.grid import Grid
from probewatch.corpus.onehot import OneHot
from probewatch.errors import DataError


def _records(seed: int = 0, count: int = 400) -> NDArray[np.float64]:
    """Whole numbers, two decimals, k / 255, continuous, categories, standardised counts, constant."""
    random = np.random.default_rng(seed)
    counts = random.poisson(4.0, count).astype(float)
    return np.column_stack([
        random.integers(-50, 50, count),
        random.uniform(0, 30, count).round(2),
        random.integers(0, 256, count) / 255,
        random.normal(size=count),
        random.choice([2.0, 3.0, 7.0], count),
        (counts - counts.mean()) / counts.std(),
        np.full(count, 3.7),
    ])  # fmt: skip


def test_whole_numbers_stay_multiples_of_what_all_are_multiples_of() -> None:
    random = np.random.default_rng(0)
    amounts, odd = 50.0 * random.integers(-40, 900, 300), 1.0 + 50.0 * random.integers(0, 900, 300)
    huge = 2.0**54 * random.integers(1, 900, 300)
    grid = Grid.learn(np.column_stack([amounts, odd, huge, np.where(np.arange(300) < 1, 1e6, amounts)]))
    assert grid.step.tolist() == [50.0, 1.0, 1.0, 50.0]
    for made in (grid.draw(500, random), grid.jitter(np.repeat(grid.draw(1, random), 500, axis=0), 0.1, random)):
        assert np.all(made[:, 0] % 50 == 0) and np.any(made[:, 1] % 50 != 1)
        assert len(np.unique(made[:, 0])) > 20
        assert made[:, 0].min() >= amounts.min() and made[:, 0].max() <= amounts.max()


def test_steps_and_categories_are_learned() -> None:
    grid = Grid.learn(_records())
    assert grid.step.tolist() == [1.0, 0.01, 1 / 255, 0.0, 1.0, 0.0, 0.1]
    assert [allowed is not None for allowed in grid.categories] == [False] * 4 + [True] * 2 + [False]
    assert grid.free.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(grid) == 7


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_real_records_lie_on_their_own_grid_to_the_bit(load) -> None:
    inputs = load(return_X_y=True)[0]
    np.testing.assert_array_equal(Grid.learn(inputs).snap(inputs), inputs)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 5.0))
def test_what_is_made_up_is_on_the_grid_and_in_range(seed: int, amount: float) -> None:
    grid = Grid.learn(_records())
    random = np.random.default_rng(seed)
    far = random.normal(0.0, 100.0, (20, 7))
    for made in (grid.snap(far), grid.draw(20, random), grid.jitter(grid.snap(far), amount, random)):
        np.testing.assert_array_equal(grid.snap(made), made)
        assert (made >= grid.low).all() and (made <= grid.high).all()
        assert set(made[:, 4]) <= {2.0, 3.0, 7.0}
        assert set(made[:, 5]) <= set(_records()[:, 5])
        assert (made[:, 6] == 3.7).all()
        assert (made[:, 0] % 1 == 0).all()
        np.testing.assert_array_equal(made[:, 1].round(2), made[:, 1])


def test_snap_takes_the_nearest_value() -> None:
    grid = Grid.learn(_records())
    inputs = np.repeat(_records()[:1], 3, axis=0)
    inputs[:, 0] = [3.4, 3.6, 900.0]
    inputs[:, 4] = [2.4, 4.9, 5.1]
    snapped = grid.snap(inputs)
    assert snapped[:, 0].tolist() == [3.0, 4.0, grid.high[0]]
    assert snapped[:, 4].tolist() == [2.0, 3.0, 7.0]


def test_small_noise_is_not_lost_on_coarse_columns() -> None:
    grid = Grid.learn(_records())
    inputs = np.repeat(np.array([[7.0, 12.5, 100 / 255, 0.0, 3.0, 0.0, 3.7]]), 20_000, axis=0)
    noisy = grid.jitter(grid.snap(inputs), 0.01, np.random.default_rng(0))
    assert (noisy[:, 0] != 7.0).mean() > 0.1  # deviation 29, so noise is about a quarter of a step
    assert noisy[:, 0].mean() == pytest.approx(7.0, abs=0.02)
    assert (noisy[:, 4] != 3.0).mean() == pytest.approx(0.01 * 2 / 3, rel=0.3)


def test_noise_can_differ_by_row_and_0_changes_nothing() -> None:
    grid = Grid.learn(_records())
    inputs = _records()[:100]
    amounts = np.repeat([0.0, 1.0], 50)[:, None]
    noisy = grid.jitter(inputs, amounts, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy[:50], inputs[:50])
    assert (noisy[50:] != inputs[50:]).any(axis=1).all()


def test_values_span_a_column() -> None:
    grid = Grid.learn(_records())
    assert grid.span(4, 8)[:, 4].tolist() == [2.0, 3.0, 7.0]
    assert grid.span(4, 2)[:, 4].tolist() == [2.0, 7.0]
    found = grid.span(0, 5)[:, 0]
    assert len(found) == 5 and found[0] == grid.low[0] and found[-1] == grid.high[0]
    assert (found % 1 == 0).all()


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (np.empty((0, 3)), r"shape \(0, 3\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "not finite"),
        (np.ones((5, 2)), "constant"),
    ],
)
def test_records_that_tell_nothing_are_refused(records: NDArray[np.float64], told: str) -> None:
    with pytest.raises(DataError, match=told):
        Grid.learn(records)


def _one_hot(count: int = 400) -> NDArray[np.float64]:
    """A number, a category of three and one of four whose first has no column, and two flags that may both be set."""
    random = np.random.default_rng(1)
    first, second = np.eye(3)[random.integers(3, size=count)], np.eye(4)[random.integers(4, size=count)]
    return np.column_stack([random.integers(0, 99, count), first, second[:, 1:], random.integers(0, 2, (count, 2))])


def test_one_hot_categories_are_found_and_other_flags_are_not() -> None:
    grid = Grid.learn(_one_hot())
    assert grid.groups == (OneHot(1, 4, none=False), OneHot(4, 7, none=True))
    assert grid.fields.tolist() == [0, 1, 4, 7, 8]
    rare = np.zeros((400, 3))
    rare[np.arange(30), np.repeat([0, 1], 15)] = 1.0  # two flags of 4 % each that never meet: no proof
    rare[:, 2] = np.arange(400)
    assert Grid.learn(rare).groups == ()


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_what_is_made_up_of_one_hot_columns_is_a_category(seed: int, amount: float) -> None:
    records = _one_hot()
    grid = Grid.learn(records)
    random = np.random.default_rng(seed)
    mixed = grid.mix(random.random((50, 9)) < 0.5, records[:50], records[50:100])
    for made in (
        grid.snap(random.normal(0.5, 1.0, (50, 9))), grid.draw(50, random), grid.jitter(records[:50], amount, random),
        mixed, grid.span(1, 8), grid.span(4, 3),
    ):  # fmt: skip
        np.testing.assert_array_equal(grid.snap(made), made)
        assert (made[:, 1:4].sum(axis=1) <= 1).all() and (made[:, 4:7].sum(axis=1) <= 1).all()
    for made in (grid.draw(50, random), grid.snap(records + 0.2), mixed, grid.span(1, 8)):
        assert (made[:, 1:4].sum(axis=1) == 1).all()


def test_a_one_hot_category_is_snapped_to_its_largest_and_spanned_by_category() -> None:
    grid = Grid.learn(_one_hot())
    row = np.array([[5.0, 0.6, 0.7, 0.1, 0.2, 0.1, 0.4, 1.0, 1.0]])
    assert grid.snap(row)[0].tolist() == [5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert grid.span(1, 8)[:, 1:4].tolist() == np.eye(3).tolist()
    assert len(grid.span(4, 8)) == 4
