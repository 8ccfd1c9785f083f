"""Bytes to numbered lines: files, gzip and blocks that hold whole lines only."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probewatch.errors import LogError

BLOCK_BYTES = 32 << 20
LINE_LIMIT_BYTES = 16 << 20
SCAN_BYTES = 1 << 18  # newlines are looked for in pieces that stay in the processor's cache
READ_BYTES = 1 << 20
NEWLINE, SPACE = 10, 32
TOO_LONG = f"the line has more than {LINE_LIMIT_BYTES >> 20} MiB, expected one query; drop it"


class CutShort(Exception):
    """A compressed file ends, or breaks, before its end; what came before it was already given out."""


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of one file.

    Attributes:
        first_line: number of the first line, from 1.
        text: (L,) the lines with their line ends, null where a line is blank or already rejected.
        blank: (L,) bool, lines that count for nothing.
        rejected: line number and reason of the lines that are no text.
        size_bytes: of the block.
    """

    first_line: int
    text: pa.LargeStringArray
    blank: NDArray[np.bool_]
    rejected: list[tuple[int, str]] = field(default_factory=list)
    size_bytes: int = 0

    def __len__(self) -> int:
        return len(self.text)


def read_bytes(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The content of a file in pieces of about 1 MiB, unpacked if it is gzip.

    Raises:
        LogError: the file cannot be opened.
        CutShort: a gzip stream ends early or is damaged, after all that could be unpacked.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield from _unpack(file, progress) if packed else _read(file, progress)
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from error


def _read(file: BinaryIO, progress: Callable[[int], None]) -> Iterator[bytes]:
    while piece := file.read(READ_BYTES):
        progress(len(piece))
        yield piece


def _unpack(file: BinaryIO, progress: Callable[[int], None]) -> Iterator[bytes]:
    stream = zlib.decompressobj(31)
    fresh = True
    for piece in _read(file, progress):
        while piece:
            if fresh and not (piece := piece.lstrip(b"\0")):
                break  # zero padding between or behind members
            fresh = False
            try:
                yield stream.decompress(piece, READ_BYTES)
            except zlib.error as error:
                raise CutShort(f"the gzip stream is damaged ({error})") from error
            piece = stream.unconsumed_tail
            if stream.eof:
                piece, stream, fresh = stream.unused_data, zlib.decompressobj(31), True
    while not fresh and not stream.eof and (rest := stream.decompress(b"", READ_BYTES)):
        yield rest
    if not fresh and not stream.eof:
        raise CutShort("the gzip stream is cut short")


def read_blocks(path: Path, progress: Callable[[int], None], *, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines of a file, block by block, in order; a file that is cut short ends with one rejected line.

    Raises:
        LogError: the file cannot be opened or read.
    """
    line = 1
    try:
        for content in _cut_at_newlines(read_bytes(path, progress), block_bytes):
            block = make_block(content, line) if content is not None else _reject_block(line, TOO_LONG)
            yield block
            line += len(block)
    except CutShort as cut:
        yield _reject_block(line, f"{cut}; everything before this line was read, fetch the file anew")


def _cut_at_newlines(pieces: Iterator[bytes], block_bytes: int) -> Iterator[bytes | None]:
    """Pieces of whole lines, None for a line over the limit; only the last may lack its newline."""
    pending: list[bytes] = []
    size, dropping = 0, False
    try:
        for piece in pieces:
            if dropping:
                _, newline, piece = piece.partition(b"\n")
                if not newline:
                    continue
                dropping = False
                yield None
            size += len(piece)
            head, newline, tail = piece.rpartition(b"\n") if size >= block_bytes else (b"", b"", piece)
            if newline:
                yield b"".join([*pending, head, newline])
                pending, size = [], len(tail)
            pending.append(tail)
            if size > max(block_bytes, LINE_LIMIT_BYTES):
                whole, newline, rest = b"".join(pending).rpartition(b"\n")
                if newline:
                    yield whole + newline
                dropping = len(rest) > LINE_LIMIT_BYTES
                pending, size = ([], 0) if dropping else ([rest], len(rest))
    except CutShort:
        whole, newline, _ = b"".join(pending).rpartition(b"\n")
        if newline:
            yield whole + newline
        raise
    if dropping:
        yield None
    elif size:
        yield b"".join(pending)


def _reject_block(line: int, reason: str) -> Block:
    return Block(line, pa.array([None], pa.large_string()), np.zeros(1, bool), [(line, reason)])


def make_block(content: bytes, first_line: int) -> Block:
    """The lines of ``content``; the last one may lack its newline."""
    raw = np.frombuffer(content, np.uint8)
    ends = _find_newlines(raw) + 1
    if not len(ends) or ends[-1] != len(raw):
        ends = np.append(ends, len(raw))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    blank = _find_blank(raw, starts, ends)
    rejected = [] if content.isascii() else _find_undecodable(content, starts, ends, first_line)
    lost = ends - starts > LINE_LIMIT_BYTES
    for index in np.flatnonzero(lost):
        rejected.append((first_line + int(index), TOO_LONG))
    null = blank.copy()
    null[[line - first_line for line, _ in rejected]] = True
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(content)]
    text = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    return Block(first_line, text, blank, sorted(dict(rejected).items()), len(content))


def _find_newlines(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    found = [np.flatnonzero(raw[at : at + SCAN_BYTES] == NEWLINE) + at for at in range(0, len(raw), SCAN_BYTES)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _find_blank(raw: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    blank = np.zeros(len(starts), bool)
    for index in np.flatnonzero(raw[starts] <= SPACE):  # few lines begin with a space
        blank[index] = not bytes(raw[starts[index] : ends[index]]).strip()
    return blank


def _find_undecodable(
    content: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], first_line: int
) -> list[tuple[int, str]]:
    found = []
    position = 0
    view = memoryview(content)
    while position < len(content):
        try:
            codecs.utf_8_decode(view[position:], "strict", True)
            break
        except UnicodeDecodeError as error:
            at = position + error.start
            index = int(np.searchsorted(ends, at, side="right"))
            reason = f"byte {at - starts[index] + 1} of the line is 0x{content[at]:02x}, expected UTF-8; convert the file"
            found.append((first_line + index, reason))
            position = int(ends[index])
    return found
