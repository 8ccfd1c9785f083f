"""What is known of models ahead, laid out once as the compiled step reads it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from probewatch.data.profile import Profiles, reference_of, with_profiles
from probewatch.data.scales import NOTHING, Scales, table_of


class Known:
    """The scales and profiles of models, which do not change while their queries are scored.

    Args:
        scales: by model, of those that training saw.
        profiles: by model; the scale of a profile comes before one in ``scales``.

    Attributes:
        table, reference: a row a model, and one more for all of which nothing is known.
        familiar: (M + 1,) float32 1 for a model in ``scales``, else NaN.
    """

    def __init__(self, scales: Scales | None = None, profiles: Profiles | None = None) -> None:
        scales, profiles = scales or {}, profiles or {}
        every = with_profiles(scales, profiles)
        self._rows = {model: row for row, model in enumerate(every)}
        self.table = table_of([*every.values(), NOTHING])
        self.reference = reference_of([*(profiles.get(model) for model in every), None], self.table.inputs)
        self.familiar = np.array([*(1.0 if model in scales else np.nan for model in every), np.nan], np.float32)

    def rows(self, models: Iterable[str]) -> NDArray[np.int64]:
        """The row of each model."""
        unknown = len(self._rows)
        return np.fromiter((self._rows.get(model, unknown) for model in models), np.int64)
