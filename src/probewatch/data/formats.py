"""Which format a file has, by its first bytes before its name."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from probewatch.data.article import looks_like_article
from probewatch.data.lines import CutShortError, read_bytes
from probewatch.errors import LogError

HEAD_BYTES = 1 << 20
BINARY_BYTES = 1 << 13
BINARY_SHARE = 20  # more NULs than one byte in this many are no text

FOREIGN = {
    b"\x1f\x8b": "packed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ\x00": "packed with xz",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"SQLite format 3": "an SQLite database",
}


class Format(Enum):
    """What a log file can be."""

    ARTICLE = "the article's feature JSON"
    LINES = "JSON lines"
    CSV = "CSV"
    PARQUET = "Parquet"


def recognise(path: Path, *, mapped: bool) -> Format:
    """The format of a file; text that is not JSON is taken for CSV if the fields are ``mapped``.

    Raises:
        LogError: the file cannot be read, or is of a kind that is no log.
    """
    head = read_head(path)
    if what := foreign(head):
        raise LogError(f"{path}: is {what}, expected UTF-8 text, plain or gzip, or Parquet; convert the file.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if head.startswith(b"PAR1") or ".parquet" in suffixes[-1:]:
        return Format.PARQUET
    if {".csv", ".tsv"} & set(suffixes[-2:]):
        return Format.CSV
    if looks_like_article(head):
        return Format.ARTICLE
    if head[:BINARY_BYTES].count(0) * BINARY_SHARE > len(head[:BINARY_BYTES]):
        raise LogError(f"{path}: is a binary file, expected a log of queries as text or Parquet; give another file.")
    lines = [line.lstrip() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines()]
    if any(line.startswith(b"{") for line in lines):
        return Format.LINES
    return Format.CSV if mapped and lines else Format.LINES


def foreign(head: bytes) -> str:
    """What content that begins so is, if it is no log as it stands; empty otherwise."""
    return next((what for magic, what in FOREIGN.items() if head.startswith(magic)), "")


def read_head(path: Path) -> bytes:
    """The first bytes of a file's content.

    Raises:
        LogError: the file cannot be read.
    """
    head = b""
    try:
        for piece in read_bytes(path, lambda size_bytes: None):
            head += piece
            if len(head) >= HEAD_BYTES:
                break
    except CutShortError:
        pass  # reading will meet the cut again, and count it
    return head
