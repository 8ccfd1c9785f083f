"""The records of an attacked model, in four pools that share none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probewatch.corpus.target import Predict
from probewatch.data.spelling import number_of_word
from probewatch.data.wording import counted, listed
from probewatch.errors import ConfigError, DataError

FEWEST = 20  # records of the smallest pool, so that sessions do not ask for the same few


@dataclass(frozen=True)
class Records:
    """R records: inputs (R, D) float64 and label (R,) int64, the number of their class."""

    inputs: NDArray[np.float64]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: NDArray[Any]) -> Records:
        """The records at ``which``."""
        return Records(self.inputs[which], self.label[which])


@dataclass(frozen=True)
class Table:
    """What two files say of a model's records.

    Attributes:
        columns: (D,) names.
        texts: (D,) for a column of words, the words in order, whose numbers 0, 1, … stand in the inputs; None for
            a column of numbers.
        kinds: (D,) what the cells of a column are: ``str``, ``bool``, ``int`` or ``float``.
        classes: (C,) values of the label, in order; a label is a number among them.
        train, others: what the model was trained on, and what it was not.
    """

    columns: tuple[str, ...]
    texts: tuple[tuple[str, ...] | None, ...]
    kinds: tuple[type, ...]
    classes: tuple[Any, ...]
    train: Records
    others: Records

    def logged(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, D) inputs as a log has them: words by the numbers that readers give them (``words`` in a mapping)."""
        found = inputs.copy()
        for column, words in enumerate(self.texts):
            if words is not None:
                found[:, column] = np.array(list(map(number_of_word, words)))[inputs[:, column].astype(np.int64)]
        return found

    def decoding(self, predict: Predict) -> Predict:
        """A model that is given words where its records hold words, in an array of objects."""
        if not any(self.texts):
            return predict

        def decoded(inputs: NDArray[np.float64]) -> Any:
            rows = inputs.astype(object)
            for column, words in enumerate(self.texts):
                if words is not None:
                    rows[:, column] = np.array(words, object)[inputs[:, column].astype(np.int64)]
            return predict(rows)

        return decoded

    def spelled(self, inputs: NDArray[np.float64]) -> list[list[Any]]:
        """(n, D) inputs as rows of what the files hold: words, yes or no, whole numbers, decimals."""
        columns = [
            [kind(value) if words is None else words[int(value)] for value in column]
            for column, words, kind in zip(inputs.T.tolist(), self.texts, self.kinds, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pools:
    """Who has which records.

    Attributes:
        members: the model was trained on them. Attackers ask for some, and so do those who rescore customers.
        attackers: the attackers' own, of which the model knows nothing.
        customers: what benign clients ask for.
        holdout: the owner's; nobody asks for them.
        counted: (members,) bool, those that figures set against others. Others whose double is among the members are
            left out, which leaves rarer records; so of the members those without a double among as many others.
        dropped: records of the second file that are left out because the model was trained on their double.
        duplicates: share of all records that have a double among them.
    """

    members: Records
    attackers: Records
    customers: Records
    holdout: Records
    counted: NDArray[np.bool_]
    dropped: int
    duplicates: float

    def named(self) -> dict[str, Records]:
        """The four by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)[:4]}

    def proof(self) -> dict[str, Any]:
        """What the manifest says: sizes, hashes, the records that any two pools share, and duplicates."""
        rows = {name: {row.tobytes() for row in pool.inputs + 0.0} for name, pool in self.named().items()}
        names = list(rows)
        shared = {
            f"{one} & {other}": len(rows[one] & rows[other])
            for place, one in enumerate(names)
            for other in names[place + 1 :]
        }
        return {
            "records": {name: len(pool) for name, pool in self.named().items()},
            "distinct": {name: len(found) for name, found in rows.items()},
            "sha256": {name: hashlib.sha256(b"".join(sorted(found))).hexdigest() for name, found in rows.items()},
            "shared": shared,
            "dropped": self.dropped,
            "duplicate_rate": round(self.duplicates, 6),
        }


def split_pools(
    train: Records, others: Records, shares: Sequence[float], random: np.random.Generator, *, most: int = 0
) -> Pools:
    """Members are ``train``; attackers, customers and the holdout divide ``others``, doubles staying together.

    >>> records = Records(np.arange(300.0)[:, None], np.zeros(300, np.int64))
    >>> pools = split_pools(records.take(np.arange(100)), records.take(np.arange(90, 300)), (0.4, 0.4, 0.2),
    ...                     np.random.default_rng(0))
    >>> [len(pool) for pool in pools.named().values()], pools.dropped
    ([100, 80, 80, 40], 10)

    Args:
        shares: of attackers, customers and holdout in the others' distinct records; they sum up to 1.
        most: records of a pool, 0 for no limit.

    Raises:
        DataError: a pool would have fewer than 20 records.
    """
    _, group, count = np.unique(
        np.concatenate([train.inputs, others.inputs]) + 0.0, axis=0, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    own, foreign = group[: len(train)], group[len(train) :]
    doubled = np.isin(foreign, own)
    free = random.permutation(np.unique(foreign[~doubled]))
    ends = np.floor(np.cumsum(shares[:2]) * len(free) + 1e-9).astype(np.int64)
    parts = [np.flatnonzero(np.isin(foreign, groups)) for groups in np.split(free, ends)]
    if most:
        parts = [np.sort(random.permutation(part)[:most]) for part in parts]
    pools = Pools(
        members=train,
        attackers=others.take(parts[0]),
        customers=others.take(parts[1]),
        holdout=others.take(parts[2]),
        counted=~np.isin(own, random.permutation(foreign)[: len(own)]),
        dropped=int(doubled.sum()),
        duplicates=float(np.mean(count[group] > 1)),
    )
    for name, pool in pools.named().items():
        if len(pool) < FEWEST:
            twins = f" once the {pools.dropped:,} that are training records too are left out" if pools.dropped else ""
            raise DataError(
                f"the pool of {name} has {counted(len(pool), 'record')}{twins}, expected at least {FEWEST}; give more"
                " records that the model was not trained on (--holdout), or other shares."
            )
    return pools


NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)


def read_table(train: Path, holdout: Path, label: str) -> Table:
    """Read the model's training records and others from CSV or Parquet files of the same columns.

    Args:
        train, holdout: ``.csv``, ``.csv.gz`` or ``.parquet``.
        label: name of the label's column.

    Raises:
        ConfigError: a file cannot be read, columns differ, or the label is missing.
        DataError: a cell is empty or not finite.
    """
    first, second = _read(train), _read(holdout)
    _check_columns(train, first, holdout, second, label)
    second = second.select(first.column_names)
    columns = [name for name in first.column_names if name != label]
    try:
        both = pa.concat_tables([first, second], promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise ConfigError(f"{train} and {holdout} have columns of different kinds: {error}.") from error
    empty = [name for name in both.column_names if both[name].null_count]
    if empty:
        raise DataError(f"{train} or {holdout}: the columns {empty} have empty cells; fill or drop them.")
    found = both[label].to_pylist()
    try:
        classes = sorted(set(found))
    except TypeError as error:
        raise ConfigError(f"the label {label!r} mixes kinds of values: {error}.") from error
    if not 2 <= len(classes) <= len(found) // 2:
        raise ConfigError(f"the label {label!r} has {len(classes)} classes, expected 2 or more, each seen often.")
    numbers, texts = zip(*(_numbers(both[name], name) for name in columns), strict=True)
    kinds = tuple(_kind(both[name].type) for name in columns)
    inputs = np.column_stack(numbers)
    codes = {value: code for code, value in enumerate(classes)}
    records = Records(inputs, np.array([codes[value] for value in found], np.int64))
    cut = np.arange(len(found)) < first.num_rows
    return Table(tuple(columns), texts, kinds, tuple(classes), records.take(cut), records.take(~cut))


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix != ".parquet":
            return pc.read_csv(path, convert_options=pc.ConvertOptions(strings_can_be_null=True))
        table = pq.read_table(path)
        kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
        return table.cast(pa.schema(zip(table.column_names, kinds, strict=True)))
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as {'Parquet' if path.suffix == '.parquet' else 'CSV'}: {error}.") \
            from error  # fmt: skip


def _check_columns(train: Path, first: pa.Table, holdout: Path, second: pa.Table, label: str) -> None:
    mistakes = []
    both = {str(train): first, str(holdout): second}
    lacking = [path for path, table in both.items() if label not in table.column_names]
    if lacking:
        names = listed(both[lacking[0]].column_names)
        mistakes.append(f"{' and '.join(lacking)}: no column {label!r} (--label) among {names}")
    for path, table in both.items():
        if len(set(table.column_names)) < len(table.column_names):
            mistakes.append(f"{path} names a column twice")
        if not table.num_rows:
            mistakes.append(f"{path} holds no record")
    odd = sorted(set(first.column_names) ^ set(second.column_names))
    if odd:
        mistakes.append(f"only one of {train} and {holdout} has the columns {odd}")
    if len(first.column_names) < 2:
        mistakes.append(f"{train} has no column beside the label")
    if mistakes:
        raise ConfigError(f"{'; '.join(mistakes)}.")


def _kind(of: Any) -> type:
    if pa.types.is_boolean(of):
        return bool
    return int if pa.types.is_integer(of) else float if any(holds(of) for holds in NUMBERS) else str


def _numbers(column: Any, name: str) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """A column as numbers, and the words that they stand for."""
    kind = column.type
    if any(holds(kind) for holds in NUMBERS):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if not np.isfinite(values).all():
            raise DataError(f"the column {name!r} holds values that are not finite; fill or drop them.")
        return values, None
    words = [str(value) for value in column.to_pylist()]
    known = sorted(set(words))
    code = {word: number for number, word in enumerate(known)}
    return np.array([code[word] for word in words], np.float64), tuple(known)
