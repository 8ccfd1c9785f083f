"""Names from a log are hostile text: as CSV cells, and on a terminal."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def guard_cell(text: str) -> str:
    """A log's text as a CSV cell that a spreadsheet does not run as a formula.

    A quote is put before what starts with ``= + - @``, a tab or a carriage return, unless it is a plain
    number. :func:`unguard_cell` takes it away again.

    >>> guard_cell("=HYPERLINK(1)"), guard_cell("alice"), guard_cell("-12")
    ("'=HYPERLINK(1)", 'alice', '-12')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguard_cell(cell: str) -> str:
    """What :func:`guard_cell` was given.

    >>> unguard_cell(guard_cell("=1+1")), unguard_cell("alice")
    ('=1+1', 'alice')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def printable(text: str) -> str:
    """A log's text without what could steer a terminal: control characters are shown as escapes.

    >>> printable("a\x1b[31m")
    'a\\\\x1b[31m'
    """
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
