"""Bytes to numbered lines: files, gzip and blocks that hold whole lines only."""

from __future__ import annotations

import codecs
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probewatch.data.scratch import Scratch
from probewatch.errors import LogError, OutputError

BLOCK_BYTES = 120 << 20  # DuckDB takes over, uncopied, what it is given in 122,880 rows or more
FIRST_BLOCKS = 2  # small ones, so that every thread has work soon
LINE_LIMIT_BYTES = 16 << 20
SCAN_BYTES = 1 << 18  # newlines are looked for in pieces that stay in the processor's cache
READ_BYTES = 1 << 20
NEWLINE, SPACE, BACKSLASH, FIRST_NOT_ASCII = 10, 32, 92, 128
TOO_LONG = f"the line has more than {LINE_LIMIT_BYTES >> 20} MiB, expected one query; drop it"
FIRST, SECOND = r"(?i:d[89ab][\da-f]{2})", r"(?i:d[c-f][\da-f]{2})"
HALF_A_PAIR = re.compile(rf"\\u(?:{FIRST}(?!\\u{SECOND})|(?<!\\u{FIRST}\\u){SECOND})".encode())

Filler = Callable[[Scratch, int, int], int]


class CutShortError(Exception):
    """A compressed file ends, or breaks, before its end; what came before it was already given out."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of one file.

    Attributes:
        first_line: number of the first line, from 1.
        content: the bytes, line ends included.
        ends: (L,) int64, where each line ends in them.
        blank: (L,) bool, lines that count for nothing.
        rejected: index and reason of the lines that are no text.
        path: the content as a file, where there is one.
        release: gives the content's memory back; the block cannot be used any more.
        cut_short: the one line stands for what a compressed file lacks.
    """

    first_line: int
    content: memoryview
    ends: NDArray[np.int64]
    blank: NDArray[np.bool_]
    rejected: list[tuple[int, str]] = field(default_factory=list)
    path: Path | None = None
    release: Callable[[], None] = _nothing
    cut_short: bool = False

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
        return str(self._line(index), "utf-8", "replace").rstrip("\r\n")

    def is_halved(self, index: int) -> bool:
        """Whether a line spells half a surrogate pair, which JSON allows and no text can hold."""
        return any(map(_is_escape, HALF_A_PAIR.finditer(bytes(self._line(index)))))

    def _line(self, index: int) -> memoryview:
        start = int(self.ends[index - 1]) if index else 0
        return self.content[start : int(self.ends[index])]

    def mended(self) -> Block:
        """The same lines with U+FFFD in the place of every half of a surrogate pair."""
        return replace(self, content=memoryview(mend_halves(bytes(self.content))), path=None)

    def filled(self, filler: bytes) -> bytes | memoryview:
        """The content with ``filler`` in place of every line that is not usable: as many lines as the block has."""
        usable = self.usable
        if usable.all():
            return self.content
        pieces: list[bytes | memoryview] = []
        at = 0
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


def read_bytes(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The content of a file in pieces, unpacked if it is gzip.

    Raises:
        LogError: the file cannot be opened or read.
        CutShortError: a gzip stream ends early or is damaged, after all that could be unpacked.
    """
    with _open(path) as (file, packed):
        if packed:
            yield from _unpack(file, progress)
        else:
            while piece := file.read(READ_BYTES):
                progress(len(piece))
                yield piece


@contextmanager
def _open(path: Path) -> Iterator[tuple[FileIO, bool]]:
    """The file, and whether it is gzip."""
    try:
        with path.open("rb", buffering=0) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield file, packed
    except OutputError:  # of the scratch memory, and no fault of the file
        raise
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from error


def _filler(file: FileIO, packed: bool, progress: Callable[[int], None]) -> Filler:
    """A function that puts the file's next bytes into memory from ``start`` to ``end`` and says how many, 0 at last."""
    pieces = _unpack(file, progress)
    rest = memoryview(b"")

    def fill_plain(scratch: Scratch, start: int, end: int) -> int:
        size = scratch.receive(file, start, end)
        progress(size)
        return size

    def fill_unpacked(scratch: Scratch, start: int, end: int) -> int:
        nonlocal rest
        while not rest:
            piece = next(pieces, None)
            if piece is None:
                return 0
            rest = memoryview(piece)
        size = min(len(rest), end - start)
        scratch.memory[start : start + size] = rest[:size]
        rest = rest[size:]
        return size

    return fill_unpacked if packed else fill_plain


def _unpack(file: FileIO, progress: Callable[[int], None]) -> Iterator[bytes]:
    stream = zlib.decompressobj(31)
    fresh = True
    while piece := file.read(READ_BYTES):
        progress(len(piece))
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

    A block that is handed to :meth:`Block.release` lends its memory to a later one: fresh memory of
    this size costs more time than reading into it.

    Raises:
        LogError: the file cannot be opened or read.
    """
    line = 1
    spare: list[Scratch] = []
    try:
        with _open(path) as (file, packed):
            fill = _filler(file, packed, progress)
            for content, scratch in _cut_at_newlines(fill, spare, block_bytes):
                block = make_block(content, line, scratch, spare) if content else _reject_block(line, TOO_LONG)
                line += len(block)
                yield block
    except CutShortError as cut:
        yield _reject_block(line, f"{cut}; everything before this line was read, fetch the file anew", cut_short=True)


def _cut_at_newlines(
    fill: Filler, spare: list[Scratch], block_bytes: int
) -> Iterator[tuple[memoryview, Scratch | None]]:
    """Whole lines and the memory that begins with them, if one does; nothing for a line over the limit.

    Only the very last line may lack its newline; where the file is cut short it is left out.
    """
    carry, blocks, dropping, ends = b"", 0, False, False
    cut: CutShortError | None = None
    while not ends:
        scratch = spare.pop() if spare else Scratch(max(block_bytes, LINE_LIMIT_BYTES) + 1)
        memory, used = scratch.memory, len(carry)
        view = memoryview(memory)
        view[:used] = carry
        room = max(len(view) // 8, len(carry) + 1) if blocks < FIRST_BLOCKS else len(view)
        try:
            while used < room and not ends:
                got = fill(scratch, used, room)
                used, ends = used + got, not got
        except CutShortError as error:
            cut, ends = error, True
        start = len(BOM_UTF8) if not blocks and memory[: len(BOM_UTF8)] == BOM_UTF8 else 0
        blocks += 1
        if dropping:
            start = memory.find(b"\n", 0, used) + 1 or used
            dropping = start == used and not ends and memory[used - 1] != NEWLINE
            if not dropping:
                yield view[:0], None
        end = used if ends and cut is None else max(memory.rfind(b"\n", start, used) + 1, start)
        dropping = dropping or (end == start and used - start > LINE_LIMIT_BYTES)
        carry = b"" if dropping else bytes(view[end:used])
        if end > start:
            yield view[start:end], None if start else scratch
        else:
            spare.append(scratch)
    if dropping:
        yield memoryview(b""), None
    if cut:
        raise cut


def _reject_block(line: int, reason: str, *, cut_short: bool = False) -> Block:
    return Block(line, memoryview(b""), np.zeros(1, np.int64), np.zeros(1, bool), [(0, reason)], cut_short=cut_short)


def mend_halves(content: bytes) -> bytes:
    """JSON with U+FFFD, in as many bytes, in the place of every half of a surrogate pair."""
    return HALF_A_PAIR.sub(lambda half: rb"\ufffd" if _is_escape(half) else half[0], content)


def _is_escape(found: re.Match[bytes]) -> bool:
    """Whether what was found begins with a backslash that no other one escapes."""
    at = found.start()
    while at and found.string[at - 1] == BACKSLASH:
        at -= 1
    return (found.start() - at) % 2 == 0


def make_block(
    content: memoryview, first_line: int, scratch: Scratch | None = None, spare: list[Scratch] | None = None
) -> Block:
    """The lines of ``content``; the last one may lack its newline.

    Args:
        content: one line at least.
        first_line: number of the first line.
        scratch: the memory that begins with the content.
        spare: where that goes when the block is released.
    """
    raw = np.frombuffer(content, np.uint8)
    ends, ascii_only = _scan(raw)
    if not len(ends) or ends[-1] != len(raw):
        ends = np.append(ends, len(raw))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    long = {int(index): TOO_LONG for index in np.flatnonzero(ends - starts > LINE_LIMIT_BYTES)}
    rejected = long if ascii_only else {**_find_undecodable(content, starts, ends), **long}
    blank = _find_blank(raw, starts, ends)
    path = scratch.as_file(len(content)) if scratch else None

    def release() -> None:
        if scratch is not None and spare is not None:
            scratch.renew()
            spare.append(scratch)

    return Block(first_line, content, ends, blank, sorted(rejected.items()), path, release)


def _scan(raw: NDArray[np.uint8]) -> tuple[NDArray[np.int64], bool]:
    """Where lines end, and whether all is ASCII: both in one pass over memory."""
    ends: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    highest = 0
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


def _find_undecodable(content: memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> dict[int, str]:
    found = {}
    position = 0
    while position < len(content):
        try:
            codecs.utf_8_decode(content[position:], "strict", True)
            break
        except UnicodeDecodeError as error:
            at = position + error.start
            index = int(np.searchsorted(ends, at, side="right"))
            place = f"byte {at - int(starts[index]) + 1} of the line"
            found[index] = f"{place} is not UTF-8; convert the file"
            position = int(ends[index])
    return found
