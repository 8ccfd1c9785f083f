from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from probewatch.corpus.grid import Grid
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
    assert grid.values(4, 8).tolist() == [2.0, 3.0, 7.0]
    assert grid.values(4, 2).tolist() == [2.0, 7.0]
    found = grid.values(0, 5)
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
