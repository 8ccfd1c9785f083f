"""Memory that another library can read as a file."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from io import FileIO
from pathlib import Path

from probewatch.errors import OutputError


class Scratch:
    """A buffer of ``size_bytes`` whose first bytes are also a file; it goes when nothing refers to it.

    DuckDB reads JSON from files only, and a copy of each block would cost a tenth of the time.

    Raises:
        OutputError: the system does not give that much.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("probewatch")
            self._path = Path(f"/proc/self/fd/{self._descriptor}")
            weakref.finalize(self, os.close, self._descriptor)
        else:
            file = tempfile.NamedTemporaryFile(prefix="probewatch-")  # noqa: SIM115 (closed when collected)
            self._descriptor, self._path = file.fileno(), Path(file.name)
            weakref.finalize(self, file.close)
        try:
            os.ftruncate(self._descriptor, size_bytes)
            self.memory = mmap.mmap(self._descriptor, size_bytes)
        except OSError as error:
            raise OutputError(
                f"scratch memory of {size_bytes >> 20} MiB cannot be had ({error.strerror});"
                " free memory, or raise the limit on the size of files (ulimit -f)."
            ) from error

    def receive(self, file: FileIO, start: int, end: int) -> int:
        """Read the file's next bytes into memory from ``start`` to ``end``; how many there were, 0 at its end."""
        if hasattr(os, "sendfile"):
            try:
                os.lseek(self._descriptor, start, os.SEEK_SET)
                return os.sendfile(self._descriptor, file.fileno(), None, end - start)
            except OSError:
                pass  # the system does not do this between such files
        return file.readinto(memoryview(self.memory)[start:end]) or 0

    def as_file(self, size_bytes: int) -> Path:
        """The first bytes as a file; the memory behind them must not be touched before :meth:`renew`."""
        os.ftruncate(self._descriptor, size_bytes)
        return self._path

    def renew(self) -> None:
        """Make the whole memory usable again."""
        os.ftruncate(self._descriptor, self._size_bytes)
