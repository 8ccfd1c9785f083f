"""An answer over HTTP that must be whole by a moment and may not pass a size."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

LATE = "the answer is not whole in time (--timeout)"


class AnswerTooLong(http.client.HTTPException):
    """An answer has more bytes than any to so many queries should have."""


def answer_by(connection: http.client.HTTPConnection, ends_s: float) -> http.client.HTTPResponse:
    """The answer to what was sent, whose every byte must come by ``ends_s`` (of ``time.monotonic``).

    A socket's own time-out starts anew with each byte, so it holds no endpoint that sends one now and then.

    Raises:
        TimeoutError: now, or when it is read.
    """
    connection.response_class = lambda sock, method: http.client.HTTPResponse(  # type: ignore[assignment]
        _Sent(sock, ends_s),  # type: ignore[arg-type]
        method=method,
    )
    return connection.getresponse()


def read_at_most(response: http.client.HTTPResponse, most: int) -> bytes:
    """The body, of at most so many bytes; no more than these are read or kept, whatever its length is said to be.

    Raises:
        AnswerTooLong: it has more.
        HTTPException: it breaks off.
    """
    announced = response.length or 0
    reply = b"" if announced > most else response.read(most + 1)
    if announced > most or len(reply) > most:
        raise AnswerTooLong(f"the answer passes {most:,} bytes")
    if response.length:
        raise http.client.IncompleteRead(reply, response.length)
    return reply


class _Sent:
    """What a socket is to an ``HTTPResponse``: something that makes a file."""

    def __init__(self, sock: socket.socket, ends_s: float) -> None:
        self._sock, self._ends_s = sock, ends_s

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_UntilThen(self._sock, self._ends_s))


class _UntilThen(io.RawIOBase):
    """Reads a socket, each time with the seconds that are left."""

    def __init__(self, sock: socket.socket, ends_s: float) -> None:
        self._sock, self._ends_s = sock, ends_s
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open where the connection has closed it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._ends_s - time.monotonic()
        try:
            if left_s <= 0.0:
                raise TimeoutError
            self._sock.settimeout(left_s)
            return self._file.readinto(buffer)
        except TimeoutError as error:
            raise TimeoutError(LATE) from error

    def close(self) -> None:
        self._file.close()
        super().close()
