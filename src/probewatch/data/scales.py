"""What training learns of each model's usual queries, so that distances mean the same on every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probewatch.data.records import Sessions, coded, ranges

SKETCH = 16  # dimensions of the random projection in which distances are taken
QUANTILES = np.linspace(0.0, 1.0, 65)  # at which a model's usual confidences are kept
PAIRS = 20_000  # random pairs of queries that fix the usual distance
LARGEST = 1e150  # inputs are cut here while their scale is learned, so that squares stay finite
SAMPLE = 20_000  # distinct queries of a model that its scale is learned from


@dataclass(frozen=True)
class Scale:
    """The usual queries of one model.

    Attributes:
        centre: (D,) float64 median of each input.
        spread: (D,) float64 robust deviation of each input; 0 where the input never varied.
        unit: the usual distance between two of its queries, in sketch space.
        confidences: (Q,) float64 quantiles of the confidences it gave; empty where the log has none.
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    unit: float
    confidences: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """A form that JSON holds without loss."""
        return {
            "centre": self.centre.tolist(),
            "spread": self.spread.tolist(),
            "unit": self.unit,
            "confidences": self.confidences.tolist(),
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Scale:
        """What :meth:`to_json` gave."""
        arrays = {name: np.array(form[name], np.float64) for name in ("centre", "spread", "confidences")}
        return cls(unit=float(form["unit"]), **arrays)


Scales = Mapping[str, Scale]  # by model name
NOTHING = Scale(np.zeros(0), np.zeros(0), 1.0, np.zeros(0))  # of a model of which nothing is known


class Table(NamedTuple):
    """Scales of several models end to end, as the compiled step reads them; row ``m`` is one model."""

    inputs: NDArray[np.int64]  # (M + 1,) offsets into centre and spread
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    unit: NDArray[np.float64]  # (M,)
    quantiles: NDArray[np.int64]  # (M + 1,) offsets into confidences
    confidences: NDArray[np.float64]


def table_of(scales: Sequence[Scale]) -> Table:
    """The scales, a row each."""

    def joined(arrays: list[NDArray[np.float64]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        ends = np.cumsum([0] + [len(array) for array in arrays]).astype(np.int64)
        return ends, np.concatenate([*arrays, np.zeros(0)])

    inputs, centre = joined([one.centre for one in scales])
    quantiles, confidences = joined([one.confidences for one in scales])
    spread = joined([one.spread for one in scales])[1]
    return Table(inputs, centre, spread, np.array([one.unit for one in scales], np.float64), quantiles, confidences)


def learn_scales(sessions: Sessions, *, seed: int = 0) -> dict[str, Scale]:
    """The scale of every model in ``sessions``, which must be training sessions only.

    Each distinct input counts once, so that a health check's thousand repeats do not become the norm.
    """
    models, of = coded(sessions.model)
    return {
        model: _learn(sessions.take(of == place), np.random.default_rng(seed)) for place, model in enumerate(models)
    }


def _learn(sessions: Sessions, random: np.random.Generator) -> Scale:
    widths = np.diff(sessions.input_offsets)
    if not np.any(widths):
        return learn_scale(np.zeros((0, 0)), sessions.confidence, random)
    width = int(np.bincount(widths[widths > 0]).argmax())
    queries = np.flatnonzero(widths == width)
    if len(queries) > 8 * SAMPLE:
        queries = random.choice(queries, 8 * SAMPLE, replace=False)
    starts = sessions.input_offsets[:-1][queries]
    inputs = sessions.inputs[ranges(starts, np.full(len(starts), width))].reshape(-1, width)
    return learn_scale(inputs, sessions.confidence, random)


def learn_scale(inputs: NDArray[np.float64], confidence: NDArray[np.float64], random: np.random.Generator) -> Scale:
    """The scale of (n, D) inputs, each distinct one once, and (m,) confidences, NaN where absent."""
    known = confidence[~np.isnan(confidence)]
    quantiles = np.quantile(known, QUANTILES) if len(known) else np.zeros(0)
    if not inputs.size:
        return Scale(np.zeros(0), np.zeros(0), 1.0, quantiles)
    inputs = np.unique(inputs.clip(-LARGEST, LARGEST), axis=0)
    if len(inputs) > SAMPLE:
        inputs = random.choice(inputs, SAMPLE, replace=False)
    low, centre, high = np.quantile(inputs, [0.25, 0.5, 0.75], axis=0)
    deviation = inputs.std(axis=0)
    # a column that is nearly always the same has no quartile range: then its plain deviation
    spread = np.where(high > low, (high - low) / 1.349, deviation)
    spread[deviation <= 1e-12 * np.maximum(np.abs(centre), 1.0)] = 0.0
    scale = Scale(centre, spread, 1.0, quantiles)
    pairs = random.integers(0, len(inputs), (2, PAIRS))
    between = np.linalg.norm(_scaled(inputs[pairs[0]], scale) - _scaled(inputs[pairs[1]], scale), axis=1)
    usual = float(np.median(between[between > 0])) if np.any(between > 0) else 1.0
    return Scale(centre, spread, usual, quantiles)


CLIP = 12.0  # scaled inputs are cut here, so that one wild column cannot drown the others


def _scaled(inputs: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """(n, D) inputs in units of the scale; the sketch keeps their distances on average."""
    varied = scale.spread > 0
    scaled: NDArray[np.float64] = (inputs[:, varied] - scale.centre[varied]) / scale.spread[varied]
    return np.clip(scaled, -CLIP, CLIP)
