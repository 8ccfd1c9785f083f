"""Trees that come with the package: grown on data that is nobody's, they know attacks and uses that a log may lack.

``bench/pretrained.py`` grows them on models of drawn data, attacked and used in every way that ``corpus`` knows. What a
log's own readers take for an attack only because they have never seen it, these may know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from probewatch.data.artefacts import replacing
from probewatch.learn.trees import Trees

FILE = "pretrained.safetensors"


def pretrained_trees(features: Sequence[str]) -> Trees | None:
    """The trees, with columns by their place in ``features``; None where one lacks that they ask for."""
    trees, asked = _read()
    places = {name: at for at, name in enumerate(features)}
    if not places.keys() >= set(asked):
        return None
    column = np.array([places[name] for name in asked] + [-1])
    return Trees(**{**trees, "feature": column[trees["feature"]]})


def write_trees(path: Path, trees: Trees, features: Sequence[str]) -> None:
    """Write trees that were grown on these features, with the names of those that they ask for."""
    used = np.unique(trees.feature[trees.feature >= 0])
    place = np.full(len(features) + 1, -1)  # the last for the -1 of leaves
    place[used] = np.arange(len(used))
    small = {
        name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in asdict(trees).items()
    }
    small["feature"] = place[trees.feature].astype(np.int32)
    with replacing(path) as partial:
        save_file(small, partial, {"features": json.dumps([features[at] for at in used.tolist()])})


@lru_cache
def _read() -> tuple[dict[str, NDArray[Any]], list[str]]:
    with as_file(files("probewatch.learn") / FILE) as path, safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        features: list[str] = json.loads(file.metadata()["features"])
    wide = {name: array.astype(np.int64) if array.dtype == np.int32 else array for name, array in arrays.items()}
    return wide, features
