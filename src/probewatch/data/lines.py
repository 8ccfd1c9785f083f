"""Bytes to numbered lines: files, gzip and blocks that hold whole lines only."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probewatch.errors import LogError

BLOCK_BYTES = 24 << 20  # the allocator hands out blocks of this size again; from 32 MiB on they cost page faults
LINE_LIMIT_BYTES = 16 << 20
SCAN_BYTES = 1 << 18  # newlines are looked for in pieces that stay in the processor's cache
READ_BYTES = 1 << 20
NEWLINE, SPACE, FIRST_NOT_ASCII = 10, 32, 128
TOO_LONG = f"the line has more than {LINE_LIMIT_BYTES >> 20} MiB, expected one query; drop it"


class CutShortError(Exception):
    """A compressed file ends, or breaks, before its end; what came before it was already given out."""


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of one file.

    Attributes:
        first_line: number of the first line, from 1.
        content: the bytes, line ends included.
        ends: (L,) int64, where each line ends in them.
        blank: (L,) bool, lines that count for nothing.
        rejected: index and reason of the lines that are no text.
    """

    first_line: int
    content: bytes
    ends: NDArray[np.int64]
    blank: NDArray[np.bool_]
    rejected: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(L,) int64, where each line starts."""
        return np.concatenate([np.zeros(min(len(self), 1), np.int64), self.ends[:-1]])

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(L,) True for the lines that hold text."""
        usable = ~self.blank
        usable[[index for index, _ in self.rejected]] = False
        return usable

    def text(self, index: int) -> str:
        """One line, without its end."""
        start = int(self.ends[index - 1]) if index else 0
        return self.content[start : int(self.ends[index])].decode("utf-8", "replace").rstrip("\r\n")

    def filled(self, filler: bytes) -> bytes:
        """The content with ``filler`` in place of every line that is not usable: as many lines as the block has."""
        usable = self.usable
        if usable.all():
            return self.content
        pieces, at = [], 0
        for index in np.flatnonzero(~usable):
            start = int(self.ends[index - 1]) if index else 0
            pieces += [self.content[at:start], filler, b"\n"]
            at = int(self.ends[index])
        return b"".join([*pieces, self.content[at:]])

    def arrow(self) -> pa.LargeStringArray:
        """(L,) the lines with their ends, null where not usable, without a copy of their bytes."""
        valid = pa.py_buffer(np.packbits(self.usable, bitorder="little"))
        offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), self.ends]))
        return pa.Array.from_buffers(pa.large_string(), len(self), [valid, offsets, pa.py_buffer(self.content)])


def read_bytes(path: Path, progress: Callable[[int], None], *, piece_bytes: int = READ_BYTES) -> Iterator[bytes]:
    """The content of a file in pieces, unpacked if it is gzip.

    Raises:
        LogError: the file cannot be opened or read.
        CutShortError: a gzip stream ends early or is damaged, after all that could be unpacked.
    """
    try:
        with path.open("rb", buffering=0) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield from _unpack(file, progress) if packed else _read(file, progress, piece_bytes)
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from error


def _read(file: RawIOBase, progress: Callable[[int], None], piece_bytes: int) -> Iterator[bytes]:
    while piece := file.read(piece_bytes):
        progress(len(piece))
        yield piece


def _unpack(file: RawIOBase, progress: Callable[[int], None]) -> Iterator[bytes]:
    stream = zlib.decompressobj(31)
    fresh = True
    for piece in _read(file, progress, READ_BYTES):
        while piece:
            if fresh and not (piece := piece.lstrip(b"\0")):
                break  # zero padding between or behind members
            fresh = False
            try:
                yield stream.decompress(piece, READ_BYTES)
            except zlib.error as error:
                raise CutShortError(f"the gzip stream is damaged ({error})") from error
            piece = stream.unconsumed_tail
            if stream.eof:
                piece, stream, fresh = stream.unused_data, zlib.decompressobj(31), True
    while not fresh and not stream.eof and (rest := stream.decompress(b"", READ_BYTES)):
        yield rest
    if not fresh and not stream.eof:
        raise CutShortError("the gzip stream is cut short")


def read_blocks(path: Path, progress: Callable[[int], None], *, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines of a file, block by block, in order; a file that is cut short ends with one rejected line.

    Raises:
        LogError: the file cannot be opened or read.
    """
    line = 1
    try:
        pieces = _without_mark(read_bytes(path, progress, piece_bytes=block_bytes))
        for content in _cut_at_newlines(pieces, block_bytes):
            block = make_block(content, line) if content is not None else _reject_block(line, TOO_LONG)
            yield block
            line += len(block)
    except CutShortError as cut:
        yield _reject_block(line, f"{cut}; everything before this line was read, fetch the file anew")


def _without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece.removeprefix(codecs.BOM_UTF8)
        break
    yield from pieces


def _cut_at_newlines(pieces: Iterator[bytes], block_bytes: int) -> Iterator[bytes | None]:
    """Pieces of whole lines, None for a line over the limit; only the last may lack its newline."""
    pending: list[bytes | memoryview] = []
    size, dropping = 0, False
    try:
        for piece in pieces:
            rest = memoryview(piece)
            if dropping:
                end = piece.find(b"\n") + 1
                if not end:
                    continue
                dropping, rest = False, rest[end:]
                yield None
            size += len(rest)
            end = len(rest) - (len(piece) - piece.rfind(b"\n") - 1) if size >= block_bytes else 0
            if end > 0:
                yield b"".join([*pending, rest[:end]])
                pending, size, rest = [], len(rest) - end, rest[end:]
            pending.append(rest)
            if size > max(block_bytes, LINE_LIMIT_BYTES):
                whole, newline, tail = b"".join(pending).rpartition(b"\n")
                if newline:
                    yield whole + newline
                dropping = len(tail) > LINE_LIMIT_BYTES
                pending, size = ([], 0) if dropping else ([tail], len(tail))
    except CutShortError:
        whole, newline, _ = b"".join(pending).rpartition(b"\n")
        if newline:
            yield whole + newline
        raise
    if dropping:
        yield None
    elif size:
        yield b"".join(pending)


def _reject_block(line: int, reason: str) -> Block:
    return Block(line, b"", np.zeros(1, np.int64), np.zeros(1, bool), [(0, reason)])


def make_block(content: bytes, first_line: int) -> Block:
    """The lines of ``content``; the last one may lack its newline."""
    raw = np.frombuffer(content, np.uint8)
    ends, ascii_only = _scan(raw)
    if not len(ends) or ends[-1] != len(raw):
        ends = np.append(ends, len(raw))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    long = {int(index): TOO_LONG for index in np.flatnonzero(ends - starts > LINE_LIMIT_BYTES)}
    rejected = long if ascii_only else {**_find_undecodable(content, starts, ends), **long}
    return Block(first_line, content, ends, _find_blank(raw, starts, ends), sorted(rejected.items()))


def _scan(raw: NDArray[np.uint8]) -> tuple[NDArray[np.int64], bool]:
    """Where lines end, and whether all is ASCII: both in one pass over memory."""
    ends, highest = [np.zeros(0, np.int64)], 0
    for at in range(0, len(raw), SCAN_BYTES):
        piece = raw[at : at + SCAN_BYTES]
        ends.append(np.flatnonzero(piece == NEWLINE) + (at + 1))
        highest = max(highest, int(piece.max()))
    return np.concatenate(ends), highest < FIRST_NOT_ASCII


def _find_blank(raw: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    blank = np.zeros(len(starts), bool)
    for index in np.flatnonzero(raw[starts] <= SPACE):  # few lines begin with a space
        blank[index] = not bytes(raw[starts[index] : ends[index]]).strip()
    return blank


def _find_undecodable(content: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> dict[int, str]:
    found = {}
    position = 0
    view = memoryview(content)
    while position < len(content):
        try:
            codecs.utf_8_decode(view[position:], "strict", True)
            break
        except UnicodeDecodeError as error:
            at = position + error.start
            index = int(np.searchsorted(ends, at, side="right"))
            place = f"byte {at - int(starts[index]) + 1} of the line is 0x{content[at]:02x}"
            found[index] = f"{place}, expected UTF-8; convert the file"
            position = int(ends[index])
    return found
