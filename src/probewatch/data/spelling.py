"""How a log of JSON lines spells its inputs, as its first queries tell: by which fields, as vectors or as hashes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import suppress
from typing import Any

import numpy as np

from probewatch.data.fields import FieldMap, fields_of
from probewatch.data.lines import Block
from probewatch.data.spool import WORDS

ENOUGH_QUERIES = 20
LOOKED_AT = 1000  # lines looked at for so many, and then a few of each block


def number_of_word(text: str) -> float:
    """What a text in an input vector stands for where a mapping has ``words``: the number of ``number_of``'s SQL.

    >>> number_of_word("1.50"), number_of_word("True"), number_of_word("clerk")
    (1.5, 1.0, 127731.0)
    """
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    flag = {"true": 1.0, "false": 0.0}.get(text.lower())
    return float(int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") % WORDS) if flag is None else flag


def is_hash(text: str) -> bool:
    """Whether a text in the place of an input vector stands for one: it is neither a list nor numbers.

    >>> is_hash("d41d8cd9"), is_hash("[1, 2]"), is_hash(" 1e5"), is_hash("0.1;0.2"), is_hash("")
    (True, False, False, False, False)
    """
    if text.strip().startswith("["):
        return False
    try:
        list(map(float, filter(None, re.split(r"[;,|\s]+", text))))
    except ValueError:
        return True
    return False


class Spelling:
    """Settles a field mapping on the first queries with inputs, however late they come.

    Until there are enough of them it goes by those that there are, so that one odd line decides for no more than its
    block.
    """

    def __init__(self, fields: FieldMap) -> None:
        self._fields = fields
        self._settled = fields
        self._seen = self._texts = 0
        self._names: dict[str, None] = {}
        self._lines = LOOKED_AT

    def of(self, block: Block) -> FieldMap:
        """The mapping for the lines of a block, the next of the log: patterns written out, hashes told from vectors."""
        if self._fields.inputs is None or self._seen >= ENOUGH_QUERIES:
            return self._settled
        for index in np.flatnonzero(block.usable)[: max(self._lines, ENOUGH_QUERIES)].tolist():
            self._lines -= 1
            self._learn(block.text(index))
            if self._seen >= ENOUGH_QUERIES:
                break
        fields = self._fields.spelled(list(self._names))
        self._settled = fields.hashed() if self._texts > self._seen / 2 else fields
        return self._settled

    def _learn(self, text: str) -> None:
        event: Any = None
        with suppress(ValueError, RecursionError):
            event = json.loads(text)
        if not isinstance(event, dict) or not self._is_query(event):
            return
        if isinstance(self._fields.inputs, str) and not self._fields.inputs.endswith("*"):
            value = self._fields.find(event, "inputs")
            self._seen += value not in (None, "", [])
            self._texts += isinstance(value, str) and is_hash(value) and not self._fields.words
        else:
            self._seen += 1
            self._names |= dict.fromkeys(fields_of([text]))

    def _is_query(self, event: dict[str, Any]) -> bool:
        kind = self._fields.find(event, "event_type")
        return kind is None or kind == self._fields.query_event
