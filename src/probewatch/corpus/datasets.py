"""The data sets that demos and the benchmark train their models on: real ones that libraries carry, and drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probewatch.corpus.drawn import draw_records
from probewatch.corpus.people import draw_borrowers, draw_subscribers
from probewatch.corpus.pools import Records
from probewatch.errors import ConfigError

PATCH = 6  # pixels that a patch of a photograph is high and wide
EVERY = 2  # one pixel of so many each way is kept
GREYS = 17  # as digits has them: 0 to 16
DRAWN = "drawn"

Loaded = tuple[Any, Any]
"""(R, D) inputs and (R,) labels."""


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        load: reads or draws it; always the same.
        shape: what its columns are like.
        text: what a record and the label are, in a sentence.
        source: who carries it.
    """

    load: Callable[[], Loaded]
    shape: Literal["discrete", "continuous", "mixed", "pixels"]
    text: str
    source: str


def dataset_of(name: str) -> Dataset:
    """One of :data:`DATASETS`, or the drawn one of a number: ``drawn-7``.

    Raises:
        ConfigError: no such data.
    """
    kind, _, number = name.partition("-")
    if kind == DRAWN and number.isdecimal():
        return Dataset(partial(draw_records, int(number)), "mixed", "records of no one, drawn", "drawn")
    if name not in DATASETS:
        raise ConfigError(f"the data set is {name!r}, expected one of: {', '.join(DATASETS)}, {DRAWN}-0, …")
    return DATASETS[name]


def load_dataset(name: str) -> Records:
    """The distinct records of a data set, labels numbered from 0 in the order of their values.

    Of equal records the first is kept: what is frequent would else be found among the members alone, since no one else
    may have their doubles, and members would be told by that.

    >>> len(load_dataset("wine")), load_dataset("wine").inputs.shape[1]
    (178, 13)

    Raises:
        ConfigError: no such data, or a library that carries it is not installed.
    """
    try:
        inputs, label = dataset_of(name).load()
    except ImportError as error:
        raise ConfigError(
            f"the data set {name!r} needs {error.name}, which this host lacks; pip install 'probewatch[corpus]'."
        ) from error
    inputs = np.asarray(inputs, np.float64)
    first = np.sort(np.unique(inputs + 0.0, axis=0, return_index=True)[1])
    return Records(inputs[first], np.unique(np.asarray(label)[first], return_inverse=True)[1].reshape(-1))


def _from_sklearn(name: str) -> Callable[[], Loaded]:
    def load() -> Loaded:
        from sklearn import datasets

        found: Loaded = getattr(datasets, f"load_{name}")(return_X_y=True)
        return found

    return load


def _diabetes() -> Loaded:
    from sklearn.datasets import load_diabetes

    inputs, progress = load_diabetes(return_X_y=True, scaled=False)
    return inputs, progress > np.median(progress)


def _patches() -> Loaded:
    """Squares of two photographs, in as few greys as digits has."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    squares: list[NDArray[np.float64]] = []
    for picture in pictures:
        grey = picture.mean(axis=2)[::EVERY, ::EVERY]
        high, wide = (size // PATCH for size in grey.shape)
        cut = grey[: high * PATCH, : wide * PATCH].reshape(high, PATCH, wide, PATCH).transpose(0, 2, 1, 3)
        squares.append(np.floor(cut.reshape(-1, PATCH * PATCH) / 256.0 * GREYS))
    return np.concatenate(squares), np.repeat(np.arange(len(squares)), [len(one) for one in squares])


def _from_statsmodels(name: str, columns: tuple[str, ...], label: Callable[[Any], Any]) -> Callable[[], Loaded]:
    def load() -> Loaded:
        from importlib import import_module

        table = import_module(f"statsmodels.datasets.{name}").load_pandas().data
        return table[list(columns)].to_numpy(np.float64), label(table).to_numpy()

    return load


DATASETS: dict[str, Dataset] = {
    "cancer": Dataset(
        _from_sklearn("breast_cancer"), "continuous", "a tumour's 30 measures; malignant or not", "scikit-learn"
    ),
    "wine": Dataset(_from_sklearn("wine"), "continuous", "a wine's 13 measures; its grower", "scikit-learn"),
    "diabetes": Dataset(
        _diabetes, "mixed", "a patient's age, sex, body and blood; whether the illness goes on fast", "scikit-learn"
    ),
    "digits": Dataset(_from_sklearn("digits"), "pixels", "a written digit of 64 pixels; which", "scikit-learn"),
    "patches": Dataset(_patches, "pixels", "a square of 36 pixels of a photograph; of which", "scikit-learn"),
    "marriages": Dataset(
        _from_statsmodels(
            "fair",
            ("rate_marriage", "age", "yrs_married", "children", "religious", "educ", "occupation", "occupation_husb"),
            lambda table: table["affairs"] > 0,
        ),
        "discrete", "a wife's eight answers (Fair 1978); whether she had an affair", "statsmodels",
    ),
    "voters": Dataset(
        _from_statsmodels(
            "anes96", ("popul", "TVnews", "selfLR", "ClinLR", "DoleLR", "age", "educ", "income"),
            lambda table: table["vote"],
        ),
        "discrete", "a voter's eight answers (ANES 1996); the vote", "statsmodels",
    ),
    "schools": Dataset(
        _from_statsmodels(
            "star98",
            ("LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "AVYRSEXP", "AVSALK", "PERSPENK", "PTRATIO",
             "PCTAF", "PCTCHRT", "PCTYRRND"),
            lambda table: table["NABOVE"] > table["NBELOW"],
        ),
        "continuous", "a school district's twelve measures (California 1998); most pupils above the median",
        "statsmodels",
    ),
    "insured": Dataset(
        _from_statsmodels(
            "randhie", ("lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"),
            lambda table: table["mdvis"] > 2,
        ),
        "mixed", "an insured person's plan and health (RAND HIE); more than two visits to a doctor", "statsmodels",
    ),
    "borrowers": Dataset(draw_borrowers, "mixed", "a drawn borrower, categories one-hot; default", "drawn"),
    "subscribers": Dataset(draw_subscribers, "mixed", "a drawn subscriber, categories as codes; plan", "drawn"),
}  # fmt: skip
"""By name. People where there are any: their records are what membership inference is after."""
