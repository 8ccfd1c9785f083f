"""Keyed hashes by which a query is known to be a training record, and counters of different hashes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from probewatch.data.compiled import compiled, inner
from probewatch.data.sketches import mix
from probewatch.data.state import BITS

SHIFTS = 2  # grids on which a record is looked up: a value rounded across a border of one is inside another


@compiled
def fill_grid(widths, key, grid):  # type: ignore[no-untyped-def]
    """Put the width of each input's cells, and by how many cells each grid is shifted, into (D, 1 + SHIFTS)."""
    for d in range(len(widths)):
        grid[d, 0] = widths[d]
        for shift in range(SHIFTS):
            word = mix(key[1] ^ np.uint64(SHIFTS * d + shift + 1) * np.uint64(0x9E3779B97F4A7C15))
            grid[d, 1 + shift] = np.float64(word >> np.uint64(11)) * (1.0 / 9007199254740992.0)  # from 0 to 1


@inner
def fold(inputs, centre, grid, key):  # type: ignore[no-untyped-def]
    """Keyed hashes of the cells that the inputs lie in on both of the grids that ``key`` shifts.

    Values are meant to lie inside their cells: what a log rounds or prints in another form stays there.
    """
    one, two = key[0] ^ np.uint64(1), key[0] ^ np.uint64(2)
    for d in range(len(inputs)):
        place = (inputs[d] - centre[d]) / grid[d, 0]
        place = min(max(place, -9e18), 9e18)
        one = mix(one ^ np.uint64(np.int64(math.floor(place + grid[d, 1]))))
        two = mix(two ^ np.uint64(np.int64(math.floor(place + grid[d, 2]))))
    return siphash(one, key), siphash(two, key)


@compiled
def siphash(word, key):  # type: ignore[no-untyped-def]
    """SipHash-2-4 of the eight bytes of ``word`` under 128 bits of ``key`` (Aumasson and Bernstein 2012)."""
    a, b = key[0] ^ np.uint64(0x736F6D6570736575), key[1] ^ np.uint64(0x646F72616E646F6D)
    c, d = key[0] ^ np.uint64(0x6C7967656E657261), key[1] ^ np.uint64(0x7465646279746573)
    block = np.uint64(word)
    for turn in range(3):
        if turn == 2:
            c ^= np.uint64(0xFF)
        else:
            d ^= block
        for _ in range(4 if turn == 2 else 2):
            a += b
            c += d
            b = ((b << np.uint64(13)) | (b >> np.uint64(51))) ^ a
            d = ((d << np.uint64(16)) | (d >> np.uint64(48))) ^ c
            a = (a << np.uint64(32)) | (a >> np.uint64(32))
            c += b
            a += d
            b = ((b << np.uint64(17)) | (b >> np.uint64(47))) ^ c
            d = ((d << np.uint64(21)) | (d >> np.uint64(43))) ^ a
            c = (c << np.uint64(32)) | (c >> np.uint64(32))
        if turn < 2:
            a ^= block
        block = np.uint64(8) << np.uint64(56)
    return a ^ b ^ c ^ d


@inner
def find_record(reference, model, inputs):  # type: ignore[no-untyped-def]
    """The number of the training record that the inputs are, -1 for none."""
    m = model.number
    start, stop = reference.records[m], reference.records[m + 1]
    if start == stop:
        return -1
    found = fold(inputs, model.centre, model.grid, reference.keys[m])
    for shift in range(SHIFTS):
        wanted = found[shift]
        hashes = reference.hashes[shift]
        low, high = start, stop
        while low < high:
            middle = (low + high) // 2
            if hashes[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        if low < stop and hashes[low] == wanted:
            return reference.numbers[shift, low]
    return -1


@inner
def ones(word):  # type: ignore[no-untyped-def]
    """How many bits of the word are set, counted in ever wider fields (Warren, Hacker's Delight, 5-1)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def mark(counter, k, hash):  # type: ignore[no-untyped-def]
    """Mark the hash in a linear counter; how many different ones it stands for, 0 if it may have come before.

    The n-th that falls on a free bit stands for 1 / (share of free bits) (Ting 2014).
    """
    place = hash & np.uint64(BITS - 1)
    word, bit = np.int64(place >> np.uint64(6)), np.uint64(1) << (place & np.uint64(63))
    if counter[k, word] & bit:
        return 0.0
    free = BITS
    for w in range(counter.shape[1]):
        free -= ones(counter[k, w])
    counter[k, word] |= bit
    return BITS / free


def grid_of(widths: NDArray[np.float64], key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The (D, 1 + SHIFTS) grids of inputs whose cells are ``widths`` wide."""
    grid = np.empty((len(widths), 1 + SHIFTS))
    fill_grid(widths, key, grid)
    return grid


def fold_all(
    inputs: NDArray[np.float64], centre: NDArray[np.float64], widths: NDArray[np.float64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The (SHIFTS, n) hashes of (n, D) inputs."""
    hashes = np.empty((SHIFTS, len(inputs)), np.uint64)
    _fold_all(np.ascontiguousarray(inputs), centre, grid_of(widths, key), key, hashes)
    return hashes


@compiled
def _fold_all(inputs, centre, grid, key, hashes):  # type: ignore[no-untyped-def]
    for i in range(len(inputs)):
        hashes[0, i], hashes[1, i] = fold(inputs[i], centre, grid, key)
