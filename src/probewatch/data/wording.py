"""Numbers and lists as a sentence says them."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5  # names in a sentence


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "session"), counted(2000, "session"), counted(0, "query", "queries")
    ('1 session', '2,000 sessions', '0 queries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[object], shown: int = SHOWN, joint: str = ", ") -> str:
    """The first few names, and how many more there are.

    >>> listed("abcde"), listed("abcdefg")
    ('a, b, c, d, e', 'a, b, c, d, e and 2 more')
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - shown:,} more" if len(texts) > shown else ""
    return joint.join(texts[:shown]) + more
