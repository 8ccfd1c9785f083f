"""Events take the columns that a caller has, and refuse what cannot be scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from probewatch.data.events import Events, as_events, as_texts
from probewatch.errors import DataError


def test_lists_numpy_and_arrow_give_the_same_events() -> None:
    vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    from_lists = Events.of(
        ["a", "b", "c"], [0, 1, 2], confidence=[0.1, 0.2, 0.3], inputs=vectors, session=["", "s", ""]
    )
    from_arrow = Events.of(
        pa.chunked_array([["a"], ["b", "c"]]), np.arange(3), confidence=np.array([0.1, 0.2, 0.3]),
        inputs=pa.array(vectors), session=pa.array([None, "s", None]),
    )  # fmt: skip
    from_numpy = Events.of(
        np.array(["a", "b", "c"], object), np.arange(3), confidence=[0.1, 0.2, 0.3], inputs=np.array(vectors),
        session=np.array([None, "s", ""], object),
    )  # fmt: skip
    for other in (from_arrow, from_numpy):
        for name in Events.__dataclass_fields__:
            assert np.array_equal(getattr(from_lists, name), getattr(other, name)), name


def test_events_survive_a_table_a_slice_and_a_join() -> None:
    events = Events.of(["a", "b", "c"], [0.0, 1.0, 2.0], inputs=[[1.0], [], [2.0, 3.0]], predicted_class=[1, -1, 0])
    again = Events.concat([Events.from_table(events.slice(0, 1).to_table()), events.slice(1, 3)])
    taken = events.take(np.array([2, 0]))
    assert taken.inputs.tolist() == [2.0, 3.0, 1.0] and taken.client.to_pylist() == ["c", "a"]
    for name in Events.__dataclass_fields__:
        assert np.array_equal(getattr(events, name), getattr(again, name), equal_nan=name == "confidence"), name


def test_half_a_surrogate_pair_is_kept_as_an_escape() -> None:
    assert Events.of(["\ud800"], [0.0]).client.to_pylist() == ["\\ud800"]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(DataError, match=r"session has 1 values, time_s 2.*no time.*no probability.*not finite"):
        Events.of(["a", "b"], [1.0, np.nan], session=["s"], confidence=[0.5, 1.5], inputs=[[np.inf], []])


def test_unknown_and_lacking_columns_are_named() -> None:
    with pytest.raises(DataError, match=r"lack \['time_s'\] and hold unknown \['user'\]"):
        as_events({"client": ["a"], "user": ["b"]})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"time_s": ["x"]}, "time_s holds what is no number"),
        ({"time_s": [[1.0]]}, "time_s has 2 axes"),
        ({"confidence": [[0.5]]}, "confidence has 2 axes"),
        ({"predicted_class": [np.nan]}, "predicted_class holds what is no number"),
        ({"inputs": [1.0]}, "inputs are no vectors"),
        ({"inputs": [[[1.0]]]}, "inputs are no vectors"),
        ({"inputs": [["x"]]}, "inputs are no vectors"),
        ({"client": [None]}, "client is empty"),
    ],
)
def test_columns_of_other_kinds_are_sentences(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        as_events({"client": ["a"], "time_s": [1.7e9], **columns})


def test_what_is_no_dictionary_of_columns_is_a_sentence() -> None:
    with pytest.raises(DataError, match="expected columns by name"):
        as_events(None)  # type: ignore[arg-type]


def test_what_pandas_has_for_nothing_is_nothing() -> None:
    events = Events.of(["a", "b"], [0.0, 1.0], request=[float("nan"), None])
    assert events.request.to_pylist() == ["", ""]
    assert as_texts([float("nan"), None, 3, "a\ud800", np.str_("b")]).to_pylist() == ["", "", "3", "a\\ud800", "b"]
