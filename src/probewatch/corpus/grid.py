"""What values a model's columns take, so that made-up inputs look like real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.onehot import OneHot, find_one_hot
from probewatch.errors import DataError

PARTS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 255, 256, 10**3, 10**4, 10**5, 10**6)
"""A column is continuous unless its values are whole numbers of one of these parts of 1."""
FEW = 12  # a column of numbers with no more distinct values than these holds categories
FEW_UNEVEN = 256  # the same where it is continuous otherwise, such as whole numbers divided by a deviation
WHOLE = 2.0**53  # float64 tells whole numbers up to here
CELLS = 2**22  # compared at a time, to bound the memory
SEEN_OFTEN = 5  # so many records for each distinct value, or they are no categories


@dataclass(frozen=True)
class Grid:
    """Range, step and categories of each of D columns.

    Every input that is made up, by an attacker or by a benign client, goes through :meth:`snap`: whole numbers stay
    whole, categories stay categories, and what is constant stays constant. So none can be told by that.

    Args:
        low, high: (D,) range.
        step: (D,) values are its multiples: 1 for whole numbers, 50 for those of fifty, 0.01 for two decimals, 0 for
            continuous.
        categories: for each column its allowed values in ascending order, or None where step and range say it all.
        scale: (D,) standard deviation, 0 where constant.
        groups: columns that hold a category one-hot.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    step: NDArray[np.float64]
    categories: tuple[NDArray[np.float64] | None, ...]
    scale: NDArray[np.float64]
    groups: tuple[OneHot, ...] = ()

    @classmethod
    def learn(cls, records: NDArray[np.float64]) -> Grid:
        """The grid on which (n, D) records lie.

        >>> grid = Grid.learn(np.column_stack([np.arange(100), np.arange(100) / 8, np.arange(100) % 2 * 3]))
        >>> grid.step
        array([1.   , 0.125, 3.   ])
        >>> grid.snap(np.array([[17.4, 3.14159, 2.2]]))
        array([[17.   ,  3.125,  3.   ]])

        Raises:
            DataError: no records, values that are not finite, or no column that varies.
        """
        records = np.asarray(records, np.float64)
        if records.ndim != 2 or not records.size:
            raise DataError(f"records are of shape {records.shape}, expected at least one row and one column.")
        if not np.isfinite(records).all():
            raise DataError("records hold values that are not finite; fill or drop them first.")
        if not (records != records[0]).any():
            raise DataError("all columns of the records are constant, so there is nothing to ask about.")
        values = [np.unique(column) for column in records.T]
        step = np.array([_step_of(column) for column in values])
        categories = tuple(
            _categories_of(column, len(records), size) for column, size in zip(values, step.tolist(), strict=True)
        )
        flags = np.array([allowed is not None and allowed.tolist() == [0.0, 1.0] for allowed in categories])
        return cls(
            low=records.min(axis=0),
            high=records.max(axis=0),
            step=step,
            categories=categories,
            scale=records.std(axis=0),
            groups=find_one_hot(records, flags),
        )

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def free(self) -> NDArray[np.int64]:
        """The columns that are not constant."""
        return np.flatnonzero(self.high > self.low)

    @cached_property
    def fields(self) -> NDArray[np.int64]:
        """What someone who changes one thing may change: the free columns, of a one-hot category the first alone."""
        followers = [np.arange(group.first + 1, group.end) for group in self.groups]
        return np.setdiff1d(self.free, np.concatenate([np.empty(0, np.int64), *followers]))

    def mix(
        self, changed: NDArray[np.bool_], new: NDArray[np.float64], old: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(…, D) the changed columns of ``new``, the others of ``old``: of a one-hot category all, if the first is."""
        changed = changed.copy()
        for group in self.groups:
            changed[..., group.columns] = changed[..., group.first, None]
        return np.where(changed, new, old)

    def snap(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, D) inputs moved to the nearest values that their columns allow."""
        within = np.minimum(np.maximum(inputs, self.low), self.high)
        multiple, parts, stepped = self._units
        snapped = np.where(stepped, np.rint(within / multiple * parts) * multiple / parts, within)
        columns, lower, between = self._listed
        most = max(1, CELLS // max(1, between.size))
        for start in range(0, len(snapped) if len(columns) else 0, most):
            rows = slice(start, start + most)
            place = np.sum(within[rows, columns, None] > between, axis=2)
            snapped[rows, columns] = lower[np.arange(len(columns)), place]
        for group in self.groups:
            group.mend(snapped[:, group.columns], within[:, group.columns])
        return snapped

    def jitter(
        self, inputs: NDArray[np.float64], amount: float | NDArray[np.float64], random: np.random.Generator
    ) -> NDArray[np.float64]:
        """(n, D) inputs under noise, on the grid.

        Args:
            inputs: (n, D) on the grid.
            amount: the noise's deviation as a share of each column's own, one for all or (n, 1) one for each row. A
                category is drawn anew with the same probability. Between two steps the nearer one is only the more
                likely one, so that small noise is not lost on coarse columns.
            random: is advanced.
        """
        noisy = inputs + random.standard_normal(inputs.shape) * (amount * self.scale)
        multiple, parts, stepped = self._units
        np.copyto(
            noisy, np.floor(noisy / multiple * parts + random.random(inputs.shape)) * multiple / parts, where=stepped
        )
        columns = self._listed[0]
        if len(columns):
            anew = np.zeros(inputs.shape, np.bool_)
            anew[:, columns] = random.random((len(inputs), len(columns))) < amount
            drawn = inputs.copy()
            self._draw_listed(drawn, random)
            noisy[:, columns] = self.mix(anew, drawn, inputs)[:, columns]
        return self.snap(noisy)

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """(count, D) inputs from anywhere on the grid."""
        drawn = random.uniform(self.low, self.high, (count, len(self)))
        self._draw_listed(drawn, random)
        return self.snap(drawn)

    def span(self, column: int, most: int) -> NDArray[np.float64]:
        """(k, D) on the grid with at most so many different values of one column, from its lowest to its highest.

        Of a one-hot category whose first column it is, so many categories. The other columns are at their lowest.
        """
        group = next((group for group in self.groups if group.first == column), None)
        allowed = self.categories[column]
        lowest = self.snap(self.low[None])
        if group is None and allowed is None:
            even = np.repeat(lowest, most, axis=0)
            even[:, column] = np.linspace(self.low[column], self.high[column], most)
            even = self.snap(even)
            first: NDArray[np.int64] = np.unique(even[:, column], return_index=True)[1]
            return np.asarray(even[first])
        if group is not None:
            found = np.repeat(lowest, len(group.rows()), axis=0)
            found[:, group.columns] = group.rows()
        elif allowed is not None:
            found = np.repeat(lowest, len(allowed), axis=0)
            found[:, column] = allowed
        kept: NDArray[np.int64] = np.unique(np.linspace(0, len(found) - 1, most).round().astype(np.int64))
        return np.asarray(found[kept])

    @cached_property
    def _units(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """A step is a whole number or one over a whole number: dividing by the latter gives the decimals as read."""
        stepped = self.step > 0
        step = np.where(stepped, self.step, 1.0)
        return np.maximum(step, 1.0), np.rint(1.0 / np.minimum(step, 1.0)), stepped

    @cached_property
    def _listed(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The L columns of categories, (L, K) their values, and (L, K - 1) what lies between them; the last repeats."""
        columns = [column for column, allowed in enumerate(self.categories) if allowed is not None]
        lists = [allowed for allowed in self.categories if allowed is not None]
        most = max(map(len, lists), default=1)
        values = np.array([np.pad(one, (0, most - len(one)), mode="edge") for one in lists]).reshape(-1, most)
        between = (values[:, 1:] + values[:, :-1]) / 2.0
        return np.array(columns, np.int64), values, between

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.array([len(allowed) for allowed in self.categories if allowed is not None], np.int64)

    def _draw_listed(self, inputs: NDArray[np.float64], random: np.random.Generator) -> None:
        """Draw the L columns of categories of (n, D) inputs anew, each value as likely as the others."""
        columns, values, _ = self._listed
        place = (random.random((len(inputs), len(columns))) * self._sizes).astype(np.int64)
        inputs[:, columns] = values[np.arange(len(columns)), place]
        for group in self.groups:
            inputs[:, group.columns] = group.draw(len(inputs), random)


def _step_of(values: NDArray[np.float64]) -> float:
    """The largest whole number, or else the coarsest of the parts, of which all values are multiples; 0 if none is."""
    for parts in PARTS:
        if np.array_equal(np.rint(values * parts) / parts, values):
            whole = parts == 1 and np.abs(values).max() < WHOLE
            return float(max(np.gcd.reduce(values.astype(np.int64)), 1)) if whole else 1.0 / parts
    return 0.0


def _categories_of(values: NDArray[np.float64], records: int, step: float) -> NDArray[np.float64] | None:
    few = FEW if step > 0 else FEW_UNEVEN
    return values if 2 <= len(values) <= few and len(values) * SEEN_OFTEN <= records else None
