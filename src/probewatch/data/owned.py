"""Records that the owner of a model has, from files, and the profiles of all models in a folder of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from probewatch.data.fields import RECORDS, TEMPLATE, FieldMap
from probewatch.data.logs import read_logs
from probewatch.data.profile import KEY_BYTES, Key, Profile, Records, build_profile
from probewatch.data.rejects import Counts, Reject
from probewatch.errors import LogError, MappingError, ProfileError

RECORD_TEMPLATE = '[fields] inputs = "…" or ["column", "column", …], confidence = "…"'
ROLES = ("train", "holdout")


@dataclass(frozen=True)
class Owned:
    """What a file of records held.

    Attributes:
        records: all that is whole.
        counts: what became of the lines.
        rejected: the first thousand rejects.
    """

    records: Records
    counts: Counts
    rejected: list[Reject]

    @property
    def told(self) -> list[str]:
        """What a person should know of what was left out, in sentences."""
        if not self.counts.rejects:
            return []
        return [f"{self.counts.rejects:,} lines were rejected, the first: {self.rejected[0]}"]


def read_records(path: Path | str, fields: FieldMap | None = None) -> Owned:
    """The records in a file: JSON lines, CSV or Parquet, plain or gzip.

    Args:
        path: the file.
        fields: where a line keeps inputs, confidence and predicted class, the rest is not looked at; without it
            ``featureVector``, ``confidence`` and ``predictedClass``.

    Raises:
        LogError: the file cannot be read, or all its lines are rejected, as for want of an input vector.
        MappingError: it lacks the mapped fields.
    """
    mapped = fields.of_records() if fields else RECORDS
    try:
        with read_logs([path], fields=mapped) as log:
            sessions, counts, rejected = log.all_sessions(), log.counts, log.rejected
    except MappingError as error:
        raise MappingError(str(error).replace(TEMPLATE, RECORD_TEMPLATE)) from error
    except LogError as error:
        told = str(error).replace("a log of queries", "records")
        where = (
            f" Inputs were looked for in {mapped.inputs!r}, and the model's confidence beside them, as in a corpus's"
            f" targets/; if they stand elsewhere, give a field mapping with {RECORD_TEMPLATE}."
        )
        where = where if "'inputs'" in told else ""
        raise LogError(told + where) from error
    inputs = sessions.inputs.reshape(len(sessions.time_s), -1)  # of one width: others are rejected
    return Owned(Records(inputs, sessions.confidence), counts, rejected)


def read_targets(
    folder: Path | str, key: Key | None = None, fields: FieldMap | None = None
) -> tuple[dict[str, Profile], list[str]]:
    """The profile of each model in a folder: ``MODEL/train.*`` and ``MODEL/holdout.*``.

    Args:
        folder: of a folder for each model, by its name in the logs.
        key: 16 secret bytes. Without it they are made of the records, so that the same files give the same features:
            for profiles that nobody keeps, since whoever has the records needs no key.
        fields: see :func:`read_records`.

    Returns:
        profiles by model, and what a person should know of what was left out, in sentences.

    Raises:
        ProfileError: no folder, no models in it, or one without its two files.
        LogError, DataError: a file cannot be read, or holds too little.
    """
    folder = Path(folder)
    models = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    files = {path.name: {role: sorted(path.glob(f"{role}.*")) for role in ROLES} for path in models}
    files = {model: found for model, found in files.items() if any(found.values())}
    if not files:
        raise ProfileError(f"{folder}: expected a folder MODEL with train.* and holdout.* for each model.")
    wrong = [f"{model}/{role}.*" for model, found in files.items() for role in ROLES if len(found[role]) != 1]
    if wrong:
        raise ProfileError(f"{folder}: expected one file each of {', '.join(wrong)}; the endings may be any.")
    owned = {model: [read_records(found[role][0], fields) for role in ROLES] for model, found in files.items()}
    told = [sentence for pair in owned.values() for one in pair for sentence in one.told]
    secret = key or _key_of([one.records for pair in owned.values() for one in pair])
    return {
        model: build_profile(pair[0].records, pair[1].records, secret, model) for model, pair in owned.items()
    }, told


def _key_of(records: list[Records]) -> Key:
    mixed = hashlib.blake2b(digest_size=KEY_BYTES)
    for one in records:
        mixed.update(one.inputs.tobytes())
    return mixed.digest()
