"""Names to 64-bit keys, and how many different ones there were, in compiled code.

A stream keeps no names. Its keys are SipHash-1-3 (Aumasson and Bernstein 2012, with one and three rounds)
under a secret of its own, so that a client cannot choose names that collide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from probewatch.data.compiled import compiled, inner
from probewatch.data.events import Events, text_buffers

REGISTERS = 1 << 12  # of the counter of client-days: 1.6 % off, in 4 KiB
DAY_S = 86_400.0


@inner
def _round(a, b, c, d):  # type: ignore[no-untyped-def]
    a += b
    c += d
    b = (b << np.uint64(13)) | (b >> np.uint64(51))
    d = (d << np.uint64(16)) | (d >> np.uint64(48))
    b ^= a
    d ^= c
    a = (a << np.uint64(32)) | (a >> np.uint64(32))
    c += b
    a += d
    b = (b << np.uint64(17)) | (b >> np.uint64(47))
    d = (d << np.uint64(21)) | (d >> np.uint64(43))
    b ^= c
    d ^= a
    c = (c << np.uint64(32)) | (c >> np.uint64(32))
    return a, b, c, d


@inner
def _absorb(a, b, c, d, word):  # type: ignore[no-untyped-def]
    d ^= word
    a, b, c, d = _round(a, b, c, d)
    a ^= word
    return a, b, c, d


@inner
def _absorb_text(a, b, c, d, content, start, end):  # type: ignore[no-untyped-def]
    """Its length, then its bytes, eight at a time: no two rows of texts are the same words."""
    a, b, c, d = _absorb(a, b, c, d, np.uint64(end - start))
    at = start
    while at < end:
        word = np.uint64(0)
        for byte in range(min(end - at, 8)):
            word |= np.uint64(content[at + byte]) << np.uint64(8 * byte)
        a, b, c, d = _absorb(a, b, c, d, word)
        at += 8
    return a, b, c, d


@inner
def _finish(a, b, c, d):  # type: ignore[no-untyped-def]
    c ^= np.uint64(0xFF)
    for _ in range(3):
        a, b, c, d = _round(a, b, c, d)
    return a ^ b ^ c ^ d


@compiled
def _hash(secret, clients, client_ends, seconds, second_ends, thirds, third_ends, out):  # type: ignore[no-untyped-def]
    """``out`` (3, N): of the first text, of the first two, of all three."""
    for i in range(len(client_ends) - 1):
        a = secret[0] ^ np.uint64(0x736F6D6570736575)
        b = secret[1] ^ np.uint64(0x646F72616E646F6D)
        c = secret[0] ^ np.uint64(0x6C7967656E657261)
        d = secret[1] ^ np.uint64(0x7465646279746573)
        a, b, c, d = _absorb_text(a, b, c, d, clients, client_ends[i], client_ends[i + 1])
        out[0, i] = _finish(a, b, c, d)
        a, b, c, d = _absorb_text(a, b, c, d, seconds, second_ends[i], second_ends[i + 1])
        out[1, i] = _finish(a, b, c, d)
        a, b, c, d = _absorb_text(a, b, c, d, thirds, third_ends[i], third_ends[i + 1])
        out[2, i] = _finish(a, b, c, d)


def hash_events(events: Events, secret: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(3, N) keys of every event's client, of its client and model, and of its session.

    The session's is that of :data:`probewatch.data.sessions.KEY`: client, model and session.
    """
    out = np.empty((3, len(events)), np.uint64)
    texts = (*text_buffers(events.client), *text_buffers(events.model), *text_buffers(events.session))
    _hash(secret, *texts, out)
    return out.view(np.int64)


def hash_requests(events: Events, secret: NDArray[np.uint64]) -> NDArray[np.int64] | None:
    """(N,) keys of every event's client and request id, 0 where there is no id; None where no event has one."""
    content, ends = text_buffers(events.request)
    if ends[0] == ends[-1]:
        return None
    nothing = np.zeros(0, np.uint8), np.zeros(len(events) + 1, np.int32)
    out = np.empty((3, len(events)), np.uint64)
    _hash(secret, *text_buffers(events.client), content, ends, *nothing, out)
    return np.where(np.diff(ends) == 0, 0, np.maximum(out[1], np.uint64(1)).view(np.int64))


@compiled
def count_days(registers, clients, times):  # type: ignore[no-untyped-def]
    """Note each client's day in a HyperLogLog (Flajolet et al. 2007)."""
    for i in range(len(times)):
        word = np.uint64(clients[i]) ^ (np.uint64(times[i] / DAY_S) * np.uint64(0x9E3779B97F4A7C15))
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
        place = np.int64(word & np.uint64(REGISTERS - 1))
        rest, rank = word >> np.uint64(12), 1
        while rank < 53 and (rest & np.uint64(1)) == np.uint64(0):
            rest >>= np.uint64(1)
            rank += 1
        registers[place] = max(registers[place], rank)


def days_of(registers: NDArray[np.uint8]) -> float:
    """How many client-days were noted, about."""
    size = len(registers)
    estimate = 0.7213 / (1 + 1.079 / size) * size * size / float(np.sum(0.5 ** registers.astype(np.float64)))
    empty = int(np.count_nonzero(registers == 0))
    return size * math.log(size / empty) if estimate <= 2.5 * size and empty else estimate
